"""Compiled rows: what is compiled on either side, and where the compiler keeps its work. Knows nothing of models.

Theirs is compiled as a whole, as diffusers' documentation has it for a class that names no repeated blocks; ours block
by block. Both with torch's default mode: max-autotune would try kernels for minutes on both sides.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pixart_sigma.errors import MissingDependency

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_COMPILERS = ("g++", "clang++")


def check_compiler() -> None:
    """Raises MissingDependency where there is no C++ compiler, which torch's compiler needs on every device."""
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((wanted,) if wanted else _COMPILERS)):
        named = wanted or " nor ".join(_COMPILERS)
        raise MissingDependency(
            f"compiled rows need a C++ compiler, and there is no {named}; install one (apt-get install g++), or leave "
            "out --compile"
        )


def keep_compiled_in(folder: Path) -> None:
    """From now on this process's compiler reads and writes there, and nowhere else."""
    os.environ[_CACHE_VARIABLE] = str(folder)
