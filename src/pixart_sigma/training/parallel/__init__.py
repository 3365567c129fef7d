"""Several processes on one run: who they are, what they share out, and what they do not keep."""

from pixart_sigma.training.parallel.processes import Processes, joined
from pixart_sigma.training.parallel.sharding import Parallel, parallelise

__all__ = ["Parallel", "Processes", "joined", "parallelise"]
