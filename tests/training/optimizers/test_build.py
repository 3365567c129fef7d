import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from comparison import relative_error
from pixart_sigma.encoders.t5 import T5Config, T5Encoder
from pixart_sigma.errors import MissingDependency, RecipeError
from pixart_sigma.model import PixArtTransformer, TransformerConfig
from pixart_sigma.training.optimizers import CAME, build_optimizers
from pixart_sigma.training.recipe.process import OptimizerRecipe
from ranks import run_ranks

TINY = TransformerConfig(
    num_layers=2, num_attention_heads=2, attention_head_dim=4, caption_channels=6, sample_size=4
)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = PixArtTransformer(TINY)
    muon, adamw = build_optimizers(
        model, OptimizerRecipe(kind="muon", learning_rate=1e-3, matrix_learning_rate=2e-2)
    )
    names = {id(weight): name for name, weight in model.named_parameters()}
    matrices = {names[id(weight)] for group in muon.param_groups for weight in group["params"]}
    others = {names[id(weight)] for group in adamw.param_groups for weight in group["params"]}
    assert matrices | others == set(names.values())
    assert not matrices & others
    assert all(name.startswith("transformer_blocks.") and name.endswith(".weight") for name in matrices)
    assert "transformer_blocks.0.scale_shift_table" in others
    assert "proj_out.weight" in others
    # Self-attention and cross-attention have four each, the MLP two.
    assert len(matrices) == 2 * 10
    peaks = [optimizer.param_groups[0]["peak"] for optimizer in (muon, adamw)]
    assert peaks == [2e-2, 1e-3]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize(("rate", "expected"), [(None, 1e-3), (0.1, 0.1)])
def test_relative_positions_have_a_rate_of_their_own(kind: str, rate: float | None, expected: float) -> None:
    model = T5Encoder(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2))
    settings: dict[str, Any] = {"kind": kind, "learning_rate": 1e-3, "position_learning_rate": rate}
    optimizers = build_optimizers(model, OptimizerRecipe(**settings))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = {id(weight): group["peak"] for group in groups for weight in group["params"]}
    assert len(peaks) == len(list(model.parameters()))
    assert peaks.pop(id(model.encoder.positions)) == expected
    assert set(peaks.values()) == {1e-3}


@pytest.mark.parametrize("kind", ["came", "adamw-8bit"])
def test_a_rate_of_positions_is_not_ignored(kind: str) -> None:
    with pytest.raises(ValueError, match="position_learning_rate is ignored"):
        OptimizerRecipe(kind=kind, position_learning_rate=0.1)


def test_a_rate_of_positions_needs_some() -> None:
    recipe = OptimizerRecipe(position_learning_rate=0.1)
    with pytest.raises(RecipeError, match="position_learning_rate is ignored where no text encoder"):
        build_optimizers(nn.Linear(2, 2), recipe)


@pytest.mark.parametrize("kind", ["came", "adamw", "adamw-8bit", "muon"])
def test_frozen_weights_are_left_out(kind: str) -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (optimizer,) = build_optimizers(model, OptimizerRecipe(kind=kind))
    (group,) = optimizer.param_groups
    assert [weight is model.weight for weight in group["params"]] == [True]


@pytest.mark.parametrize("kind", ["came", "adamw", "adamw-8bit", "muon"])
def test_a_model_without_anything_to_train_is_refused(kind: str) -> None:
    with pytest.raises(RecipeError, match="at least one trainable parameter"):
        build_optimizers(nn.Linear(2, 2).requires_grad_(False), OptimizerRecipe(kind=kind))


def test_each_kind_has_its_defaults() -> None:
    model = nn.Linear(2, 2)
    (optimizer,) = build_optimizers(model, OptimizerRecipe(kind="came", learning_rate=2e-5))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, CAME)
    assert (group["betas"], group["eps"]) == ((0.9, 0.999, 0.9999), (1e-30, 1e-16))
    assert (group["lr"], group["peak"], group["clip_threshold"]) == (2e-5, 2e-5, 1.0)
    for kind in ("adamw", "adamw-8bit"):
        (optimizer,) = build_optimizers(model, OptimizerRecipe(kind=kind))
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"]) == ((0.9, 0.99), 1e-8)


