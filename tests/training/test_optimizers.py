import pytest
from torch import nn

from pixart_sigma.model import PixArtTransformer, TransformerConfig
from pixart_sigma.training.optimizers import MovingAverage, build_optimizers, rate_factor, set_rate
from pixart_sigma.training.recipe import OptimizerRecipe, RunRecipe

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
    assert (muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"]) == (2e-2, 1e-3)


def test_frozen_weights_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (adamw,) = build_optimizers(model, OptimizerRecipe())
    assert [weight is model.weight for group in adamw.param_groups for weight in group["params"]] == [True]
    assert set(MovingAverage(model, 0.9).tensors) == {"weight"}


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    run = RunRecipe(steps=110, batch_size=1, warmup_steps=10, final_rate=0.1)
    assert rate_factor(0, run) == pytest.approx(0.1)
    assert rate_factor(9, run) == rate_factor(10, run) == 1.0
    assert rate_factor(60, run) == pytest.approx(0.55)
    assert rate_factor(110, run) == pytest.approx(0.1)


def test_the_rate_scales_every_groups_own_peak() -> None:
    optimizers = build_optimizers(
        PixArtTransformer(TINY), OptimizerRecipe(kind="muon", learning_rate=1e-3, matrix_learning_rate=2e-2)
    )
    set_rate(optimizers, 0.5)
    set_rate(optimizers, 0.25)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == [5e-3, 2.5e-4]


def test_the_average_follows_and_swaps() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = MovingAverage(model, 0.9)
    model.weight.data.fill_(1.0)
    average.update(10_000)
    assert float(average.tensors["weight"]) == pytest.approx(0.1)
    average.swap()
    assert (model.weight.item(), float(average.tensors["weight"])) == pytest.approx((0.1, 1.0))
    average.swap()
    assert (model.weight.item(), float(average.tensors["weight"])) == pytest.approx((1.0, 0.1))


def test_the_average_soon_forgets_where_it_began() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = MovingAverage(model, 0.999)
    model.weight.data.fill_(1.0)
    for step in range(50):
        average.update(step)
    assert float(average.tensors["weight"]) > 0.99
