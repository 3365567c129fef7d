from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor

from pixart_sigma.benchmark.training.switches import attention
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.training.plan.activations import MicroBatch, activations

CONFIG = {
    "num_layers": 4,
    "num_attention_heads": 3,
    "attention_head_dim": 32,
    "sample_size": 32,
    "caption_channels": 64,
}
BATCH = MicroBatch(batch_size=3, height=128, width=192, caption_tokens=70)


def saved_bytes(config: TransformerConfig, bf16: bool, kernel: AbstractContextManager[None]) -> int:
    """What autograd keeps in one forward pass, but for weights and their bf16 copies, each storage once."""
    model = PixArtTransformer(config)
    model.initialise_weights()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    copies = {weight.numel() for weight in model.parameters() if weight.ndim > 1}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        of_a_weight = tensor.ndim == 2 and tensor.numel() in copies and tensor.dtype == torch.bfloat16
        if storage.data_ptr() not in weights and not (of_a_weight and bf16):
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    mask = (torch.arange(BATCH.caption_tokens) < BATCH.caption_tokens).expand(3, -1)
    embeddings = torch.randn(3, BATCH.caption_tokens, config.caption_channels)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        kernel,
    ):
        captions = model.prepare_captions(embeddings, mask)
        timesteps = model.prepare_timesteps(torch.tensor([3, 500, 900]))
        output = model(torch.randn(3, 4, BATCH.height // 8, BATCH.width // 8), captions, timesteps)
        output.float().square().mean()
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("kernel", ["fused", "plain"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_norm": True},
        {"kv_compression": KVCompression((2, 1), "conv", (1, 2, 3))},
        {"kv_compression": KVCompression((2, 2), "conv", (1, 2, 3))},
        {"kv_compression": KVCompression((2, 2), "average", (0, 1, 2, 3))},
        {"kv_compression": KVCompression((1, 2), "nearest", (0, 1, 2, 3))},
    ],
    ids=["plain", "qk-norm", "conv", "conv by tokens", "average", "nearest"],
)
def test_it_agrees_with_what_autograd_saves(precision: Any, kernel: Any, options: dict[str, Any]) -> None:
    config = TransformerConfig(**CONFIG, **options)
    measured = saved_bytes(config, precision == "bf16", attention(kernel))
    predicted = activations(config, BATCH, 8, precision, "none", kernel).saved
    print(predicted / measured)
    assert predicted == pytest.approx(measured, rel=0.05)


def test_checkpointing_keeps_less() -> None:
    config = TransformerConfig()
    batch = MicroBatch(4, 512, 512, 300)
    kept = {kind: activations(config, batch, 8, checkpointing=kind) for kind in ("none", "selective", "full")}
    assert kept["full"].total < 0.25 * kept["none"].total
    assert kept["full"].total < kept["selective"].total < 0.7 * kept["none"].total
    # One input a block, and everything of one block at a time.
    tokens = 4 * 1024 * 1152
    assert kept["full"].saved > 28 * 4 * tokens
    assert kept["full"].working > 58 * tokens
