import subprocess
import sys
from typing import get_args

import pytest

from pixart_sigma.encoders.text_holds import (
    QUANTISATIONS,
    TEXT_HOLDS,
    TextHold,
    check_text_hold,
    is_exact,
    missing_package,
)
from pixart_sigma.errors import InvalidInput, MissingDependency


def test_every_hold_is_explained_and_all_but_the_quantised_are_exact() -> None:
    assert tuple(TEXT_HOLDS) == get_args(TextHold)
    assert {held for held in TEXT_HOLDS if not is_exact(held)} == set(QUANTISATIONS)
    assert {held for held, words in TEXT_HOLDS.items() if "; exact" in words} == {"resident", "streamed"}
    for held in ("resident", "streamed", "int8", "nf4"):
        check_text_hold(held)


def test_an_unknown_hold_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"text encoder 'int3'; one of resident, streamed, int8, nf4, torchao-int8$"
    ):
        check_text_hold("int3")


@pytest.mark.parametrize(
    ("held", "package"), [("int8", "bitsandbytes"), ("nf4", "accelerate"), ("torchao-int8", "torchao")]
)
def test_a_missing_package_is_named(held: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert missing_package(held) == package
    with pytest.raises(
        MissingDependency, match=rf"^a text encoder in {held} needs the package {package}; [^\n]+$"
    ):
        check_text_hold(held)
    assert missing_package("streamed") is None


def test_names_need_no_torch() -> None:
    code = "import sys; import pixart_sigma.encoders.text_holds; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
