"""Run the benchmarks on a machine with a GPU and without network, within ten minutes; a file for docs/performance/.

    python tools/gpu_report.py --wheels FOLDER --output FOLDER

The machine has torch >= 2.11. Whatever else the package needs may come along as wheels, in a folder; they are installed
beside the machine's own packages, into a temporary folder, without their dependencies:

    pip download --no-deps --only-binary=:all: -d FOLDER diffusers transformers accelerate ...

Every suite has a number of seconds; one that fails or takes longer leaves its reason beside the figures that it has,
and the next one runs. Output, without --output the folder that $OUT names: gpu.json, rewritten after each suite, and
gpu.log. The exit status is 1 if a suite lacks figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOTAL_SECONDS = 570  # of ten minutes, with something left for the installation
NETWORK_OFF = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Suite:
    """A suite's command, the most seconds that it is given, and its scenarios: none named are all, None are none."""

    name: str
    seconds: int
    scenarios: tuple[str, ...] | None = ()
    options: tuple[str, ...] = ()


# Most of the time goes into starting processes, about ten seconds each. Suite ablations starts twelve a scenario; it is
# left to those who have longer, and so are fp32 and compiled pictures. Compiled rows need a C++ compiler and Python's
# headers, and so are a suite of their own. Suite memory also writes and reads ten gigabytes of weights. Compression at
# 4K and training at other sizes are for a run of their own, since their processes alone would take the time.
SUITES = (
    Suite("transformer", 75, options=("--dtype", "bfloat16")),
    Suite("transformer", 60, ("xl-1024",), ("--dtype", "bfloat16", "--rounds", "5", "--compile")),
    Suite("pipeline", 115, options=("--dtype", "bfloat16", "--rounds", "5")),
    Suite("kv-compression", 65, ("xl-2k",), ("--dtype", "bfloat16", "--rounds", "5")),
    Suite("vae", 35, ("decode-512",), ("--dtype", "bfloat16")),
    Suite("text-encoder", 45, options=("--dtype", "bfloat16", "--rounds", "5")),
    Suite("train-step", 50, ("xl-512",)),
    Suite("plan", 20, ("xl-512",)),
    Suite("attention", 15, None),
    Suite("memory", 85, ("staged-1024", "picture-4k")),
)


def main(arguments: Sequence[str]) -> int:
    """Arguments without the program's name → exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheels", type=Path, help="a folder of .whl files to install first")
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="default: $OUT")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--suite", action="append", choices=[suite.name for suite in SUITES])
    parser.add_argument(
        "--scenario", action="append", default=[], help="instead of the suites' own, such as tiny"
    )
    options = parser.parse_args(arguments)
    if options.output is None:
        parser.error("name a folder with --output, or in $OUT")
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    chosen = [suite for suite in SUITES if not options.suite or suite.name in options.suite]
    deadline = time.monotonic() + TOTAL_SECONDS
    with tempfile.TemporaryDirectory() as site, (output / "gpu.log").open("a", encoding="utf-8") as log:
        environment = {**os.environ, **NETWORK_OFF}
        paths = [site, str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        if options.wheels is not None:
            install(options.wheels, Path(site), log)
        results: list[dict[str, Any]] = []
        for suite in chosen:
            if options.scenario and suite.scenarios is not None:
                suite = replace(suite, scenarios=tuple(options.scenario))
            seconds = min(float(suite.seconds), deadline - time.monotonic())
            results.append(run_suite(suite, options.device, seconds, environment, log))
            (output / "gpu.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    whole = [figures for figures in results if not {"failed", "incomplete"} & figures.keys()]
    print(f"{output / 'gpu.json'}: {len(whole)} of {len(results)} suites have all their figures")
    return 0 if len(whole) == len(results) else 1


def install(wheels: Path, site: Path, log: Any) -> None:
    """Unpack wheels into `site`. A failure is written down and not the end: the machine may have what is needed."""
    files = sorted(str(path) for path in wheels.glob("*.whl"))
    if not files:
        print(f"no .whl files in {wheels}", file=sys.stderr)
        return
    offline = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), *files]
    if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
        print(f"not all wheels in {wheels} could be installed, see gpu.log", file=sys.stderr)


def run_suite(
    suite: Suite, device: str, seconds: float, environment: dict[str, str], log: Any
) -> dict[str, Any]:
    """Its figures; where it fails, where it ran and why."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        scenarios = [word for name in suite.scenarios or () for word in ("--scenario", name)]
        words = ["benchmark", suite.name, *scenarios, *suite.options, "--device", device]
        print(" ".join(["pixart-sigma", *words]), flush=True)
        command = [sys.executable, "-m", "pixart_sigma", *words, "--json", str(file)]
        began = time.monotonic()
        reason = _run(command, seconds, environment, log)
        print(f"  {time.monotonic() - began:.0f} s{f', failed: {reason}' if reason else ''}", flush=True)
        if file.is_file():  # written scenario by scenario
            figures: dict[str, Any] = json.loads(file.read_text("utf-8"))
            return figures | ({"incomplete": reason} if reason else {})
    return {
        "suite": suite.name,
        "device": "cpu" if device == "cpu" else "cuda",
        "machine": _machine(device),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {},
        "options": {},
        "failed": reason or "it wrote no figures",
    }


def _run(command: Sequence[str], seconds: float, environment: dict[str, str], log: Any) -> str | None:
    """Why a command did not succeed, or None. Its processes end with it."""
    if seconds <= 0:
        return "no time was left"
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=seconds)
        timed_out = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        timed_out = True
    log.write(text)
    log.flush()
    if timed_out:
        return f"stopped after {seconds:.0f} s"
    if process.returncode:
        return (text.strip() or f"exit status {process.returncode}").splitlines()[-1]
    return None


def _machine(device: str) -> str:
    if device == "cpu":
        return "CPU"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return "GPU"
    return found.strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
