"""What the tasks of small models have in common: nothing to compile or shard, data drawn from seeds."""

from __future__ import annotations

from torch import nn

from pixart_sigma.data.drawn import world_fingerprint


class SmallTask:
    """The part of a `Task` that needs no knowledge of the model."""

    methods: tuple[str, ...] = ()
    exports_average = True

    @property
    def data_digest(self) -> str:
        """Everything is drawn from seeds of the recipe; the world may have changed."""
        return world_fingerprint(0)

    def notes(self) -> list[str]:
        """None."""
        return []

    def blocks(self) -> list[nn.Module]:
        """None: compiling makes the autoencoder slower (docs/log.md), captions' lengths vary, and both are too small to
        be sharded."""
        return []
