"""Whether torch's compiler can work here. Knows nothing of models."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from pixart_sigma.errors import MissingDependency

_USUAL_COMPILER = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")


def check_compiler() -> None:
    """Raises MissingDependency without a C++ compiler and Python's headers, which torch's compiler needs."""
    compiler = os.environ.get("CXX") or _USUAL_COMPILER
    if shutil.which(compiler) is None:
        raise MissingDependency(
            f"to compile the model takes a C++ compiler, and there is no {compiler}; install one (apt-get install "
            "g++), or go without compiling"
        )
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        raise MissingDependency(
            f"to compile the model takes Python's headers, and {headers} has no Python.h; install them (apt-get "
            "install python3-dev), or go without compiling"
        )
