from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart_sigma.errors import WeightsError
from pixart_sigma.evaluation.judges import checker as module
from pixart_sigma.evaluation.judges.checker import (
    CHECKER_FILE,
    Checker,
    CheckerConfig,
    ReadThing,
    load_checker,
    read,
    save_checker,
)
from pixart_sigma.evaluation.judges.labels import ANSWERS, OF_KIND
from pixart_sigma.world.scene import KINDS


def images(num: int, side: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def test_the_packaged_size() -> None:
    assert sum(weight.numel() for weight in Checker(CheckerConfig()).parameters()) <= 1_800_000


def test_every_attribute_has_logits(checker: Checker) -> None:
    logits = checker(torch.zeros(2, 3, 128, 128))
    assert logits.keys() == ANSWERS.keys()
    for name, values in logits.items():
        kinds = (len(KINDS),) if name in OF_KIND else ()
        assert values.shape == (2, *kinds, len(ANSWERS[name]))


def test_a_reading_is_made_of_the_likeliest_answers(checker: Checker) -> None:
    wanted = {"background": 4, "time": 3, "weather": 2, "style": 1, "sign": 2, "sign_colour": 0}
    wanted |= {"count": 2, "colour": 9, "size": 1, "place": 6}
    with torch.no_grad():
        for name, index in wanted.items():
            checker.answers[name].weight.zero_()
            checker.answers[name].bias.zero_()[index] = 1
    (reading,) = read(checker, images(1))
    assert (reading.background, reading.time, reading.weather, reading.style) == ("lake", None, "rain", "ink")
    assert (reading.sign, reading.sign_colour) == ("banner", "red")
    assert reading.things == dict.fromkeys(KINDS, ReadThing(2, "black", "large", "back"))

    with torch.no_grad():
        checker.answers["count"].bias[0] = 2
        checker.answers["sign"].bias[0] = 2
    (reading,) = read(checker, images(1))
    assert reading.things == {}
    assert reading.sign is reading.sign_colour is None


def test_readings_do_not_depend_on_the_batch(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    together = read(checker, images(3, 160))
    monkeypatch.setattr(module, "_BATCH", 2)
    assert read(checker, images(3, 160)) == together
    assert read(checker, images(3, 160)[2:]) == together[2:]


def test_where_something_is_makes_a_difference(checker: Checker) -> None:
    pixels = torch.zeros(1, 3, 128, 128)
    pixels[..., 40:80, 8:48] = 1
    with torch.no_grad():
        left, right = checker(pixels)["place"], checker(pixels.roll(72, -1))["place"]
    assert (left - right).abs().max() > 1e-3


def test_a_file_holds_the_checker_in_bf16(checker: Checker, tmp_path: Path) -> None:
    save_checker(checker, tmp_path / "judges")
    stored = load_file(tmp_path / "judges" / CHECKER_FILE)
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    loaded = load_checker(tmp_path / "judges" / CHECKER_FILE)
    assert not loaded.training
    for name, weight in checker.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.bfloat16().float())
    assert read(loaded, images(1))[0].background in ANSWERS["background"]


def test_a_file_of_another_world_is_refused(
    checker: Checker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(module._WORLD, "kinds", [*reversed(KINDS)])
        save_checker(checker, tmp_path)
    with pytest.raises(WeightsError, match="other things"):
        load_checker(tmp_path / CHECKER_FILE)


def test_broken_files_are_one_line(checker: Checker, tmp_path: Path) -> None:
    path = tmp_path / CHECKER_FILE
    with pytest.raises(WeightsError, match="missing"):
        load_checker(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="corrupt"):
        load_checker(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no judge") as caught:
        load_checker(path)
    assert "\n" not in str(caught.value)
