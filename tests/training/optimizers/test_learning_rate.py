import pytest
import torch
from torch import nn

from pixart_sigma.training.optimizers import rate_factor, set_rate
from pixart_sigma.training.recipe.process import RateRecipe


def test_the_rate_warms_up_to_its_peak_with_the_last_step() -> None:
    rate = RateRecipe(warmup_steps=10)
    factors = [rate_factor(step, rate, 110, 1) for step in (0, 4, 9, 10, 109)]
    assert factors == pytest.approx([0.1, 0.5, 1.0, 1.0, 1.0])


def test_without_a_warm_up_it_starts_at_its_peak() -> None:
    assert rate_factor(0, RateRecipe(kind="cosine"), 100, 1) == 1.0


@pytest.mark.parametrize(
    ("kind", "quarter"), [("cosine", 0.1 + 0.9 * 0.8535534), ("linear", 0.1 + 0.9 * 0.75)]
)
def test_the_rate_falls_to_its_floor(kind: str, quarter: float) -> None:
    rate = RateRecipe(kind=kind, warmup_steps=10, final=0.1)
    factors = [rate_factor(step, rate, 110, 1) for step in (9, 10, 35, 60, 110, 500)]
    assert factors == pytest.approx([1.0, 1.0, quarter, 0.55, 0.1, 0.1])


def test_the_rate_grows_with_the_square_root_of_the_batch() -> None:
    rate = RateRecipe(kind="linear", warmup_steps=2, reference_batch_size=64)
    factors = [rate_factor(step, rate, 12, 256) for step in (0, 1, 7)]
    assert factors == pytest.approx([1.0, 2.0, 1.0])
    assert rate_factor(1, rate, 12, 16) == pytest.approx(0.5)


def test_a_run_that_ends_within_its_warm_up_never_reaches_its_peak() -> None:
    assert rate_factor(4, RateRecipe(kind="cosine", warmup_steps=10), 5, 1) == pytest.approx(0.5)


def test_every_group_follows_its_own_peak() -> None:
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": [weights[0]], "peak": 2e-2}, {"params": [weights[1]], "peak": 1e-3}]
    )
    set_rate([optimizer], 0.5)
    set_rate([optimizer], 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3, 2.5e-4]
