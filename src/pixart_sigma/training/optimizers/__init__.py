"""Optimisers by name, the learning rate over a run, and the moving average of the weights."""

from pixart_sigma.training.optimizers.build import build_optimizers
from pixart_sigma.training.optimizers.came import CAME
from pixart_sigma.training.optimizers.learning_rate import rate_factor, set_rate
from pixart_sigma.training.optimizers.moving_average import MovingAverage

__all__ = ["CAME", "MovingAverage", "build_optimizers", "rate_factor", "set_rate"]
