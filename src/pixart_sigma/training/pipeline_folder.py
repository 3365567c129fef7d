"""Writes a folder in the layout of diffusers' PixArtSigmaPipeline, and the scheduler that goes with a training.

Knows nothing of how the parts were trained.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pixart_sigma.model import PixArtTransformer
from pixart_sigma.weights.transformer import save_transformer


def build_scheduler(prediction_type: str) -> Any:
    """DPM-Solver++(2M) over the schedule of training, told what the model predicts."""
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type=prediction_type,
    )


def write_pipeline(
    folder: Path,
    transformer: PixArtTransformer,
    text_encoder: Any,
    tokenizer: Any,
    vae: Path,
    prediction_type: str,
    max_shard_size: str,
) -> None:
    """Each part in its subfolder, in its own dtype; `vae` is a folder and copied.

    max_shard_size, such as "10GB", is the limit of a file of the transformer's weights.
    """
    import diffusers

    folder.mkdir(parents=True, exist_ok=True)
    save_transformer(transformer, folder / "transformer", max_shard_size)
    text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    build_scheduler(prediction_type).save_pretrained(folder / "scheduler")
    if vae.resolve() != (folder / "vae").resolve():
        shutil.copytree(vae, folder / "vae", dirs_exist_ok=True)
    index = {
        "_class_name": "PixArtSigmaPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", type(text_encoder).__name__],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
