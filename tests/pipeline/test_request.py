import math
from pathlib import Path
from typing import Any

import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest
from pixart_sigma.pipeline.request import Lora, Request, parse_lora


def test_the_defaults_are_the_released_settings() -> None:
    request = Request(("a red house",))
    assert (request.num_steps, request.guidance_scale, request.sampler) == (20, 4.5, "dpm++-2m")
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
        (
            {"sampler": "lcm", "num_steps": 51},
            "steps 51 is outside 1 to 50; 4 is a good choice with sampler lcm",
        ),
        (
            {"sampler": "dmd", "num_steps": 2},
            "steps 2 is outside 1 to 1; 1 is a good choice with sampler dmd",
        ),
        ({"sampler": "lcm", "num_steps": 4}, "sampler 'lcm' takes no guidance, which is distilled"),
        ({"sampler": "dmd", "num_steps": 1}, "sampler 'dmd' takes no guidance"),
        (
            {"sampler": "lcm", "num_steps": 4, "negative_prompt": "blurry"},
            "sampler 'lcm' takes no negative prompt, since guidance is distilled",
        ),
        ({"sampler": "euler", "num_steps": 1}, "steps 1 is outside 2 to 999"),
        ({"num_images": 0}, "num_images 0 is outside 1 to 64"),
        ({"num_images": 33, "prompts": ("a", "b")}, "num_images 33 is outside 1 to 32"),
        ({"seed": -1}, "seed -1 is outside 0 to"),
        ({"seed": 2**63}, "seed 9223372036854775808 is outside 0 to 9223372036854775807"),
        (
            {"seed": 2**63 - 1, "num_images": 2},
            "seed 9223372036854775807 is outside 0 to 9223372036854775806",
        ),
        ({"guidance_scale": math.nan}, "guidance scale nan is not a number of at least 1"),
        ({"guidance_scale": math.inf}, "guidance scale inf is not a number of at least 1"),
        ({"guidance_scale": 0.5}, "guidance scale 0.5 is not a number of at least 1"),
        ({"guidance_scale": 1.0, "negative_prompt": "blurry"}, "a negative prompt needs guidance"),
        ({"sampler": "magic"}, "unknown sampler 'magic'; one of dpm++-2m"),
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


def test_a_window_alone_is_averaged_in_the_deeper_half() -> None:
    request = Request(("a red house",), kv_compression=(2, 1))
    assert request == Request(("a red house",), kv_compression="2x1")
    assert request.compression == KVCompressionRequest((2, 1), "average", "deep")
    assert request == Request(("a red house",), kv_compression=KVCompressionRequest((2, 1)))
    assert Request(("a red house",)).compression is None


@pytest.mark.parametrize(
    ("text", "strength", "said"),
    [
        ("style.safetensors", 1.0, "style.safetensors:1"),
        ("style.safetensors:0.8", 0.8, "style.safetensors:0.8"),
        ("style.safetensors:-2", -2.0, "style.safetensors:-2"),
        ("./style.safetensors:0", 0.0, "style.safetensors:0"),
        ("folder:1e-1", 0.1, "folder:0.1"),
        ("a:2.safetensors", 1.0, "a:2.safetensors:1"),
        ("a:2.safetensors:2", 2.0, "a:2.safetensors:2"),
    ],
)
def test_a_lora_is_a_file_and_a_strength(
    text: str, strength: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("style.safetensors", "a:2.safetensors", "folder/adapter_model.safetensors"):
        (tmp_path / name).touch()
    lora = parse_lora(text)
    assert (lora.strength, str(lora)) == (strength, said)
    assert lora.path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "style.safetensors:strong",
            "LoRA strength 'strong' of style.safetensors is not a number; write for ex",
        ),
        ("style.safetensors:", "LoRA strength '' of style.safetensors is not a number"),
        ("style.safetensors:nan", "LoRA strength nan is not a finite number; 1 is as trained, 0 is off"),
        ("style.safetensors:inf", "LoRA strength inf is not a finite number"),
        (
            "nothing.safetensors",
            "LoRA nothing.safetensors does not exist; give a .safetensors file, or a folder",
        ),
        ("nothing.safetensors:0.5", "LoRA nothing.safetensors does not exist"),
        (".", "LoRA adapter_model.safetensors does not exist"),
        ("style.pt", "LoRA style.pt is not a .safetensors file (pickled weights are never read); convert it"),
    ],
)
def test_a_lora_that_is_none_is_named(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style.safetensors").touch()
    (tmp_path / "style.pt").touch()
    with pytest.raises(InvalidInput) as error:
        parse_lora(text)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_lora_made_in_python_is_checked_too() -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        Lora(Path("nothing.safetensors"))
