"""A transformer small enough to train in a second, as an objective: forward(batch) → {"loss"}. Any file's helper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.training.recipe.process import ParallelRecipe, RunRecipe

CAPTION_CHANNELS = 6
Batch = dict[str, Tensor]


class Objective(nn.Module):
    def __init__(self, num_layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = TransformerConfig(
            num_layers=num_layers,
            num_attention_heads=2,
            attention_head_dim=8,
            sample_size=4,
            caption_channels=CAPTION_CHANNELS,
            kv_compression=KVCompression(window=(2, 2), operator="conv", blocks=(num_layers - 1,)),
        )
        self.transformer = PixArtTransformer(config)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        errors = (self.sample(batch) - batch["target"]).square().mean(dim=(1, 2, 3))
        return {"loss": (errors * batch["share"]).sum()}

    def sample(self, batch: Batch) -> Tensor:
        captions = self.transformer.prepare_captions(batch["captions"], batch["mask"])
        timesteps = self.transformer.prepare_timesteps(batch["timesteps"])
        return self.transformer(batch["latents"], captions, timesteps)[:, :4].float()

    def blocks(self) -> list[nn.Module]:
        return list(self.transformer.transformer_blocks)


def batch_of(step: int, batch_size: int, part: slice = slice(None), share: float | None = None) -> Batch:
    """A part of the batch of `step`; each sample's share of the loss is 1 / batch_size unless given."""
    generator = torch.Generator().manual_seed(step)
    lengths = torch.randint(1, 6, (batch_size,), generator=generator)
    whole = {
        "latents": torch.randn(batch_size, 4, 8, 8, generator=generator),
        "target": torch.randn(batch_size, 4, 8, 8, generator=generator),
        "captions": torch.randn(batch_size, 5, CAPTION_CHANNELS, generator=generator),
        "mask": torch.arange(5) < lengths[:, None],
        "timesteps": torch.randint(0, 1000, (batch_size,), generator=generator).float(),
        "share": torch.full((batch_size,), share or 1 / batch_size),
    }
    return {name: tensor[part] for name, tensor in whole.items()}


def recipes(strategy: str = "auto", **options: object) -> tuple[ParallelRecipe, RunRecipe]:
    """The two sections, with fp32 and without compilation unless told otherwise."""
    run = {"steps": 1, "batch_size": 8, "precision": "fp32", "compile": False}
    run |= {name: options.pop(name) for name in list(options) if name in RunRecipe.model_fields}
    return ParallelRecipe(strategy=strategy, **options), RunRecipe(**run)
