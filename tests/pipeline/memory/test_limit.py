import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.memory.limit import as_option, in_words, parse_limit


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("6GB", 6 * 10**9),
        ("6 gb", 6 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("800MB", 8 * 10**8),
        ("512MiB", 2**29),
        ("auto", "auto"),
        (" AUTO ", "auto"),
    ],
)
def test_what_users_write(text: str, num_bytes: int | str) -> None:
    assert parse_limit(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "6", "6G", "0GB", "-6GB", "6TB", "6,5GB", "lots", "1e9GB", "9" * 30 + "GB"]
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is neither auto nor a size such as 6GB"):
        parse_limit(text)


@pytest.mark.parametrize("num_bytes", [1, 2**20, 2**20 + 1, 10**9, 2**30 - 1, 2**30, 5 * 10**9 + 1])
def test_the_least_that_is_named_is_enough(num_bytes: int) -> None:
    limit = parse_limit(as_option(num_bytes))
    assert isinstance(limit, int)
    assert num_bytes <= limit < num_bytes + 2**20


def test_words() -> None:
    assert [in_words(size) for size in (2**20, 2**29 + 1, 2**30, 5 * 2**29)] == [
        "1 MiB",
        "513 MiB",
        "1.00 GiB",
        "2.50 GiB",
    ]
