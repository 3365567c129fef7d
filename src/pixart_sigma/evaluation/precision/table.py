"""A comparison's figures in words. Knows nothing of how they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = ("text encoder", "MB", "cosine", "least", "error", "PSNR", "least", "difference")
NOTES = (
    "Embeddings: weights that stay in memory; cosine of a token with the reference's, mean and least; relative error, "
    "root mean square.",
    "Pictures, from the same noise: PSNR in dB with the reference's, median and least; mean difference of a value of "
    "255.",
)
_NONE = "–"


def headline(found: Mapping[str, Any]) -> str:
    """What was compared, and how the pictures were made."""
    words = f"Model {found['model']}, {len(found['prompts'])} prompts, compared with {found['reference']}"
    making = found["making"]
    if making is None:
        return words
    return (
        f"{words}; {making['size']} pixels, {making['steps']} steps of {making['sampler']}, "
        f"guidance {making['guidance_scale']:g}"
    )


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of figures.json → what stands below HEADS; the reference has no differences."""
    found = [f"{row['weight_bytes'] / 1e6:.1f}"]
    embeddings, pictures = row.get("embeddings"), row.get("pictures")
    if embeddings:
        found.append(f"{embeddings['cosine_mean']:.5f}")
        found += (f"{embeddings[name]:.4f}" for name in ("cosine_min", "relative_error"))
    if pictures:
        ratios = (pictures[name] for name in ("psnr", "psnr_min"))
        found += ("equal" if ratio is None else f"{ratio:.1f}" for ratio in ratios)
        found.append(f"{pictures['mean_difference']:.2f}")
    name = row["name"] if row["name"] == row["held"] else f"{row['name']}, {row['held']}"
    return (name, *found, *(_NONE,) * (len(HEADS) - 1 - len(found)))
