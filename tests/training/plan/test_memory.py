import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.training.optimizers import build_optimizers
from pixart_sigma.training.parallel.activations import recompute_activations
from pixart_sigma.training.plan.activations import MicroBatch
from pixart_sigma.training.plan.cost import LoraShape, T5Shape, parameter_shapes
from pixart_sigma.training.plan.memory import Sharding, frozen_bytes, optimizer_bytes, rank_memory
from pixart_sigma.training.recipe.process import OptimizerRecipe

XL = TransformerConfig()
SMALL = TransformerConfig(
    num_layers=3,
    num_attention_heads=4,
    attention_head_dim=32,
    sample_size=32,
    caption_channels=64,
    kv_compression=KVCompression((2, 2), "conv", (2,)),
)
BATCH = MicroBatch(4, 256, 256, 300)


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations made and that are still alive, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        given = {id_of(leaf) for leaf in tree_leaves((arguments, named)) if isinstance(leaf, torch.Tensor)}
        result = function(*arguments, **(named or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and id_of(leaf) not in given | self._known:
                self._watch(leaf.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def id_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_activations_agree_with_the_peak_of_a_step(checkpointing: Any) -> None:
    config = TransformerConfig(
        num_layers=6, num_attention_heads=4, attention_head_dim=32, sample_size=32, caption_channels=64
    )
    batch = MicroBatch(4, 256, 256, 60)
    model = PixArtTransformer(config)
    model.initialise_weights()
    recompute_activations(list(model.transformer_blocks), checkpointing)
    embeddings = torch.randn(4, 60, 64)
    latents = torch.randn(4, 4, 32, 32)
    with LiveBytes() as live:
        with torch.autocast("cpu", torch.bfloat16):
            captions = model.prepare_captions(embeddings, torch.ones(4, 60, dtype=torch.bool))
            output = model(latents, captions, model.prepare_timesteps(torch.arange(4)))
            loss = output.float().square().mean()
        del captions, output
        loss.backward()
    plain: Any = {"checkpointing": checkpointing, "kernel": "plain"}  # a CPU and few tokens
    memory = rank_memory(config, batch, 8, Sharding(), **plain)
    # The peak is at the beginning of the backward pass, when there are no gradients yet.
    assert memory.activations + memory.copies == pytest.approx(live.peak, rel=0.1)
    if checkpointing != "none":
        assert memory.copies < rank_memory(config, batch, 8, Sharding()).copies


@pytest.mark.parametrize("kind", ["came", "adamw", "adamw-8bit", "muon"])
def test_the_optimisers_keep_as_much(kind: Any) -> None:
    model = PixArtTransformer(SMALL)
    optimizers = build_optimizers(model, OptimizerRecipe(kind=kind))
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    for optimizer in optimizers:
        optimizer.step()
    kept = 0
    for optimizer in optimizers:
        for state in optimizer.state.values():
            # The quantisation maps of 8-bit state are one for all weights; a step count is a number.
            tensors = {name: value for name, value in state.items() if not name.startswith("qmap")}
            kept += sum(
                value.nbytes for value in tensors.values() if torch.is_tensor(value) and value.numel() > 1
            )
    assert optimizer_bytes(kind, parameter_shapes(SMALL)) == pytest.approx(kept, rel=0.005)


def test_shards_divide_what_stays_and_nothing_else() -> None:
    single = rank_memory(XL, BATCH, 8, Sharding())
    sharded = rank_memory(XL, BATCH, 8, Sharding("fsdp", 8))
    replicated = rank_memory(XL, BATCH, 8, Sharding("ddp", 8))
    assert single == replicated
    assert single.parameters == 4 * 610_856_096
    assert single.optimizer == 2 * single.parameters
    for part in ("parameters", "gradients", "optimizer", "average"):
        assert getattr(sharded, part) == getattr(single, part) / 8
    assert sharded.activations == single.activations
    assert sharded.copies < single.copies
    groups = rank_memory(XL, BATCH, 8, Sharding("hsdp", 32, 8))
    assert groups == sharded
    with pytest.raises(InvalidInput, match=r"parallel.shard_size 5 does not divide 32 ranks"):
        rank_memory(XL, BATCH, 8, Sharding("hsdp", 32, 5))


def test_came_and_8_bit_states_are_smaller_than_adamw() -> None:
    sizes = {
        kind: rank_memory(XL, BATCH, 8, Sharding(), kind).optimizer
        for kind in ("adamw", "muon", "came", "adamw-8bit")
    }
    assert list(sizes) == sorted(sizes, key=lambda kind: -sizes[kind])
    assert sizes["came"] == pytest.approx(sizes["adamw"] / 2, rel=0.01)
    assert sizes["adamw-8bit"] == pytest.approx(sizes["adamw"] / 4, rel=0.03)


def test_an_adapter_needs_little_beside_its_frozen_base() -> None:
    lora = LoraShape(16, ("attn1.to_q", "attn1.to_v"))
    memory = rank_memory(XL, BATCH, 8, Sharding(), lora=lora, lora_base="bf16")
    num_adapters = 28 * 2 * 16 * 2 * 1152
    assert memory.parameters == 2 * 610_856_096 + 4 * num_adapters
    assert memory.optimizer == 8 * num_adapters
    assert memory.copies == 0
    shapes = parameter_shapes(XL)
    sizes = [frozen_bytes(shapes, base) for base in ("nf4", "int8", "bf16", "fp32")]
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(0.5625 * 610_856_096, rel=0.02)


def test_encoders_count_where_they_run() -> None:
    memory: Callable[..., Any] = rank_memory
    without = memory(XL, BATCH, 8, Sharding())
    with_text = memory(XL, BATCH, 8, Sharding("fsdp", 8), text_encoder=T5Shape())
    assert without.encoders == 0
    assert with_text.encoders == 2 * 4_762_310_656
