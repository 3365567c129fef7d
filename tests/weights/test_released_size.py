"""The released shape, once: XL/2 to the official layout and back, and a text encoder of XXL width in shards."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.catalogue import releases
from pixart_sigma.weights.checkpoint import Checkpoint, read_checkpoint, read_config
from pixart_sigma.weights.config import released_config
from pixart_sigma.weights.convert import convert, write_checkpoint
from tiny_pipeline import write_tokenizer

pytestmark = pytest.mark.slow


def test_xl_2_goes_to_official_and_back(tmp_path: Path) -> None:
    """1.2 GB of random weights in bfloat16, at 2K, whose position buffer is the largest."""
    config = released_config(releases()["sigma-2k"])
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in PixArtTransformer(config).state_dict().items()}
    assert sum(shape.numel() for shape in shapes.values()) == 610_856_096
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randint(-(2**15), 2**15, shape, dtype=torch.int16, generator=generator).view(
            torch.bfloat16
        )
        for name, shape in shapes.items()
    }
    weights = {name: tensor.nan_to_num_(0, 1, -1) for name, tensor in weights.items()}
    null = torch.randn(300, 4096, generator=generator)
    folder = write_checkpoint(Checkpoint(config, weights, null, "random"), tmp_path / "model", "diffusers")

    convert(folder, tmp_path / "x.pth", "official")
    # What others wrote has no configuration of ours: it must be told from the tensors.
    content = torch.load(tmp_path / "x.pth", weights_only=True, mmap=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "foreign.pth")
    del content
    (tmp_path / "x.pth").unlink()
    convert(tmp_path / "foreign.pth", tmp_path / "back", "diffusers")

    assert read_config(tmp_path / "back" / "transformer") == config
    assert torch.equal(read_checkpoint(tmp_path / "back" / "transformer").null_caption, null)  # type: ignore[arg-type]
    back = load_file(tmp_path / "back" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in back.items())


def test_a_text_encoder_of_xxls_width_opens_in_shards(tmp_path: Path) -> None:
    """Two of its 24 layers, every other size as T5 v1.1-XXL has it, in several files: 1 GB instead of 9."""
    from transformers import T5Config, T5EncoderModel

    from pixart_sigma.encoders.text import TextEncoder

    config = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=2,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    model = T5EncoderModel(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "text_encoder", max_shard_size="300MB")
    write_tokenizer(tmp_path / "tokenizer")
    index = json.loads((tmp_path / "text_encoder" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del model

    encoder = TextEncoder.from_pretrained(tmp_path, torch.bfloat16)
    found = encoder.model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    embeddings, mask = encoder.encode(["a red house"])[:2]
    assert embeddings.shape == (1, 4, 4096)
    assert mask.all()
