"""Two processes learn what one learns, in whole runs as users start them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pixart_sigma.training.watching.metrics import read_metrics
from tiny_run import FRESH, finish_run, recipe_file, start_run, write_pictures

SETTINGS: dict[str, Any] = FRESH | {
    "run.steps": 50,
    "run.batch_size": 4,
    "run.checkpoint_every": 50,
    "run.validate_every": 25,
    # Keys' biases have no gradient but rounding, which a smaller eps would make steps of.
    "optimizer.eps": 1e-4,
    "captions.dropout": 0.3,
    "data.partial_batches": "wrap",
    "scratch.kv_compression": {"window": [2, 1], "operator": "discard"},
}


def exported(output: Path) -> dict[str, Tensor]:
    return load_file(output / "export/transformer/diffusion_pytorch_model.safetensors")


def curve(output: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(output / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_curve_of_one(strategy: str, tiny_folder: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 10)
    encoders = {"scratch.autoencoder": str(tiny_folder), "scratch.text_encoder": str(tiny_folder)}
    recipe = recipe_file(tmp_path, pictures, SETTINGS | encoders | {"parallel.strategy": strategy})
    one, two = tmp_path / "one", tmp_path / "two"
    assert finish_run(start_run(recipe, one, 1)) == [0], (tmp_path / "one-0.log").read_text()
    assert finish_run(start_run(recipe, two, 2)) == [0, 0], (tmp_path / "two-0.log").read_text()
    assert len(curve(one)) == 50
    assert curve(two) == pytest.approx(curve(one), rel=1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)


def test_an_encoder_that_learns_along_is_exported_from_shards_too(tiny_folder: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    settings = FRESH | {
        "scratch.autoencoder": str(tiny_folder),
        "scratch.text_encoder": str(tiny_folder),
        "train_text_encoder": True,
        "data.embeddings": "online",
        "parallel.strategy": "fsdp",
    }
    output = tmp_path / "out"
    assert finish_run(start_run(recipe_file(tmp_path, pictures, settings), output, 2)) == [0, 0], (
        tmp_path / "out-0.log"
    ).read_text()
    assert (output / "export/text_encoder/model.safetensors").exists()
