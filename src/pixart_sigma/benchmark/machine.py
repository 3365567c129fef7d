"""What figures depend on beside the code: the processor or the GPU, and the libraries' versions."""

from __future__ import annotations

import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pixart_sigma.benchmark.serving import seconds_now
from pixart_sigma.products import linear

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate")
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# Large enough for a product to run at its full rate, small enough for a second or two.
_CPU_SIDE, _GPU_SIDE = 2048, 8192
_REPEATS = 5


def describe_machine(device: torch.device) -> str:
    """The GPU, or the processor with its threads, what its products may use, and the memory."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    memory = memory_bytes(device) / 2**30
    return f"{torch.get_num_threads()} threads, {_processor()}, {memory:.0f} GiB"


def memory_bytes(device: torch.device) -> int:
    """All of the GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def library_versions() -> dict[str, str]:
    """Of those that both sides use; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@torch.no_grad()
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two large square matrices here and now, in inference: the median of a few, after one that
    warms up.
    """
    side = _GPU_SIDE if device.type == "cuda" else _CPU_SIDE
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(_REPEATS + 1):
        started = seconds_now(device)
        linear(left, right)
        times.append(seconds_now(device) - started)
    return 2 * side**3 / statistics.median(times[1:])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {name.strip(): value.strip() for name, value in facts.items()}
    name = values.get("model name", platform.machine())
    flags = values.get("flags", "").split()
    features = " ".join(word for word in _FEATURES if word in flags)
    return f"{name} family {values.get('cpu family', '?')} model {values.get('model', '?')} ({features})"
