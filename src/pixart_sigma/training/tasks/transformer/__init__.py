"""The transformer's task: where its parts come from, what a step's batch is, what is lost, shown and exported."""

from pixart_sigma.training.tasks.transformer.task import TransformerTask

__all__ = ["TransformerTask"]
