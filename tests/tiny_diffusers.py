"""Tiny transformers with every option, and diffusers' pipelines around them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.transformer import save_transformer
from tiny_pipeline import TRANSFORMER

PROMPTS = [" A Red house", "a small cactus with a happy face in the desert"]
SEEDS = (5, 6)


def compressed(operator: str, window: tuple[int, int] = (2, 2), **options: Any) -> TransformerConfig:
    compression = KVCompression(window, operator, (1, 3), **options)  # type: ignore[arg-type]
    return replace(TRANSFORMER, kv_compression=compression)


CONVOLVED = replace(compressed("conv"), qk_norm=True)
MICRO = replace(TRANSFORMER, micro_conditioning=True, sample_size=128, interpolation_scale=2.0)


def random_model(config: TransformerConfig) -> PixArtTransformer:
    """No parameter is left as it begins, so that none could be lost unnoticed."""
    model = PixArtTransformer(config).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def write_transformer(folder: Path, config: TransformerConfig) -> Path:
    save_transformer(random_model(config), folder)
    return folder


def open_model(folder: Path, **options: Any) -> Any:
    from pixart_sigma.integrations.diffusers import PixArtSigmaTransformer2DModel

    return PixArtSigmaTransformer2DModel.from_pretrained(folder, **options)


def open_pipeline(
    folder: Path, transformer: Any, class_name: str = "PixArtSigmaPipeline", **options: Any
) -> Any:
    import diffusers

    pipeline = getattr(diffusers, class_name).from_pretrained(folder, transformer=transformer, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sampled(pipeline: Any, height: int = 64, width: int = 64, **options: Any) -> Tensor:
    """The latents of both prompts after four steps."""
    latents: Tensor = pipeline(
        PROMPTS,
        height=height,
        width=width,
        num_inference_steps=4,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        use_resolution_binning=False,
        clean_caption=False,
        output_type="latent",
        **options,
    ).images
    return latents


def inputs(
    dtype: torch.dtype = torch.float32, channels: int = TRANSFORMER.caption_channels
) -> dict[str, Any]:
    """What a pipeline passes: latents, embeddings and masks of full length, a timestep for each sample."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.zeros(2, 300, dtype=torch.int64)
    mask[0, :1], mask[1, :21] = 1, 1
    return {
        "hidden_states": torch.randn(2, 4, 8, 12, generator=generator).to(dtype),
        "encoder_hidden_states": torch.randn(2, 300, channels, generator=generator).to(dtype),
        "encoder_attention_mask": mask,
        "timestep": torch.tensor([801, 801]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }


@torch.no_grad()
def predict(
    model: Any, dtype: torch.dtype = torch.float32, channels: int = TRANSFORMER.caption_channels
) -> Tensor:
    prediction: Tensor = model(**inputs(dtype, channels)).sample
    return prediction.float()
