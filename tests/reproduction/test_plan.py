import pytest

from pixart_sigma.reproduction.plan import NAMES, estimate, plan, samples_per_second
from pixart_sigma.training.recipe import load_recipe


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_everything_can_be_planned(name: str, fast: bool) -> None:
    lines = plan(name, 2, fast)
    assert lines[0].startswith(f"{name}: ")
    assert "Rates of two cores" in lines[-1] or "no training" in lines[-1]


def test_the_stated_rate_is_that_of_nine_million_weights_at_64_tokens() -> None:
    assert samples_per_second(9e6, 128) == pytest.approx(28)
    assert samples_per_second(4.5e6, 128) == pytest.approx(56)
    # A caption's tokens stay as many.
    assert 28 / 4 < samples_per_second(9e6, 256) < 28 / 3.5


def test_an_estimate_knows_the_model_that_a_training_starts_from() -> None:
    base = estimate(load_recipe("study-base"), None)
    assert (base.steps, base.samples, base.side) == (1500, 96_000, 64)
    assert base.weights == 6 * 16 * 192**2
    raised = estimate(load_recipe("study-tune"), base)
    assert (raised.weights, raised.side) == (base.weights, 128)
    assert raised.seconds == pytest.approx(300 * 32 / samples_per_second(base.weights, 128))


def test_seeds_multiply_what_is_seeded() -> None:
    two, four = (
        next(line for line in plan("captions", num, False) if line.startswith(f"{num} seeds"))
        for num in (2, 4)
    )
    assert "for 20 times 190 pictures" in two
    assert "for 40 times 190 pictures" in four
    once = [line for line in plan("fig8", 2, False) if "once for all seeds" in line]
    assert [line.split(":")[0].strip() for line in once] == ["autoencoder"]
