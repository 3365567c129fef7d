"""Figures of a suite as a Markdown table and as JSON. Knows nothing of what they mean."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.weights.atomic import written_whole

Row = dict[str, Any]


def render_table(rows: Sequence[Row]) -> str:
    """The keys of the first row are the heads; None becomes a dash, and a float gets three digits."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(_cell(row[head]) for head in heads) + " |" for row in rows]
    return "\n".join(lines)


def describe_machine(device: torch.device) -> str:
    """The processor or the GPU, and torch's version."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{torch.get_num_threads()} threads, {_processor()}"
    return f"{name}; torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    values = {name.strip(): value.strip() for name, value in facts.items()}
    name = values.get("model name", platform.machine())
    features = [
        word for word in ("avx2", "avx512_bf16", "amx_bf16") if word in values.get("flags", "").split()
    ]
    return f"{name} family {values.get('cpu family', '?')}, {' '.join(features)}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def write_json(path: Path, suite: str, machine: str, rows: Sequence[Row]) -> None:
    """One object: suite, machine, rows."""
    content = {"suite": suite, "machine": machine, "rows": list(rows)}
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
