from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pixart_sigma.benchmark import machine
from pixart_sigma.benchmark.inference.random_pipeline import RandomPipeline
from pixart_sigma.benchmark.inference.scenarios import TINY
from pixart_sigma.pipeline.device import DTYPES


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A dtype's name → the folder with the tiny scenarios' parts. Read only."""
    folders: dict[str, Path] = {}

    def folder(dtype: str) -> Path:
        if dtype not in folders:
            folders[dtype] = tmp_path_factory.mktemp(dtype)
            RandomPipeline(folders[dtype], DTYPES[dtype], torch.device("cpu")).provide(TINY["pipeline"][0])
        return folders[dtype]

    return folder


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's rate is of no interest here."""
    monkeypatch.setattr(machine, "_CPU_SIDE", 64)
