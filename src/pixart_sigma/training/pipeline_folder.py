"""Writes a folder in the layout of diffusers' PixArt pipelines, and the scheduler that goes with a training.

Knows nothing of how the parts were trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from pixart_sigma.diffusion.dpm_solver import DPMSolver
from pixart_sigma.encoders import kl_autoencoder_files, t5_files
from pixart_sigma.encoders.kl_autoencoder import KLAutoencoder
from pixart_sigma.encoders.t5 import T5Encoder
from pixart_sigma.encoders.tokenizer import Tokenizer
from pixart_sigma.encoders.weight_files import CONFIG_FILE
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.weights.atomic import written_whole
from pixart_sigma.weights.config import class_entry
from pixart_sigma.weights.folder import caption_entries, read_json
from pixart_sigma.weights.transformer import save_transformer


def build_scheduler(prediction_type: str) -> DPMSolver:
    """DPM-Solver++(2M) over the schedule of training, told what the model predicts."""
    return DPMSolver(prediction_type=prediction_type)


def write_scheduler(scheduler: DPMSolver, folder: Path) -> None:
    """A folder that diffusers' `DPMSolverMultistepScheduler` opens."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"_class_name": "DPMSolverMultistepScheduler", **scheduler.config}
    with written_whole(folder / "scheduler_config.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def write_text_encoder(model: T5Encoder, folder: Path) -> None:
    """A folder that transformers' `T5EncoderModel` opens, in the model's own dtype."""
    _write_part(folder, t5_files.WEIGHTS_FILE, model, t5_files.config_content(model))


def write_autoencoder(model: KLAutoencoder, folder: Path) -> None:
    """A folder that diffusers' `AutoencoderKL` opens, in the model's own dtype."""
    content = kl_autoencoder_files.config_content(model.config)
    _write_part(folder, kl_autoencoder_files.WEIGHTS_FILE, model, content)


def _write_part(folder: Path, weights_file: str, model: nn.Module, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(folder / weights_file) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    with written_whole(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """A folder that transformers' `PreTrainedTokenizerFast` opens."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer.files().items():
        with written_whole(folder / name) as temporary:
            temporary.write_text(content, "utf-8")


def write_pipeline(
    folder: Path,
    transformer: PixArtTransformer,
    text_encoder: T5Encoder,
    tokenizer: Tokenizer,
    vae: Path,
    scaling_factor: float,
    prediction_type: str,
    max_shard_size: str,
    caption_length: int,
) -> None:
    """Each part in its subfolder, in its own dtype; `vae` is a folder and copied, with this scaling_factor.

    max_shard_size, such as "10GB", is the limit of a file of the transformer's weights. caption_length: tokens that the
    transformer was trained with. diffusers opens the folder, with its α class where the transformer is like α's; if the
    transformer has what diffusers' has not (compression, QK norm), only after importing integrations/diffusers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_transformer(transformer, folder / "transformer", max_shard_size)
    write_text_encoder(text_encoder, folder / "text_encoder")
    write_tokenizer(tokenizer, folder / "tokenizer")
    write_scheduler(build_scheduler(prediction_type), folder / "scheduler")
    if vae.resolve() != (folder / "vae").resolve():
        shutil.copytree(vae, folder / "vae", dirs_exist_ok=True)
    config = read_json(folder / "vae" / "config.json")
    if config.get("scaling_factor") != scaling_factor:
        with written_whole(folder / "vae" / "config.json") as temporary:
            temporary.write_text(
                json.dumps(config | {"scaling_factor": scaling_factor}, indent=2) + "\n", "utf-8"
            )
    index = {
        **caption_entries(caption_length, micro_conditioning=transformer.config.micro_conditioning),
        "_diffusers_version": version("diffusers"),
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": list(class_entry(transformer.config)),
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
