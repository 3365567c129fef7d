import pytest
import torch

from pixart_sigma.evaluation.judges.checker import Checker, CheckerConfig


@pytest.fixture
def checker() -> Checker:
    torch.manual_seed(0)
    return Checker(CheckerConfig(channels=(8, 8, 16), blocks=(1, 0, 1), num_heads=2)).eval()
