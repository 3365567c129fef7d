import sys
import sysconfig
from pathlib import Path

import pytest

from pixart_sigma.errors import MissingDependency
from pixart_sigma.pipeline.compiler import check_compiler


def test_without_a_compiler_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingDependency, match=r"there is no no-such-compiler; install one"):
        check_compiler()


def test_without_pythons_headers_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(MissingDependency, match=r"has no Python\.h; install them"):
        check_compiler()
    (tmp_path / "Python.h").touch()
    check_compiler()
