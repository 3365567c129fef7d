"""The process of one row: imports, builds its work, says so, then runs it as often as each line of its input asks.

A process a row, because peak memory is a process's, and so is what the allocator was told. Answers are JSON lines;
whatever else is printed goes to stderr. Knows nothing of the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch

from pixart_sigma.benchmark.processes import anonymous_memory
from pixart_sigma.errors import MissingDependency, PixArtSigmaError

Arguments = dict[str, Any]
Run = Callable[[], dict[str, float]]
"""Does the work once and returns its seconds by stage, "total" among them."""

Build = Callable[[Arguments], tuple[dict[str, Any], Run]]
"""What a process is told → what it says when it is warm, and its work."""


def seconds_now(device: torch.device) -> float:
    """The clock, once everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def serve(load_libraries: Callable[[Arguments], None], build: Build) -> int:
    """The whole life of the process: its arguments are the first of the command line. Returns the exit status."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        try:
            arguments: Arguments = json.loads(sys.argv[1])
            load_libraries(arguments)
            _answer(answers, {"idle_memory": anonymous_memory(os.getpid())})
            ready, run = build(arguments)
            _answer(answers, ready)
            for order in sys.stdin:
                runs = [run() for _ in range(int(order))]
                on_gpu = arguments["device"] == "cuda"
                memory = torch.cuda.max_memory_allocated() if on_gpu else None
                _answer(answers, {"runs": runs, "memory": memory})
        except PixArtSigmaError as error:
            kind = "missing" if isinstance(error, MissingDependency) else "error"
            _answer(answers, {kind: str(error)})
            return 2
    return 0


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()
