"""What one layer computes for one strip.

Legend: H, W pixels of an activation, C channels; strips are (rows, W, C).
Knows planes and statistics, and neither the other layers nor the limit. The memory that `compute` takes is what
plan.py predicts: change one with the other.

A residual block is two steps with the first convolution's result kept as a plane. To compute it twice instead, once
for the statistics of the second norm and once for the block's output, would need as much room: the output must then
not overwrite the input, whose rows the next strip still reads. As it is, every convolution is computed once, and the
second one writes over the plane that it reads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixart_sigma.encoders.kl_autoencoder import double_size_of_padded
from pixart_sigma.encoders.strips.layout import Layer
from pixart_sigma.encoders.strips.planes import Plane
from pixart_sigma.encoders.strips.statistics import normalize_
from pixart_sigma.products import linear

Affine = tuple[Tensor, Tensor]


class SlidingWindow:
    """Bands of a plane's rows, from top to bottom, normalised if asked, and zero beyond the border.

    Rows that two bands share are read once, so those that were read may be overwritten.
    """

    def __init__(
        self,
        source: Plane,
        most_rows: int,
        channels: int,
        affine: Affine | None,
        like: Tensor,
        pad_right: int = 0,
    ) -> None:
        """like: any tensor of the dtype and device. pad_right: columns of zeros at the right."""
        self.source, self.affine = source, affine
        self.buffer = like.new_zeros(most_rows, source.width + pad_right, channels)
        self.first = self.last = -1

    def read(self, first: int, last: int) -> Tensor:
        """Rows [first, last) → (last − first, W + pad_right, C), valid until the next call."""
        rows = self.buffer[: last - first]
        shared = max(0, self.last - first)
        if shared:
            rows[:shared] = self.buffer[first - self.first : self.last - self.first].clone()
        begin, end = max(first + shared, 0), min(last, self.source.height)
        rows[shared : begin - first].zero_()
        rows[end - first :].zero_()
        if begin < end:
            inside = rows[begin - first : end - first, : self.source.width]
            self.source.read(begin, inside)
            if self.affine:
                normalize_(inside, self.affine, activate=True)
        self.first, self.last = first, last
        return rows


class Convolution:
    """A 3 × 3 convolution of a plane: plain, upsampling or downsampling, and perhaps a second plane added."""

    def __init__(
        self, layer: Layer, source: Plane, added: Plane | None, affine: Affine | None, rows: int
    ) -> None:
        self.layer, self.added = layer, added
        step, weight = layer.step, layer.module.weight
        most_rows = step.most_rows_read(min(rows, step.height))
        pad_right = int(step.kind == "downsample")
        self.window = SlidingWindow(source, most_rows, step.in_channels, affine, weight, pad_right)

    def compute(self, first: int, last: int) -> Tensor:
        """Rows [first, last) of the layer's output, (last − first, W, C)."""
        step = self.layer.step
        read_first, read_last = step.rows_read(first, last)
        rows = self.window.read(read_first, read_last)
        if step.kind == "upsample":
            strip = _convolve_doubled(rows, self.layer.module)
        else:
            strip = _convolve(rows, self.layer.module, padded=step.kind != "downsample")
        if self.added is not None:
            self._add(first, strip)
        return strip

    def _add(self, first: int, strip: Tensor) -> None:
        assert self.added is not None
        values = strip.new_empty(*strip.shape[:2], self.layer.step.added_channels)
        self.added.read(first, values)
        shortcut = self.layer.shortcut
        if shortcut is None:
            strip.add_(values)
        else:
            strip.add_(linear(values, shortcut.weight.flatten(1), shortcut.bias))


class SelfAttention:
    """Full attention of a plane's pixels with one head, and its residual connection.

    Keys and values are kept whole, for all H·W pixels; queries come strip by strip, so a matrix of scores never
    exists.
    """

    def __init__(self, layer: Layer, source: Plane, affine: Affine, rows: int) -> None:
        self.module, self.source, self.affine = layer.module, source, affine
        step, weight = layer.step, layer.module.to_q.weight
        shape = (step.height, step.width, step.channels)
        self.keys, self.values = weight.new_empty(shape), weight.new_empty(shape)
        self.buffer = weight.new_empty(min(rows, step.height), step.width, step.channels)
        for first in range(0, step.height, rows):
            last = min(first + rows, step.height)
            normalized = self._read(first, last)
            normalize_(normalized, self.affine, activate=False)
            self.keys[first:last] = self.module.to_k(normalized)
            self.values[first:last] = self.module.to_v(normalized)

    def compute(self, first: int, last: int) -> Tensor:
        """Rows [first, last) of the layer's output, (last − first, W, C)."""
        normalized = self._read(first, last)
        normalize_(normalized, self.affine, activate=False)
        strip = self.module.to_out[0](self._attend(self.module.to_q(normalized)))
        return strip.add_(self._read(first, last))

    def _read(self, first: int, last: int) -> Tensor:
        rows = self.buffer[: last - first]
        self.source.read(first, rows)
        return rows

    def _attend(self, queries: Tensor) -> Tensor:
        # (1 picture, 1 head, tokens, C). Not in tiles, which would copy the keys and values of all strips for each.
        tokens = [values.flatten(0, 1)[None, None] for values in (queries, self.keys, self.values)]
        return F.scaled_dot_product_attention(*tokens).view_as(queries)


def _convolve(rows: Tensor, conv: nn.Conv2d, *, padded: bool) -> Tensor:
    """Rows (n, W, C) with those above and below that the kernel needs → (rows, W, C)."""
    picture = rows[None].permute(0, 3, 1, 2)
    result = F.conv2d(picture, conv.weight, conv.bias, stride=conv.stride, padding=(0, int(padded)))
    return result.permute(0, 2, 3, 1)[0].contiguous()


def _convolve_doubled(rows: Tensor, conv: nn.Conv2d) -> Tensor:
    """Rows (n + 2, W, C), one above and one below those to be enlarged → (2n, 2W, C)."""
    padded = F.pad(rows, (0, 0, 1, 1))[None].permute(0, 3, 1, 2)
    return double_size_of_padded(padded, conv).permute(0, 2, 3, 1)[0]


def pointwise(values: Tensor, conv: nn.Conv2d | None) -> Tensor:
    """A 1 × 1 convolution of (H, W, C); None is the identity."""
    return values if conv is None else linear(values, conv.weight.flatten(1), conv.bias)


def operation(
    layer: Layer, source: Plane, added: Plane | None, affine: Affine | None, rows: int
) -> Convolution | SelfAttention:
    """A layer and the planes it reads → what computes its strips of at most `rows` rows, from top to bottom."""
    if layer.step.kind == "attend":
        assert affine is not None
        return SelfAttention(layer, source, affine, rows)
    return Convolution(layer, source, added, affine, rows)


def unfolds(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch convolves on this device by way of unfolded pixels, nine times as large as its input."""
    if device.type != "cpu":
        return False
    if not torch.backends.mkldnn.is_available():
        return True
    return dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
