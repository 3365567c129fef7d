"""PixArt-Σ: text to image with a diffusion transformer. The names in `__all__` are the public API.

They are resolved on first use, so that importing the package costs no torch.
"""

from importlib import import_module
from importlib.metadata import version as _installed_version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixart_sigma.diffusion.sampling import Step
    from pixart_sigma.pipeline.captions import EncodedPrompts
    from pixart_sigma.pipeline.memory.run import generate_within
    from pixart_sigma.pipeline.request import Lora, Request
    from pixart_sigma.pipeline.shortcuts import Shortcuts
    from pixart_sigma.pipeline.text_to_image import TextToImage

__all__ = [
    "EncodedPrompts",
    "Lora",
    "Request",
    "Shortcuts",
    "Step",
    "TextToImage",
    "__version__",
    "generate_within",
]

_MODULES = {
    "EncodedPrompts": "pixart_sigma.pipeline.captions",
    "Lora": "pixart_sigma.pipeline.request",
    "Request": "pixart_sigma.pipeline.request",
    "Shortcuts": "pixart_sigma.pipeline.shortcuts",
    "Step": "pixart_sigma.diffusion.sampling",
    "TextToImage": "pixart_sigma.pipeline.text_to_image",
    "generate_within": "pixart_sigma.pipeline.memory.run",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name == "__version__":
        return _installed_version("pixart-sigma")
    raise AttributeError(f"module 'pixart_sigma' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