def test_what_the_recipe_says_goes_before_the_defaults() -> None:
    model = nn.Linear(2, 2)
    came = OptimizerRecipe(kind="came", betas=(0.8, 0.9, 0.95), eps=(1e-20, 1e-10), weight_decay=0.1)
    adamw = OptimizerRecipe(kind="adamw", betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1)
    for recipe in (came, adamw, OptimizerRecipe(**adamw.model_dump() | {"kind": "adamw-8bit"})):
        (optimizer,) = build_optimizers(model, recipe)
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == (recipe.betas, recipe.eps, 0.1)


def test_adamw_in_eight_bits_stays_near_adamw() -> None:
    # bitsandbytes keeps tensors of fewer than 4096 elements in fp32.
    models = [nn.Linear(128, 128), nn.Linear(128, 128)]
    models[1].load_state_dict(models[0].state_dict())
    start = models[0].weight.detach().clone()
    for model, kind in zip(models, ("adamw-8bit", "adamw"), strict=True):
        (optimizer,) = build_optimizers(model, OptimizerRecipe(kind=kind, learning_rate=1e-2))
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            for weight in model.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
    states = {value.dtype for value in optimizer.state[models[1].weight].values()}
    assert states == {torch.float32}
    moved, expected = (model.weight.detach() - start for model in models)
    assert float((moved - expected).norm() / expected.norm()) < 0.1


def test_adamw_in_eight_bits_names_the_package_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match="pip install bitsandbytes"):
        build_optimizers(nn.Linear(2, 2), OptimizerRecipe(kind="adamw-8bit"))


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def half_sharded() -> nn.Linear:
    model = nn.Linear(3, 5)
    mesh = init_device_mesh("cpu", (1,))
    model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh, [Shard(0)]))
    return model


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("kind", ["came", "adamw"])
def test_sharded_and_whole_weights_are_trained_side_by_side(kind: str) -> None:
    model = half_sharded()
    before = [weight.detach().clone() for weight in model.parameters()]
    (optimizer,) = build_optimizers(model, OptimizerRecipe(kind=kind))
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for weight, old in zip(model.parameters(), before, strict=True):
        assert not torch.equal(weight, old)


@pytest.mark.usefixtures("one_process")
def test_adamw_in_eight_bits_refuses_sharded_weights() -> None:
    with pytest.raises(
        RecipeError, match="adamw-8bit does not work with sharded parameters; use strategy ddp"
    ):
        build_optimizers(half_sharded(), OptimizerRecipe(kind="adamw-8bit"))


class Blocks(nn.Module):
    """Rows that 3 does not divide, and a bias of which one of three ranks has nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.ModuleList([nn.Linear(6, 7)])
        self.out = nn.Linear(7, 2)


def trained(model: nn.Module, kind: str) -> dict[str, Tensor]:
    optimizers = build_optimizers(model, OptimizerRecipe(kind=kind, learning_rate=1e-2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
            if dist.is_initialized():
                weight.grad = distribute_tensor(
                    weight.grad, weight.device_mesh, weight.placements, src_data_rank=None
                )
        for optimizer in optimizers:
            optimizer.step()
    return {
        name: weight.detach().full_tensor() if dist.is_initialized() else weight.detach()
        for name, weight in model.named_parameters()
    }


def trained_on_ranks() -> dict[str, dict[str, Tensor]]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {kind: trained(fully_shard(Blocks(), mesh=mesh), kind) for kind in ("came", "adamw", "muon")}


def test_every_kind_computes_the_same_with_sharded_weights() -> None:
    reference = {kind: trained(Blocks(), kind) for kind in ("came", "adamw", "muon")}
    # Muon iterates in bf16.
    limits = {"came": 1e-6, "adamw": 1e-6, "muon": 5e-3}
    for result in run_ranks(3, trained_on_ranks):
        for kind, weights in result.items():
            for name, weight in weights.items():
                assert relative_error(weight, reference[kind][name]) <= limits[kind], (kind, name)
