"""One picture on several devices: each process holds all weights and a band of rows of the picture's tokens.

Legend: B batch, C latent channels, N image tokens of the picture, M key tokens of a band after compression, D width.

Norms, cross-attention and the MLP see one token at a time and so stay within a band. In self-attention a process makes
keys and values of its own band, compressed where the block compresses, gets those of all bands (all-gather, as in
torch's own context parallelism), and attends with its own queries. The prediction is put together on every process, so
that all of them sample on with the same latents.

What depends on a band's place is done by three methods of the model that are replaced during a call: `positions`,
`keys_and_values` and `applies`. Knows nothing of how processes are started or of which device each has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pixart_sigma.errors import InvalidInput, PixArtSigmaError
from pixart_sigma.model.attention import SelfAttention
from pixart_sigma.model.conditions import Captions, Timesteps
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.kv_compression import KVCompressor
from pixart_sigma.model.transformer import PixArtTransformer


def bands_of(num_rows: int, window_height: int, count: int) -> list[range]:
    """Rows 0 … num_rows - 1 in `count` bands from top to bottom, as even as whole windows allow.

    Only the last band may end within a window: at the picture's own edge. Raises InvalidInput for too few rows.
    """
    num_windows = -(-num_rows // window_height)
    if num_windows < count:
        raise InvalidInput(
            f"{num_rows} rows of tokens, {window_height} at a time, make no bands for {count} processes; use at most "
            f"{num_windows} (--nproc-per-node {num_windows}), or a higher picture"
        )
    ends = [min(num_rows, window_height * (num_windows * index // count)) for index in range(count + 1)]
    ends[-1] = num_rows
    return [range(start, end) for start, end in pairwise(ends)]


def check_split(config: TransformerConfig, grid: tuple[int, int], count: int) -> None:
    """Raises InvalidInput where `count` processes cannot share a picture on a (height, width) grid of tokens."""
    _check_operator(config)
    _bands(config, grid, count)


def _check_operator(config: TransformerConfig) -> None:
    if config.kv_compression is not None and config.kv_compression.operator == "discard":
        raise InvalidInput(
            "kv_compression operator 'discard' keeps tokens wherever they are, not so many of each band; generate "
            "on one device, or use another operator"
        )


def _bands(config: TransformerConfig, grid: tuple[int, int], count: int) -> list[range]:
    compression = config.kv_compression
    compressed = compression is not None and compression.applies(grid)
    return bands_of(grid[0], compression.window[0] if compression is not None and compressed else 1, count)


class SplitTransformer:
    """A `Denoiser` whose every call is made by all processes of a group, with the same arguments.

    Its result is the whole prediction, the same on all of them, and that of one process to rounding. Gradients do not
    pass between processes.
    """

    def __init__(self, model: PixArtTransformer, group: dist.ProcessGroup | None = None) -> None:
        """model: on this process's device, with the same weights on all. group: by default all processes.

        Raises InvalidInput for a model that discards tokens at random.
        """
        _check_operator(model.config)
        self.model = model
        self.group = group

    @property
    def config(self) -> TransformerConfig:
        """The model's."""
        return self.model.config

    def prepare_timesteps(
        self, timesteps: Tensor, image_size: Tensor | None = None, aspect_ratio: Tensor | None = None
    ) -> Timesteps:
        """As the model's; each process prepares all."""
        return self.model.prepare_timesteps(timesteps, image_size, aspect_ratio)

    def __call__(
        self, latents: Tensor, captions: Captions, timesteps: Timesteps, kept_tokens: Tensor | None = None
    ) -> Tensor:
        """latents (B, C, H, W), those of the whole picture → the whole prediction (B, out channels, H, W).

        Raises InvalidInput if there are fewer rows of windows than processes; PixArtSigmaError if another process has
        gone or did not answer within the group's timeout.
        """
        grid = self.model.token_grid(latents)
        compression = self.config.kv_compression
        compressed = compression is not None and compression.applies(grid)
        bands = _bands(self.config, grid, dist.get_world_size(self.group))
        band = bands[dist.get_rank(self.group)]
        patch = self.config.patch_size
        own = latents[:, :, band.start * patch : band.stop * patch]
        with torch.no_grad(), self._on_band(grid, bands, band, compressed):
            prediction = self.model(own, captions, timesteps, None)
        return self._gathered(prediction, [len(each) * patch for each in bands], dim=2)

    @contextmanager
    def _on_band(
        self, grid: tuple[int, int], bands: Sequence[range], band: range, compressed: bool
    ) -> Iterator[None]:
        """The model computes with a band of a picture of `grid` tokens, as a part of it."""
        own_positions = self.model.positions
        columns = grid[1]

        def positions(_: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
            return own_positions(grid, device, dtype)[band.start * columns : band.stop * columns]

        with ExitStack() as stack:
            stack.enter_context(_replaced(self.model, "positions", positions))
            for module in self.model.modules():
                if isinstance(module, SelfAttention):
                    of_all = self._keys_and_values_of_all(module, grid, bands, compressed)
                    stack.enter_context(_replaced(module, "keys_and_values", of_all))
                elif isinstance(module, KVCompressor):
                    # Whether to compress depends on the size of the picture, not of the band.
                    stack.enter_context(_replaced(module, "applies", lambda _: compressed))
            yield

    def _keys_and_values_of_all(
        self, attention: SelfAttention, grid: tuple[int, int], bands: Sequence[range], compressed: bool
    ) -> Callable[..., tuple[Tensor, Tensor]]:
        compressor = attention.kv_compression if compressed else None
        sizes = [_num_keys(len(band), grid[1], compressor and compressor.config) for band in bands]
        of_band = attention.keys_and_values

        def of_all(*inputs: Any) -> tuple[Tensor, Tensor]:
            keys, values = of_band(*inputs)
            # In one dtype, which attention wants anyway: norms may leave keys in a wider one.
            keys = self._gathered(keys.to(values.dtype), sizes, dim=1)
            return keys, self._gathered(values, sizes, dim=1)

        return of_all

    def _gathered(self, part: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
        """Each process's part, `sizes[rank]` long in `dim`, → all of them, one after another."""
        missing = max(sizes) - part.shape[dim]
        # Collectives exchange parts of one size. F.pad counts dimensions from the last one.
        part = F.pad(part, (0, 0) * (part.ndim - 1 - dim) + (0, missing)).contiguous()
        parts = [torch.empty_like(part) for _ in sizes]
        try:
            dist.all_gather(parts, part, group=self.group)
        except RuntimeError as error:
            raise PixArtSigmaError(
                "another process of this picture failed or does not answer; see what it says, then start again "
                f"({str(error).splitlines()[0]})"
            ) from error
        return torch.cat([each.narrow(dim, 0, size) for each, size in zip(parts, sizes, strict=True)], dim)


def _num_keys(rows: int, columns: int, compression: KVCompression | None) -> int:
    height, width = compression.window if compression is not None else (1, 1)
    return -(-rows // height) * -(-columns // width)


@contextmanager
def _replaced(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """The module's method is another one meanwhile; the class's own comes back."""
    setattr(module, name, method)
    try:
        yield
    finally:
        delattr(module, name)
