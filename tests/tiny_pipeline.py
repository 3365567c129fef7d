"""A whole pipeline folder of tiny random components, in diffusers' layout; made in a second, and never
trained.

Its base is 256 px, as the pocket model's. Each conftest.py that needs one imports `tiny_folder`.
"""

import json
from pathlib import Path

import pytest
import torch

from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.transformer import save_transformer

WORDS = "a red blue small big house cactus with happy face in the desert by lake blurry and of".split()
TRANSFORMER = TransformerConfig(
    num_layers=4,
    num_attention_heads=2,
    attention_head_dim=12,
    sample_size=32,
    caption_channels=16,
    interpolation_scale=0.5,
)
SCHEDULER = {
    "_class_name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "solver_order": 2,
    "solver_type": "midpoint",
    "timestep_spacing": "linspace",
}
MODEL_INDEX = {
    "_class_name": "PixArtSigmaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def write_tokenizer(folder: Path) -> None:
    """One token per known word, and T5's end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=300,
    ).save_pretrained(folder)


def write_text_encoder(folder: Path, width: int = 16) -> None:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(WORDS) + 3,
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(folder)


def write_autoencoder(folder: Path) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=0.25,
    ).save_pretrained(folder)


def write_tiny_pipeline(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        write_tokenizer(folder / "tokenizer")
        write_text_encoder(folder / "text_encoder")
        write_autoencoder(folder / "vae")
        save_transformer(PixArtTransformer(TRANSFORMER), folder / "transformer")
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(folder / "model_index.json", MODEL_INDEX)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; a test that breaks something copies it first."""
    return write_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "tiny")
