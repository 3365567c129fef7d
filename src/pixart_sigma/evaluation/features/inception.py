"""The Inception v3 of FID, up to its last pooling: 2048 features a picture.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", in the variant of the first FID's weights
(TensorFlow, 2015-12-05): average pooling leaves the border out, and the last block pools by maximum. Parameters have
the names of that network's widely used conversion, pt_inception-2015-12-05-6726825d.pth. Pictures are resized to 299²
without a filter against aliasing, as in the FID that goes with that file.

Legend: N pictures, C channels, h, w positions. Knows nothing of FID itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from pixart_sigma.data.images import to_pixels
from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.errors import WeightsError
from pixart_sigma.evaluation.features import Images
from pixart_sigma.evaluation.features.digest import weights_digest

# In the file, and of no use here: the classifier, and how often the batch norms were updated.
_UNUSED = ("fc.weight", "fc.bias")
_UNUSED_SUFFIX = ".num_batches_tracked"

Kernels = tuple[tuple[int, int], ...]
"""Height and width of convolutions side by side, whose outputs are concatenated; nearly always there is one."""

_POINT: Kernels = ((1, 1),)
_SQUARE: Kernels = ((3, 3),)
_LARGE: Kernels = ((5, 5),)
_ROW: Kernels = ((1, 7),)
_COLUMN: Kernels = ((7, 1),)
_CROSS: Kernels = ((1, 3), (3, 1))

_average = partial(avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(max_pool2d, kernel_size=3, stride=1, padding=1)
_halve = partial(max_pool2d, kernel_size=3, stride=2)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, h, w) → (N, out_channels, h', w')."""
        return self.bn(self.conv(inputs)).relu()


class Mixed(nn.Module):
    """Branches of convolutions over the same input, concatenated; "branch_pool" pools first.

    branches: name → (channels, kernels) of its convolutions, which keep the size; if the block halves, each branch's
    last one does, as the pooling does.
    """

    def __init__(
        self,
        in_channels: int,
        pool: Callable[[Tensor], Tensor],
        branches: Mapping[str, Sequence[tuple[int, Kernels]]],
    ) -> None:
        super().__init__()
        self._pool = pool
        self._branches: dict[str, list[list[str]]] = {}
        for branch, steps in branches.items():
            self._branches[branch] = []
            channels = in_channels
            for number, (out_channels, kernels) in enumerate(steps, start=1):
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                halves = pool is _halve and number == len(steps)
                names = [name] if len(kernels) == 1 else [f"{name}{letter}" for letter in "ab"]
                for each, (height, width) in zip(names, kernels, strict=True):
                    padding = (0, 0) if halves else (height // 2, width // 2)
                    convolution = Convolution(
                        channels, out_channels, (height, width), 2 if halves else 1, padding
                    )
                    self.add_module(each, convolution)
                self._branches[branch].append(names)
                channels = out_channels * len(kernels)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, h, w) → (N, channels of all branches, h, w), or half of h and w."""
        outputs = []
        for branch, steps in self._branches.items():
            values = self._pool(inputs) if branch == "branch_pool" else inputs
            for names in steps:
                values = torch.cat([self.get_submodule(name)(values) for name in names], dim=1)
            outputs.append(values)
        return torch.cat(outputs, dim=1)


class Inception(nn.Sequential):
    """Pixels (N, 3, 299, 299) in [-1, 1] → the last blocks' 2048 channels, averaged over all positions: (N, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3), padding=(1, 1))
        self.pool_2 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3))
        self.pool_4 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = _block_5(192, 32)
        self.Mixed_5c = _block_5(256, 64)
        self.Mixed_5d = _block_5(288, 64)
        self.Mixed_6a = Mixed(
            288,
            _halve,
            {
                "branch3x3": [(384, _SQUARE)],
                "branch3x3dbl": [(64, _POINT), (96, _SQUARE), (96, _SQUARE)],
                "branch_pool": [],
            },
        )
        self.Mixed_6b = _block_6(128)
        self.Mixed_6c = _block_6(160)
        self.Mixed_6d = _block_6(160)
        self.Mixed_6e = _block_6(192)
        self.Mixed_7a = Mixed(
            768,
            _halve,
            {
                "branch3x3": [(192, _POINT), (320, _SQUARE)],
                "branch7x7x3": [(192, _POINT), (192, _ROW), (192, _COLUMN), (192, _SQUARE)],
                "branch_pool": [],
            },
        )
        self.Mixed_7b = _block_7(1280, _average)
        self.Mixed_7c = _block_7(2048, _maximum)
        self.pool_7 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()


