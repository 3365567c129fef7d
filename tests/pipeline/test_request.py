import math
from typing import Any

import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.request import Request, parse_window


def test_the_defaults_are_the_released_settings() -> None:
    request = Request(("a red house",))
    assert (request.num_steps, request.guidance_scale, request.sampler) == (20, 4.5, "dpm-solver")
    assert (request.height, request.width, request.kv_compression) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": ()}, "the prompt is empty; describe a picture"),
        ({"prompts": ("",)}, "the prompt is empty"),
        ({"prompts": ("a house", " \n")}, "the prompt is empty"),
        ({"prompts": ("a house",) * 65}, "65 prompts exceed 64 in a call"),
        ({"height": 64}, "height 64 and width None go together"),
        ({"height": 64, "width": 60}, "width 60 is not a multiple of 16"),
        ({"num_steps": 0}, "steps 0 is outside 1 to 999"),
        ({"num_steps": 1000}, "steps 1000 is outside 1 to 999"),
        ({"num_images": 0}, "num_images 0 is outside 1 to 64"),
        ({"num_images": 33, "prompts": ("a", "b")}, "num_images 33 is outside 1 to 32"),
        ({"seed": -1}, "seed -1 is outside 0 to"),
        ({"seed": 2**63 - 1}, "seed 9223372036854775807 is outside 0 to"),
        ({"guidance_scale": math.nan}, "guidance scale nan is not a number of at least 1"),
        ({"guidance_scale": math.inf}, "guidance scale inf is not a number of at least 1"),
        ({"guidance_scale": 0.5}, "guidance scale 0.5 is not a number of at least 1"),
        ({"guidance_scale": 1.0, "negative_prompt": "blurry"}, "a negative prompt needs guidance"),
        ({"sampler": "magic"}, "unknown sampler 'magic'; one of dpm-solver"),
        ({"kv_compression": (1, 1)}, "compression window 1x1 is not between 1x2 and 4x4"),
        ({"kv_compression": (2, 5)}, "compression window 2x5 is not between 1x2 and 4x4"),
        ({"kv_compression": (0, 2)}, "compression window 0x2 is not between 1x2 and 4x4"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Request(**{"prompts": ("a red house",), **options})
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "window"), [("2x2", (2, 2)), ("1x2", (1, 2)), ("2X1", (2, 1)), ("4x4", (4, 4))]
)
def test_windows_are_written_height_first(text: str, window: tuple[int, int]) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "2", "2*2", "-2x2", "1x1", "9x9", "0x2"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="compression window"):
        parse_window(text)
