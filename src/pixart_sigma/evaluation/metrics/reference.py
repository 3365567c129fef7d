"""A reference set of pictures as one file that can be shared: what FID and CMMD need of it, and who extracted it.

Knows nothing of pictures; the file is .safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixart_sigma.encoders.pretrained import first_line
from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.metrics.fid import Statistics
from pixart_sigma.weights.atomic import written_whole


@dataclass(frozen=True)
class Reference:
    """statistics of the features; embeddings (N, E) fp32, unit, or None if the extractor embeds no texts; patches: the
    statistics of the features of a patch of each picture, or None of pictures that are no larger than one; size: height
    and width of the pictures that the patches were taken from.

    extractor is the extractor's `name`, which tells its weights.
    """

    extractor: str
    statistics: Statistics
    embeddings: Tensor | None = None
    patches: Statistics | None = None
    size: tuple[int, int] | None = None


def save_reference(reference: Reference, path: Path) -> None:
    """Writes the file; it appears whole or not at all."""
    statistics = reference.statistics
    tensors = {"mean": statistics.mean, "covariance": statistics.covariance}
    if reference.embeddings is not None:
        tensors["embeddings"] = reference.embeddings
    metadata = {"extractor": reference.extractor, "num": str(statistics.num)}
    if reference.patches is not None and reference.size is not None:
        tensors |= {"patch_mean": reference.patches.mean, "patch_covariance": reference.patches.covariance}
        metadata |= {"height": str(reference.size[0]), "width": str(reference.size[1])}
    with written_whole(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def load_reference(path: Path, extractor: str) -> Reference:
    """The file at `path`. Raises InvalidInput if it is no such file, or not of the extractor with that name."""
    if not path.is_file():
        raise InvalidInput(f"reference {path} does not exist; make one with --save-reference")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        num = int(metadata["num"])
        statistics = Statistics(tensors["mean"], tensors["covariance"], num)
        patches = size = None
        if "patch_mean" in tensors:
            size = int(metadata["height"]), int(metadata["width"])
            patches = Statistics(tensors["patch_mean"], tensors["patch_covariance"], num)
        made_by = metadata["extractor"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InvalidInput(
            f"{path} is no reference ({first_line(error)}); make one with --save-reference"
        ) from error
    if made_by != extractor:
        raise InvalidInput(
            f"reference {path} was made with {made_by}, not with {extractor}; "
            "choose that extractor (--features), or make another reference"
        )
    return Reference(made_by, statistics, tensors.get("embeddings"), patches, size)
