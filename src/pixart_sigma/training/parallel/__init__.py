"""Several processes on one run: what they share out, and what they do not keep."""

from pixart_sigma.training.parallel.sharding import Parallel, parallelise

__all__ = ["Parallel", "parallelise"]
