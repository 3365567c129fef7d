"""Suite start: the command, the library in a script, and diffusers in one, each in a fresh process every time.

The first round is not counted: it leaves the files in the system's cache and the compiled Python beside them, as on a
machine in use: cold is the process, not the disk. A row is kept only if its picture is diffusers' to one level of 255.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pixart_sigma.benchmark.outcome import Say
from pixart_sigma.benchmark.start.driver import SEED
from pixart_sigma.benchmark.start.scenarios import PROMPT, Scenario
from pixart_sigma.benchmark.table import Row
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.pipeline.samplers import DEFAULT_GUIDANCE_SCALE
from pixart_sigma.weights.config import CLASS_NAME
from pixart_sigma.weights.folder import POCKET, find_pipeline, read_json
from pixart_sigma.weights.transformer import load_transformer, save_transformer, without_kv_compression

COMMAND, LIBRARY, THEIRS = "pixart-sigma generate", "TextToImage", "diffusers"
_PLAIN = "plain"
_DRIVER = "pixart_sigma.benchmark.start.driver"
_LEVELS = 1
"""Of 255, by which a picture may differ: two sums that differ by rounding fall on both sides of a half."""


@dataclass
class Side:
    """A process's command line without the interpreter, where its picture goes, and seconds of each time it was run.

    `seconds`: by what had been done, "ended" for the whole.
    """

    name: str
    arguments: list[str]
    picture: Path
    seconds: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> dict[str, float]:
        """A fresh process, waited for. Raises PixArtSigmaError with its last line if it fails."""
        started = time.monotonic()
        process = subprocess.run([sys.executable, *self.arguments], capture_output=True, text=True)
        ended = time.monotonic()
        if process.returncode:
            last = (process.stderr.strip() or "no output").splitlines()[-1]
            raise PixArtSigmaError(f"the process of {self.name!r} ended: {last}")
        stamps: dict[str, float] = {}
        if _DRIVER in self.arguments:
            stamps = json.loads(process.stdout.splitlines()[-1])
        return {name: stamp - started for name, stamp in stamps.items()} | {"ended": ended - started}


def measure_start(
    scenarios: Sequence[Scenario], device: torch.device, rounds: int, say: Say
) -> Iterator[Row]:
    """A row for each scenario; `failed` says why one has no figures."""
    for scenario in scenarios:
        row: Row = {"scenario": scenario.name, "steps": scenario.num_steps, "failed": None}
        with tempfile.TemporaryDirectory() as place:
            write_plain_pocket(Path(place))
            several = sides(scenario, device, Path(place))
            try:
                say(f"{scenario.name}: once each, to compare the pictures")
                for side in several:
                    side.run()
                levels = {side.name: _levels(side.picture, several[-1].picture) for side in several}
                for name, found in levels.items():
                    if found > _LEVELS:
                        raise PixArtSigmaError(
                            f"the pictures of {name} and {THEIRS} differ by {found} levels, allowed is {_LEVELS}"
                        )
                for number in range(rounds):
                    say(f"{scenario.name}: round {number + 1} of {rounds}")
                    for side in several if number % 2 == 0 else reversed(several):
                        side.seconds.append(side.run())
            except PixArtSigmaError as error:
                say(f"{scenario.name}: failed: {error}")
                yield row | {"failed": str(error)}
                continue
        found_sides = {side.name: {"runs": side.seconds, "levels": levels[side.name]} for side in several}
        yield row | {"sides": found_sides}


def sides(scenario: Scenario, device: torch.device, place: Path) -> list[Side]:
    """The three of them, diffusers last; all in fp32, so that their pictures can be compared.

    diffusers reads what `write_plain_pocket` has written to `place`.
    """
    pictures = [place / f"{number}.png" for number in range(3)]
    words = (
        f"generate --model {POCKET} --size {scenario.pixels}x{scenario.pixels} --steps {scenario.num_steps}"
    )
    options = (
        f"--guidance-scale {DEFAULT_GUIDANCE_SCALE} --seed {SEED} --dtype float32 --device {device.type}"
    )
    command = [*words.split(), *options.split(), "--output", str(pictures[0]), PROMPT]
    return [
        Side(COMMAND, ["-m", _DRIVER, json.dumps({"side": "command", "arguments": command})], pictures[0]),
        Side(LIBRARY, _driver("ours", POCKET, scenario, device, pictures[1]), pictures[1]),
        Side(THEIRS, _driver("diffusers", str(place / _PLAIN), scenario, device, pictures[2]), pictures[2]),
    ]


def _driver(side: str, model: str, scenario: Scenario, device: torch.device, picture: Path) -> list[str]:
    arguments = {
        "side": side,
        "model": model,
        "prompt": PROMPT,
        "pixels": scenario.pixels,
        "num_steps": scenario.num_steps,
        "guidance_scale": DEFAULT_GUIDANCE_SCALE,
        "device": device.type,
        "picture": str(picture),
    }
    return ["-m", _DRIVER, json.dumps(arguments)]


def write_plain_pocket(place: Path) -> None:
    """The pocket model without its compression, which small pictures are not made with, for diffusers' own classes."""
    folder, shipped = place / _PLAIN, find_pipeline(POCKET)["transformer"]
    shutil.copytree(shipped, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("transformer"))
    model = load_transformer(shipped / "transformer", torch.bfloat16)  # as it is stored
    save_transformer(without_kv_compression(model), folder / "transformer")
    index = read_json(folder / "model_index.json") | {"transformer": ["diffusers", CLASS_NAME]}
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")


def _levels(one: Path, other: Path) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(_pixels(one) - _pixels(other)).max())


def _pixels(path: Path) -> NDArray[np.int_]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)
