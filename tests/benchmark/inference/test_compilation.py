import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from pixart_sigma.benchmark.inference import ours, theirs
from pixart_sigma.benchmark.inference.compilation import keep_compiled_in
from pixart_sigma.benchmark.inference.scenarios import TINY, Work
from pixart_sigma.benchmark.inference.stopwatch import Stopwatch
from pixart_sigma.benchmark.inference.work import Job

CPU = torch.device("cpu")


def test_the_compiler_keeps_its_work_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", os.devnull)
    keep_compiled_in(tmp_path)
    assert cache_dir() == str(tmp_path)


@pytest.mark.parametrize("side", [ours, theirs])
@pytest.mark.parametrize("work", ["forward", "picture"])
def test_a_compiled_job_goes_to_the_compiler(
    work: Work, side: ModuleType, tiny_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that leaves everything as it is."""
    compiled: list[object] = []

    def compiler(function: object, **options: object) -> object:
        compiled.append(function)
        return function

    # What these import compiles something of its own.
    side.load_libraries(work)
    folder = tiny_weights("float32")
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr("pixart_sigma.pipeline.parts.check_compiler", lambda: None)
    (scenario,) = TINY["transformer" if work == "forward" else "pipeline"]
    job = Job(scenario, folder, torch.float32, CPU, 1)
    for compiles in (False, True):
        compute = side.BUILDERS[work](replace(job, compiled=compiles), Stopwatch(CPU))
        assert bool(compiled) == compiles
    with torch.no_grad():
        assert all(output.isfinite().all() for output in compute().values())


@pytest.mark.slow
def test_both_sides_compile_and_stay_equal(tmp_path: Path) -> None:
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.run import run_inference

    outcome = run_inference(
        "transformer", ["tiny"], ["float32"], "cpu", 1, None, 1, True, Output(), lambda line: None
    )
    assert outcome.failures == ()
    assert outcome.text.count("| compiled |") == 2
