from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls  # type: ignore[import-untyped]

from pixart_sigma.benchmark.growth import compression_table, scaling_table
from pixart_sigma.benchmark.growth.fit import Fit, fit_growth, non_negative_least_squares
from pixart_sigma.benchmark.growth.plot import draw, plot_growth

GATE = {"errors": {"prediction": 2e-6}, "tolerance": 1e-4}
COMPRESSION: dict[str, Any] = {
    "scenario": "xl-4-blocks-2k",
    "dtype": "bfloat16",
    "tokens": 16384,
    "keys": 4096,
    "blocks": [2, 4],
    "failed": None,
    "rates": {"matrix": 4e11, "whole": 1e11, "compressed": 9e10},
    "ways": {
        "R = 1": {"seconds": [10.0, 11.0, 30.0], "gate": GATE},
        "2x2 conv": {
            "seconds": [6.0, 6.5, 7.0],
            "gate": GATE,
            "predicted": [
                {"attention": 5.5, "products": -0.5},
                {"attention": 5.4, "products": -0.5},
                {"attention": 5.9, "products": -0.6},
            ],
        },
    },
}


def test_the_saving_stands_beside_the_predicted_one() -> None:
    whole, conv = compression_table.summarise([COMPRESSION])
    assert (conv["way"], conv["exact"]) == ("2x2 conv", False)
    assert whole["saved s"] is None
    assert whole["of the predicted saving"] is None
    assert (conv["s"], conv["saved s"], conv["predicted s"]) == (6.5, 4.5, 5.0)
    assert conv["of the predicted saving"].startswith("90% (")
    assert conv["attention GFLOP/s, N x M"] == 90.0
    assert conv["gate"] == "2.0e-06"


def test_nothing_is_a_share_of_no_saving() -> None:
    predicted = [{"attention": 0.1, "products": -0.2}] * 3
    ways = COMPRESSION["ways"] | {"2x2 conv": COMPRESSION["ways"]["2x2 conv"] | {"predicted": predicted}}
    assert compression_table.summarise([COMPRESSION | {"ways": ways}])[1]["of the predicted saving"] is None


def test_a_failed_scenario_has_its_reason_and_no_figures() -> None:
    failed = {name: value for name, value in COMPRESSION.items() if name not in ("rates", "ways")}
    rows = compression_table.summarise([COMPRESSION, failed | {"failed": "killed"}])
    assert rows[2]["gate"] == "failed: killed"
    assert rows[2].keys() == rows[0].keys()


def test_the_fit_finds_the_parts_and_none_is_negative() -> None:
    tokens = [256, 1024, 4096, 16384]
    fit = fit_growth(tokens, [0.01 + 1e-4 * count + 2e-8 * count**2 for count in tokens])
    assert fit is not None
    assert (fit.constant, fit.linear, fit.quadratic) == pytest.approx((0.01, 1e-4, 2e-8))
    # A line through these would begin below zero.
    bent = fit_growth([1, 2, 3], [1.0, 4.0, 9.0])
    assert bent is not None
    assert (bent.constant, bent.linear, bent.quadratic) == pytest.approx((0, 0, 1), abs=1e-9)
    assert min(fit_growth([1, 2, 4], [3.0, 2.0, 1.0]).__dict__.values()) >= 0
    assert fit_growth([1, 2, 2], [1.0, 2.0, 2.0]) is None


def test_the_fit_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    negative = 0
    for rows in (3, 3, 4, 5, 6, 6, 6, 6):
        columns = random.uniform(0, 1, (rows, 3)) ** [1, 2, 3]
        wanted = random.uniform(0.5, 2, rows)
        found = non_negative_least_squares(columns, wanted)
        assert found == pytest.approx(nnls(columns, wanted)[0], abs=1e-9)
        negative += bool((np.linalg.lstsq(columns, wanted, rcond=None)[0] < 0).any())
    assert 0 < negative < 8
    assert non_negative_least_squares(np.eye(3), -np.ones(3)).tolist() == [0, 0, 0]


def scaling_row(tokens: int, timed: bool, dtype: str = "float32") -> dict[str, Any]:
    row: dict[str, Any] = {
        "scenario": f"of {tokens}",
        "dtype": dtype,
        "size": [tokens, 256],
        "tokens": tokens,
        "keys": tokens // 4,
        "blocks": [2, 4],
        "flops": {"R = 1": 1e9 * tokens, "2x2 conv": 5e8 * tokens},
        "failed": None,
    }
    if timed:
        seconds = {"R = 1": 0.1 * tokens**2, "2x2 conv": 0.1 * tokens}
        ways = {way: {"seconds": [time, time, 9e9], "gate": GATE} for way, time in seconds.items()}
        row |= {"rates": COMPRESSION["rates"], "ways": ways}
    return row


SCALING = [scaling_row(tokens, tokens <= 16) for tokens in (4, 16, 8, 64)]


def test_sizes_that_were_not_timed_are_marked() -> None:
    rows = [row for row in scaling_table.summarise(SCALING) if row["way"] == "R = 1"]
    assert [(row["tokens"], row["kind"]) for row in rows] == [
        (4, "measured"),
        (8, "measured"),
        (16, "measured"),
        (64, "extrapolated"),
    ]
    assert rows[0]["s"] == pytest.approx(1.6)
    assert rows[0]["fit error"] in ("+0%", "-0%")
    assert rows[3]["s"] is None
    assert rows[3]["fit s"] == pytest.approx(0.1 * 64**2)
    assert rows[3]["at the matrix rate s"] == pytest.approx(64e9 / 4e11)
    assert scaling_table.note(SCALING).startswith("Fits, N tokens: float32, R = 1: ")
    two = scaling_table.summarise(SCALING[:2])
    assert {row["fit s"] for row in two} == {None}
    assert scaling_table.note(SCALING[:2]) == "Too few sizes for a fit."


def test_a_size_that_failed_has_its_reason() -> None:
    failed = scaling_row(32, False) | {"failed": "out of memory"}
    (row, *_) = (row for row in scaling_table.summarise([*SCALING, failed]) if row["tokens"] == 32)
    assert row["kind"] == "failed: out of memory"
    assert row["s"] is None


def test_the_plot_has_points_a_fit_and_what_lies_beyond(tmp_path: Path) -> None:
    rows = [*SCALING, *(scaling_row(tokens, True, "bfloat16") for tokens in (4, 8, 16))]
    left, right = draw(scaling_table.curves(rows)).axes
    labels = left.get_legend_handles_labels()[1]
    for way in ("R = 1", "2x2 conv"):
        assert {
            f"{way}, {kind}" for kind in ("measured", "fit", "extrapolated", "FLOP / matrix rate")
        } <= set(labels)
    assert "R = 1, extrapolated" not in right.get_legend_handles_labels()[1]
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    points = left.lines[labels.index("R = 1, measured")]
    assert list(points.get_xdata()) == [4, 8, 16]
    plot_growth(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_fit_is_readable() -> None:
    assert str(Fit(0.5, 1e-4, 2e-8)) == "0.5 s + 0.0001 s x N + 2e-08 s x N²"
