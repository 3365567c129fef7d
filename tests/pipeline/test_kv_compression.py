from typing import Any

import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest, parse_kv_compression


@pytest.mark.parametrize(
    ("arguments", "request_made", "said"),
    [
        (("2x2", None, None), KVCompressionRequest((2, 2)), "2x2 average, blocks deep"),
        (
            ("1X2", "nearest", "all"),
            KVCompressionRequest((1, 2), "nearest", "all"),
            "1x2 nearest, blocks all",
        ),
        (
            ("4x4", None, "2-4"),
            KVCompressionRequest((4, 4), "average", (2, 3, 4)),
            "4x4 average, blocks 2,3,4",
        ),
        (
            ("2x1", "conv", "0, 3,5"),
            KVCompressionRequest((2, 1), "conv", (0, 3, 5)),
            "2x1 conv, blocks 0,3,5",
        ),
        (
            ("2x2", None, "7,1-2"),
            KVCompressionRequest((2, 2), "average", (7, 1, 2)),
            "2x2 average, blocks 7,1,2",
        ),
    ],
)
def test_what_users_write(
    arguments: tuple[str, str | None, str | None], request_made: KVCompressionRequest, said: str
) -> None:
    assert parse_kv_compression(*arguments) == request_made
    assert str(request_made) == said


@pytest.mark.parametrize("text", ["", "2", "2*2", "-2x2", "1x1", "9x9", "0x2"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="compression window"):
        parse_kv_compression(text, None, None)


@pytest.mark.parametrize("text", ["", "deepest", "3-1", "1,1", "0-2,2", "-1", "1;2", "0-99999", "1-1000"])
def test_what_are_no_blocks_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="are neither shallow, middle, deep, all nor numbers from 0"):
        parse_kv_compression("2x2", None, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operator": "max"}, "unknown compression operator 'max'; one of conv, average, nearest, discard"),
        ({"blocks": ()}, "compression blocks '' are neither"),
        ({"blocks": (-1,)}, "compression blocks '-1' are neither"),
        ({"blocks": "some"}, "compression blocks 'some' are neither"),
    ],
)
def test_one_made_in_python_is_checked_too(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        KVCompressionRequest((2, 2), **options)
    assert str(raised.value).startswith(message)
