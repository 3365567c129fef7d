"""Points spread evenly, yet not in rows: what is strewn over a sky, a meadow or a whole picture.

Knows nothing of what stands at the points.
"""

from __future__ import annotations

import random

_STEPS = (0.7548776662466927, 0.5698402909980532)
"""Powers of the plastic number's inverse: steps that fill the unit square evenly (Roberts' R2 sequence)."""


def scatter(rng: random.Random, count: int) -> list[tuple[float, float]]:
    """`count` points in the unit square, shaken a little so that no lattice shows."""
    x, y, shake = rng.random(), rng.random(), 0.7 / max(count, 1) ** 0.5
    return [
        (
            (x + i * _STEPS[0] + shake * rng.random()) % 1,
            (y + i * _STEPS[1] + shake * rng.random()) % 1,
        )
        for i in range(count)
    ]
