"""Random adapters for the transformer of the tiny pipeline, strong enough to change every picture."""

from pathlib import Path

import torch

from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.folder import ADAPTER_FILE
from pixart_sigma.weights.lora import AdapterSettings, save_adapter
from tiny_pipeline import TRANSFORMER

RANK, ALPHA = 3, 6.0


def random_adapter(*layers: str, dora: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors under their names in a file, without peft's prefix."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = PixArtTransformer(TRANSFORMER)
    tensors = {}
    for layer in layers:
        outputs, inputs = model.get_submodule(layer).weight.shape
        tensors[f"{layer}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator)
        tensors[f"{layer}.lora_B.weight"] = torch.randn(outputs, RANK, generator=generator)
        if dora:
            tensors[f"{layer}.lora_magnitude_vector"] = torch.rand(outputs, generator=generator) + 0.5
    return tensors


def write_lora_file(file: Path, seed: int = 0) -> Path:
    """One file that suffices by itself; it changes the output layer, so that even one step shows it."""
    save_adapter(
        file.parent, random_adapter("proj_out", seed=seed), AdapterSettings(RANK, ALPHA, False, ("proj_out",))
    )
    return (file.parent / ADAPTER_FILE).rename(file)
