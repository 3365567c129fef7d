"""The transformer, pure torch: a function of latents, captions and timesteps. No files, no diffusers.

Names are resolved on first use: what is known of a transformer without a tensor (`config.py`, `activation_memory.py`)
is there without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixart_sigma.model.conditions import Captions, Timesteps
    from pixart_sigma.model.config import KVCompression, TransformerConfig
    from pixart_sigma.model.transformer import PixArtTransformer

__all__ = ["Captions", "KVCompression", "PixArtTransformer", "Timesteps", "TransformerConfig"]

_MODULES = {
    "Captions": "pixart_sigma.model.conditions",
    "KVCompression": "pixart_sigma.model.config",
    "PixArtTransformer": "pixart_sigma.model.transformer",
    "Timesteps": "pixart_sigma.model.conditions",
    "TransformerConfig": "pixart_sigma.model.config",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'pixart_sigma.model' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
