"""GroupNorm over a whole picture whose rows come strip by strip.

Legend: N pixels of a strip, C channels, G groups.
Knows nothing of convolutions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixart_sigma.encoders.strips.plan import CHUNK_PIXELS


class Statistics:
    """Mean and variance of each channel of all pixels so far.

    Squares are summed around the mean of a few thousand pixels, in fp32, and these sums are then merged in fp64 by
    Chan, Golub and LeVeque's rule: a mean that is large beside the deviation costs no digits, as it would in a sum of
    plain squares.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.means = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)
        """Sums of squared differences from `means`."""

    def add(self, strip: Tensor) -> None:
        """Another strip (rows, W, C), of any float dtype and device."""
        chunks = strip.flatten(0, 1).split(CHUNK_PIXELS)
        counts = [len(pixels) for pixels in chunks]
        # Made before the loop: small results between large blocks would keep the C allocator from using these again.
        means, squares = strip.new_empty(2, len(chunks), strip.shape[2], dtype=torch.float32)
        scratch = strip.new_empty(counts[0], strip.shape[2], dtype=torch.float32)
        for pixels, mean, square in zip(chunks, means, squares, strict=True):
            values = scratch[: len(pixels)].copy_(pixels)
            torch.mean(values, 0, out=mean)
            torch.sum(values.sub_(mean).square_(), 0, out=square)
        weights = torch.tensor([self.count, *counts], dtype=torch.float64)[:, None]
        all_means = torch.cat([self.means[None], means.cpu().double()])
        self.count += sum(counts)
        self.means = (weights * all_means).sum(0) / self.count
        between = (weights * (all_means - self.means).square()).sum(0)
        self.squares = self.squares + squares.cpu().double().sum(0) + between

    def affine(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """A GroupNorm of the C channels → (scale, shift), (C) in fp32 on the norm's device: it is x · scale + shift."""
        grouped = self.means.view(norm.num_groups, -1)
        means = grouped.mean(1, keepdim=True)
        squares = self.squares.view(norm.num_groups, -1) + self.count * (grouped - means).square()
        variances = squares.sum(1, keepdim=True) / (self.count * grouped.shape[1])
        scale = (variances + norm.eps).rsqrt().expand_as(grouped).flatten() * norm.weight.double().cpu()
        shift = norm.bias.double().cpu() - means.expand_as(grouped).flatten() * scale
        device = norm.weight.device
        return scale.float().to(device), shift.float().to(device)


def normalize_(rows: Tensor, affine: tuple[Tensor, Tensor], *, activate: bool) -> None:
    """rows (rows, W, C) → rows · scale + shift, and SiLU of it if asked, in place and computed in fp32."""
    scale, shift = affine
    # A view, since a copy would be normalised in its place.
    for pixels in rows.view(-1, rows.shape[2]).split(CHUNK_PIXELS):
        values = pixels.float()  # the pixels themselves if they are fp32
        values.mul_(scale).add_(shift)
        if activate:
            F.silu(values, inplace=True)
        if values.dtype != pixels.dtype:
            pixels.copy_(values)
