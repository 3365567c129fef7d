"""A patch of each picture in its own pixels, whose features tell what the extractor's small copy does not show.

Chai et al., "Any-resolution Training for High-resolution Image Synthesis", section 4.1 (patch FID; many patches of a
picture there, one here). Knows nothing of extractors.
"""

from __future__ import annotations

import random

import numpy as np

from pixart_sigma.evaluation.features import Images


def patches(images: Images, side: int, first: int) -> Images | None:
    """(N, H, W, 3) → (N, side, side, 3); picture `first` + i of a set has a place of its own, whatever the batch.

    None for pictures that have no more pixels than a patch, along one side or both.
    """
    height, width = images.shape[1:3]
    if min(height, width) <= side:
        return None
    taken = []
    for index, image in enumerate(images, first):
        draw = random.Random(index)
        top, left = draw.randint(0, height - side), draw.randint(0, width - side)
        taken.append(image[top : top + side, left : left + side])
    return np.stack(taken)
