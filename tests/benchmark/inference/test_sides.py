"""Both sides in one process, on the same tiny weights: the gate passes, and would notice what matters."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pixart_sigma.benchmark.inference import ours, theirs
from pixart_sigma.benchmark.inference.gate import Verdict, compare
from pixart_sigma.benchmark.inference.scenarios import TINY, Scenario, prompts
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.work import Job, Outputs
from pixart_sigma.pipeline.device import DTYPES

CPU = torch.device("cpu")
SCENARIOS = {scenario.work: scenario for several in TINY.values() for scenario in several}
SCENARIOS["step"] = replace(SCENARIOS["forward"], work="step")
OUTPUTS = {
    "forward": {"prediction"},
    "step": {"prediction"},
    "picture": {"latents", "pixels"},
    "decode": {"pixels"},
    "encode": {"latents"},
    "text": {"prompt", "negative"},
}
Folder = Callable[[str], Path]


def computed(
    side: ModuleType, scenario: Scenario, folder: Path, dtype: str = "float32"
) -> tuple[Outputs, dict[str, float]]:
    watch = Stopwatch(CPU)
    compute = side.BUILDERS[scenario.work](Job(scenario, folder, DTYPES[dtype], CPU, num_steps=3), watch)
    with torch.no_grad():
        outputs = {name: tensor.float().clone() for name, tensor in compute().items()}
    return outputs, watch.stages(1e9)


def verdict(scenario: Scenario, folder: Path, dtype: str = "float32") -> Verdict:
    sides = [computed(side, scenario, folder, dtype)[0] for side in (ours, theirs)]
    return compare(*sides, DTYPES[dtype])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", SCENARIOS)
def test_both_sides_give_the_same(work: str, dtype: str, batch: int, tiny_weights: Folder) -> None:
    found = verdict(replace(SCENARIOS[work], batch=batch), tiny_weights(dtype), dtype)
    assert found.failure is None
    assert found.errors.keys() == OUTPUTS[work]


def test_a_batch_is_of_pictures_that_differ(tiny_weights: Folder) -> None:
    for work in ("forward", "picture", "encode"):
        outputs, _ = computed(ours, replace(SCENARIOS[work], batch=2), tiny_weights("float32"))
        for tensor in outputs.values():
            assert len(tensor) == (4 if work == "forward" else 2)
            assert not torch.equal(tensor[-1], tensor[-2])


@pytest.mark.parametrize(
    ("dtype", "work", "name", "wrong"),
    [
        ("float32", "picture", "DEFAULT_GUIDANCE_SCALE", 4.4),
        *(
            (dtype, *case)
            for dtype in DTYPES
            for case in (
                ("forward", "TIMESTEP", 700),
                ("picture", "prompts", lambda batch: ["w1 w2"]),
                ("text", "prompts", lambda batch: [" ".join(f"w{index}" for index in range(1, 40))]),
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


def test_the_gate_notices_prompts_in_another_order(
    tiny_weights: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32: on a model as small as this, bf16's rounding is as large."""
    monkeypatch.setattr(ours, "prompts", lambda batch: prompts(batch)[::-1])
    assert verdict(replace(SCENARIOS["picture"], batch=2), tiny_weights("float32")).failure is not None


def test_ours_imports_before_it_loads_what_it_needs_and_nothing_of_theirs(tiny_weights: Folder) -> None:
    """Else its memory would count an import, or leave out what a library that it has no use for takes."""
    script = f"""
import pathlib, sys, torch
from pixart_sigma.benchmark.inference import ours
from pixart_sigma.benchmark.inference.scenarios import TINY
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.work import Job
cpu = torch.device("cpu")
ours.load_libraries("picture")
before = set(sys.modules)
job = Job(TINY["pipeline"][0], pathlib.Path({str(tiny_weights("float32"))!r}), torch.float32, cpu, 2)
ours.BUILDERS["picture"](job, Stopwatch(cpu))
packages = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(packages & {{"tokenizers", "safetensors", "pixart_sigma", "PIL"}}))
print(sorted(set(sys.modules) & {{"diffusers", "transformers"}}))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["[]", "[]"]


def test_a_picture_and_a_pass_are_timed_by_stage(tiny_weights: Folder) -> None:
    for side in (ours, theirs):
        stages = computed(side, SCENARIOS["picture"], tiny_weights("float32"))[1]
        assert stages.keys() == {"text", "denoise", "decode", "rest"}
        assert sum(stages.values()) == pytest.approx(1e9)
        assert all(seconds > 0 for seconds in stages.values())
    forward = SCENARIOS["forward"]
    assert computed(ours, forward, tiny_weights("float32"))[1].keys() == {"prepare", "forward"}
    assert computed(theirs, forward, tiny_weights("float32"))[1].keys() == {"forward"}
