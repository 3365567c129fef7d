"""PixArt-Σ: text to image with a diffusion transformer. `from pixart_sigma import TextToImage` is the public
API.

Names are resolved on first use, so that importing the package costs no torch.
"""

from importlib.metadata import version as _installed_version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixart_sigma.pipeline.text_to_image import TextToImage

__all__ = ["TextToImage", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "TextToImage":
        from pixart_sigma.pipeline.text_to_image import TextToImage

        return TextToImage
    if name == "__version__":
        return _installed_version("pixart-sigma")
    raise AttributeError(f"module 'pixart_sigma' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