def _block_5(in_channels: int, pool_channels: int) -> Mixed:
    branches = {
        "branch1x1": [(64, _POINT)],
        "branch5x5": [(48, _POINT), (64, _LARGE)],
        "branch3x3dbl": [(64, _POINT), (96, _SQUARE), (96, _SQUARE)],
        "branch_pool": [(pool_channels, _POINT)],
    }
    return Mixed(in_channels, _average, branches)


def _block_6(channels: int) -> Mixed:
    branches = {
        "branch1x1": [(192, _POINT)],
        "branch7x7": [(channels, _POINT), (channels, _ROW), (192, _COLUMN)],
        "branch7x7dbl": [
            (channels, _POINT),
            (channels, _COLUMN),
            (channels, _ROW),
            (channels, _COLUMN),
            (192, _ROW),
        ],
        "branch_pool": [(192, _POINT)],
    }
    return Mixed(768, _average, branches)


def _block_7(in_channels: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    branches = {
        "branch1x1": [(320, _POINT)],
        "branch3x3": [(384, _POINT), (384, _CROSS)],
        "branch3x3dbl": [(448, _POINT), (384, _SQUARE), (384, _CROSS)],
        "branch_pool": [(192, _POINT)],
    }
    return Mixed(in_channels, pool, branches)


def load_inception(path: Path) -> Inception:
    """The .pth file → the network in eval mode on the CPU. Only tensors are unpickled.

    Raises WeightsError if the file is missing or corrupt, or if a name or a shape differs.
    """
    if not path.is_file():
        raise WeightsError(
            f"Inception's weights {path} are missing; fetch pt_inception-2015-12-05-6726825d.pth"
        )
    try:
        state_dict: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: tensor.shape for name, tensor in state_dict.items() if _is_used(name)}
    except Exception as error:  # a broken or foreign pickle raises nearly anything
        raise WeightsError(
            f"Inception's weights {path} are corrupt ({first_line(error)}); fetch the file again"
        ) from error
    model = Inception()
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if _is_used(name)}
    differing = sorted(name for name, _ in found.items() ^ expected.items())
    if differing:
        raise WeightsError(
            f"Inception's weights {path} do not fit: {abbreviate(sorted(set(differing)))}; "
            "give pt_inception-2015-12-05-6726825d.pth"
        )
    model.load_state_dict({name: state_dict[name] for name in expected}, strict=False)
    return model.eval()


def _is_used(name: str) -> bool:
    return name not in _UNUSED and not name.endswith(_UNUSED_SUFFIX)


class InceptionExtractor:
    """An `Inception` in eval mode."""

    side = 299

    def __init__(self, model: Inception) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self.name = f"inception-{weights_digest(model.state_dict())}"

    @classmethod
    def load(cls, path: Path, device: torch.device | str) -> Self:
        """As `load_inception`."""
        return cls(load_inception(path).to(device))

    @torch.inference_mode()
    def features(self, images: Images) -> Tensor:
        """As in `FeatureExtractor`; D is 2048."""
        pixels = interpolate(
            to_pixels(images, self._device), (self.side, self.side), mode="bilinear", align_corners=False
        )
        return self._model(pixels).cpu()
