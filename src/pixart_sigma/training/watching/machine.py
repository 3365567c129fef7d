"""The machine a run was done on, for its report and model card, and the memory in use.

Says nothing that names a person or a place: no host, no user, no path.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections import Counter
from importlib import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

import pixart_sigma

GIB = 2**30
_PACKAGES = ("torch", "diffusers", "transformers", "peft", "bitsandbytes")
_GIT_SECONDS = 5.0


def describe_machine(world_size: int = 1) -> dict[str, str]:
    """Label → words: processor, memory, GPUs if any, system, versions, processes, the package's commit if any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = {
        "Processor": f"{_processor()}, {cores} core{'s' if cores > 1 else ''}",
        "Memory": f"{psutil.virtual_memory().total / GIB:.0f} GiB",
        "GPU": _gpus(),
        "Processes": str(world_size),
        "System": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "pixart-sigma": " ".join(filter(None, (pixart_sigma.__version__, _commit(_checkout())))),
    }
    for package in _PACKAGES:
        try:
            rows[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return rows


def write_machine(path: Path, world_size: int = 1) -> None:
    """`describe_machine` as a JSON object, for a report that is made later and perhaps elsewhere."""
    path.write_text(json.dumps(describe_machine(world_size), indent=2, ensure_ascii=False) + "\n", "utf-8")


def memory_in_use(device: torch.device) -> int:
    """Bytes: on a GPU the most that tensors ever took on it, elsewhere what this process takes now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def _processor() -> str:
    try:
        name = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        name = None
    return name[1].strip() if name else platform.processor() or platform.machine()


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    kinds = Counter(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GiB)" for gpu in found)
    return ", ".join(f"{num} × {kind}" for kind, num in kinds.items())


def _checkout() -> Path | None:
    """The working tree the package is run from; an installed package is in none, or in one that is not its own."""
    package = Path(pixart_sigma.__file__).parent
    root = package.parent.parent
    return root if package.parent.name == "src" and (root / ".git").exists() else None


def _commit(checkout: Path | None) -> str | None:
    if checkout is None:
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(checkout),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or one that does not trust the folder
        return None
    return f"({done.stdout.strip()})"
