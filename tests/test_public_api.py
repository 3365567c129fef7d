import subprocess
import sys

import pixart_sigma


def test_the_public_names_are_these() -> None:
    names = ["EncodedPrompts", "Lora", "Request", "Shortcuts", "Step", "TextToImage", "generate_within"]
    assert dir(pixart_sigma) == sorted([*names, "__version__"])
    assert [getattr(pixart_sigma, name).__name__ for name in names] == names
    assert pixart_sigma.__version__.count(".") == 2


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import pixart_sigma, sys; print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
