"""Compiled rows: what is compiled on either side, and where the compiler keeps its work. Knows nothing of models.

Theirs is compiled as a whole, as diffusers' documentation has it for a class that names no repeated blocks; ours block
by block. Both with torch's default mode: max-autotune would try kernels for minutes on both sides.
"""

from __future__ import annotations

import os
from pathlib import Path

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_in(folder: Path) -> None:
    """From now on this process's compiler reads and writes there, and nowhere else."""
    os.environ[_CACHE_VARIABLE] = str(folder)
