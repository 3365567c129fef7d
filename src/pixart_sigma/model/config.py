"""What a transformer is made of: sizes, options and key/value compression, as frozen dataclasses.

Knows nothing of tensors, files or diffusers' `config.json`; every impossible combination is refused here, so
the modules need no checks of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pixart_sigma.errors import InvalidInput

CompressionOperator = Literal["conv", "average", "nearest", "discard"]

MLP_RATIO = 4  # DiT and every released PixArt model
CAPTION_LENGTH_MULTIPLE = 16
"""Few distinct padded lengths: few recompilations, and rows so aligned that a GPU's kernel takes the mask as it is
instead of a copy of it for every query."""


@dataclass(frozen=True)
class KVCompression:
    """Fewer keys and values in self-attention (paper section 3.2); queries keep every token.

    `window` is (height, width) in tokens; `blocks` are the block indices that compress.
    Operators: `conv`, a depthwise convolution over the window, followed by a LayerNorm if `norm` (the
    released layout; the default); `average`, the window's mean; `nearest`, its top left token (called
    "uniform" in the official code); `discard`, tokens chosen by the caller at each forward.
    `norm` belongs to `conv` alone: left out, it becomes True there and False elsewhere. Grids of fewer than
    `from_tokens` tokens are not compressed, so that one model can serve small sizes without.
    """

    window: tuple[int, int]
    operator: CompressionOperator
    blocks: tuple[int, ...]
    norm: bool | None = None
    from_tokens: int = 0

    def __post_init__(self) -> None:
        window = (int(self.window[0]), int(self.window[1]))
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "blocks", tuple(sorted(int(block) for block in self.blocks)))
        if self.operator not in get_args(CompressionOperator):
            operators = ", ".join(get_args(CompressionOperator))
            raise InvalidInput(f"unknown compression operator {self.operator!r}; one of {operators}")
        if min(window) < 1 or window == (1, 1):
            raise InvalidInput(
                f"compression window {window[0]}x{window[1]} compresses nothing; smallest: 1x2 or 2x1"
            )
        if not self.blocks:
            raise InvalidInput(
                "kv_compression names no blocks; name at least one, or leave kv_compression out"
            )
        if len(set(self.blocks)) != len(self.blocks):
            raise InvalidInput(f"kv_compression names a block twice: {list(self.blocks)}; name each once")
        if self.norm is None:
            object.__setattr__(self, "norm", self.operator == "conv")
        elif self.norm and self.operator != "conv":
            raise InvalidInput(f"norm belongs to operator 'conv', not to {self.operator!r}; leave norm out")

    def applies(self, grid: tuple[int, int]) -> bool:
        """Whether a grid of (height, width) tokens is large enough to be compressed."""
        return grid[0] * grid[1] >= self.from_tokens

    @property
    def ratio(self) -> int:
        """Tokens per key: R² in the paper for a square window."""
        return self.window[0] * self.window[1]


@dataclass(frozen=True)
class TransformerConfig:
    """A PixArt-α/Σ transformer; the defaults are PixArt-Σ XL/2 at 1024 px.

    `sample_size` is the latent side on which `interpolation_scale` is based: positions on any grid span
    0 … sample_size / patch_size / interpolation_scale. `out_channels` is twice `in_channels` where the
    variance is learned. `micro_conditioning` (image size and aspect ratio) belongs to α at 1024 px alone.
    """

    num_layers: int = 28
    num_attention_heads: int = 16
    attention_head_dim: int = 72
    in_channels: int = 4
    out_channels: int = 8
    patch_size: int = 2
    sample_size: int = 128
    caption_channels: int = 4096
    interpolation_scale: float = 2.0
    micro_conditioning: bool = False
    qk_norm: bool = False
    kv_compression: KVCompression | None = None

    def __post_init__(self) -> None:
        for name in (
            "num_layers",
            "num_attention_heads",
            "attention_head_dim",
            "in_channels",
            "out_channels",
            "patch_size",
            "sample_size",
            "caption_channels",
            "interpolation_scale",
        ):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be positive")
        if self.width % 4:
            raise InvalidInput(
                f"width {self.width} (heads x head dim) is not a multiple of 4, as positions need; "
                "change num_attention_heads or attention_head_dim"
            )
        if self.micro_conditioning and self.width % 3:
            raise InvalidInput(
                f"width {self.width} is not a multiple of 3, which micro_conditioning needs; "
                "change num_attention_heads or attention_head_dim"
            )
        if self.kv_compression is not None:
            beyond = [block for block in self.kv_compression.blocks if not 0 <= block < self.num_layers]
            if beyond:
                raise InvalidInput(
                    f"kv_compression names blocks {beyond}; name some of 0 to {self.num_layers - 1}"
                )

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def base_grid(self) -> int:
        """Tokens along a side of the grid that the position embedding is scaled to."""
        return self.sample_size // self.patch_size
