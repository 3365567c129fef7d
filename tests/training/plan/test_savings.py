import pytest

from pixart_sigma.model import TransformerConfig
from pixart_sigma.training.plan.savings import kv_savings, predicted_saving, render_savings

XL = TransformerConfig()


def test_half_of_the_blocks_cannot_save_more_than_their_share() -> None:
    # Three quarters of the scores, in half of the blocks.
    assert predicted_saving(XL, 4096, 4, 1e-4) == pytest.approx(0.375, abs=2e-3)
    assert predicted_saving(XL, 4096, 4, 1.0) < 0.375


def test_at_2k_attention_at_a_fifth_gives_the_papers_figure() -> None:
    assert round(predicted_saving(XL, 2048, 4, 0.2), 2) == 0.34
    assert round(predicted_saving(XL, 2048, 4, 1.0), 2) == 0.25


@pytest.mark.parametrize("side", [512, 1024, 2048, 4096])
def test_more_is_saved_with_the_ratio(side: int) -> None:
    savings = [predicted_saving(XL, side, ratio, 1.0) for ratio in (1, 2, 4, 9)]
    assert savings == sorted(savings)
    assert savings[0] == 0


def test_the_fitting_rate_gives_the_papers_figure() -> None:
    for row in kv_savings():
        assert row.fitting_rate is not None
        assert predicted_saving(XL, row.side, row.ratio, row.fitting_rate) == pytest.approx(row.paper)


def test_the_table_has_a_line_for_each_row() -> None:
    lines = render_savings(kv_savings((1.0,)), (1.0,)).splitlines()
    assert len(lines) == 2 + 9
    assert lines[2 + 5].startswith("| 2048² | 4 | training | -34 % | -25 % |")
    assert len({line.count("|") for line in lines}) == 1
