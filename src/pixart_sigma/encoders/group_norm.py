"""GroupNorm of fp32 pictures whose channels lie together in memory, exact at any size.

Legend: B images, C channels, H, W places.
torch's kernel for this order on the CPU adds up all places of a channel in fp32, one by one: at 1024 x 1024 that costs
three digits, and more with every doubling. Here the sums are of bands of rows and are merged in fp64. What bf16 rounds
away is more than that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BAND_PLACES = 16_384
"""What torch adds up with an error of 4e-6; it also lies in a core's cache."""


class GroupNorm(nn.GroupNorm):
    """torch's own where that will do: for small pictures, other orders of memory and dtypes, GPUs and training."""

    def forward(self, states: Tensor) -> Tensor:
        """states (B, C, H, W) → the same, normed."""
        large = states.shape[2] * states.shape[3] > _BAND_PLACES
        on_cpu = states.device.type == "cpu" and states.dtype is torch.float32
        channels_last = states.is_contiguous(memory_format=torch.channels_last)
        if not (large and on_cpu and channels_last) or torch.is_grad_enabled():
            return super().forward(states)
        pictures = [self._normed(picture) for picture in states.split(1)]
        return pictures[0] if len(pictures) == 1 else torch.cat(pictures)

    def _normed(self, picture: Tensor) -> Tensor:
        means, variances = self._moments(picture)
        return F.batch_norm(picture, means, variances, self.weight, self.bias, training=False, eps=self.eps)

    def _moments(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """picture (1, C, H, W) → mean and variance of each channel's group, (C) each."""
        _, channels, height, width = picture.shape
        bands = picture.split(max(1, _BAND_PLACES // width), dim=2)
        shape = (self.num_groups, self.eps)
        moments = [
            torch.native_group_norm(band, None, None, 1, channels, band.shape[2] * width, *shape)[1:]
            for band in bands
        ]
        means = torch.cat([mean for mean, _ in moments]).double()
        variances = torch.cat([deviation for _, deviation in moments]).double().pow(-2) - self.eps
        shares = torch.tensor([band.shape[2] / height for band in bands], dtype=torch.float64)[:, None]
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean).square())).sum(0)
        group = channels // self.num_groups
        return mean.float().repeat_interleave(group), variance.float().repeat_interleave(group)
