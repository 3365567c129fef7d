"""Both sides in one process, on the same tiny weights: the gate passes, and would notice what matters."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pixart_sigma.benchmark.inference import ours, theirs
from pixart_sigma.benchmark.inference.gate import Verdict, compare
from pixart_sigma.benchmark.inference.scenarios import TINY, Scenario
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.work import Compute, Job, Outputs
from pixart_sigma.pipeline.device import DTYPES

CPU = torch.device("cpu")
SCENARIOS = {scenario.work: scenario for several in TINY.values() for scenario in several}
OUTPUTS = {
    "forward": {"prediction"},
    "picture": {"latents", "pixels"},
    "decode": {"pixels"},
    "encode": {"latents"},
    "text": {"prompt", "negative"},
}
Folder = Callable[[str], Path]


def computed(
    build: Callable[[Job, Stopwatch], Compute], scenario: Scenario, folder: Path, dtype: str = "float32"
) -> tuple[Outputs, dict[str, float]]:
    watch = Stopwatch(CPU)
    compute = build(Job(scenario, folder, DTYPES[dtype], CPU, num_steps=3), watch)
    with torch.no_grad():
        outputs = {name: tensor.float().clone() for name, tensor in compute().items()}
    return outputs, watch.stages(1e9)


def verdict(scenario: Scenario, folder: Path, dtype: str = "float32") -> Verdict:
    sides = [computed(build, scenario, folder, dtype)[0] for build in (ours.build, theirs.build)]
    return compare(*sides, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", SCENARIOS)
def test_both_sides_give_the_same(work: str, dtype: str, tiny_weights: Folder) -> None:
    found = verdict(SCENARIOS[work], tiny_weights(dtype), dtype)
    assert found.failure is None
    assert found.errors.keys() == OUTPUTS[work]


@pytest.mark.parametrize(
    ("dtype", "work", "name", "wrong"),
    [
        ("float32", "picture", "DEFAULT_GUIDANCE_SCALE", 4.4),
        *(
            (dtype, *case)
            for dtype in DTYPES
            for case in (
                ("forward", "TIMESTEP", 700),
                ("picture", "prompt", lambda: "w1 w2"),
                ("text", "prompt", lambda: " ".join(f"w{index}" for index in range(1, 40))),
            )
        ),
    ],
)
def test_the_gate_notices_what_goes_in_wrongly(
    dtype: str, work: str, name: str, wrong: object, tiny_weights: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, name, wrong)
    failure = verdict(SCENARIOS[work], tiny_weights(dtype), dtype).failure
    assert failure is not None
    assert failure.startswith("the two sides differ: ")


def test_a_picture_and_a_pass_are_timed_by_stage(tiny_weights: Folder) -> None:
    for build in (ours.build, theirs.build):
        stages = computed(build, SCENARIOS["picture"], tiny_weights("float32"))[1]
        assert stages.keys() == {"text", "denoise", "decode", "rest"}
        assert sum(stages.values()) == pytest.approx(1e9)
        assert all(seconds > 0 for seconds in stages.values())
    forward = SCENARIOS["forward"]
    assert computed(ours.build, forward, tiny_weights("float32"))[1].keys() == {"prepare", "forward"}
    assert computed(theirs.build, forward, tiny_weights("float32"))[1].keys() == {"forward"}
