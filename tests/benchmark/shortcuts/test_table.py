from typing import Any

from pixart_sigma.benchmark.figures import render
from pixart_sigma.benchmark.shortcuts.shortcuts_table import summarise

NOTHING = dict.fromkeys(
    ("failed", "exact_seconds", "seconds", "equal", "psnr", "ssim", "adherence", "adherence_change", "fid")
)


def interval(estimate: float, low: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high}


EXACT: dict[str, Any] = NOTHING | {
    "scenario": "exact",
    "options": "",
    "adherence": interval(0.5, 0.4, 0.6),
    "fid": 12.345,
}
REUSE: dict[str, Any] = NOTHING | {
    "scenario": "reuse-2",
    "options": "--reuse-blocks 2",
    "exact_seconds": [2.0, 2.0, 4.0],
    "seconds": [1.0, 1.0, 1.0],
    "equal": 3,
    "psnr": interval(25.04, 24.0, 26.0),
    "ssim": interval(0.9, 0.8876, 0.95),
    "adherence": interval(0.48, 0.38, 0.58),
    "adherence_change": interval(-0.02, -0.05, 0.01),
    "fid": 15.0,
}
INT8: dict[str, Any] = REUSE | {"scenario": "int8", "options": "--int8", "exact_seconds": [6.0, 6.0, 6.0]}


def test_each_is_beside_the_exact_picture_of_its_own_rounds() -> None:
    exact, reuse, int8 = summarise([EXACT, REUSE, INT8])
    assert (exact["s"], exact["fastest"]) == (5.0, 2.0)  # of all rounds: 2 2 4 6 6 6
    assert (exact["speed"], exact["PSNR dB"], exact["its change, points"]) == (None, None, None)
    assert exact["prompt adherence"] == "50% (40% to 60%)"
    assert reuse["speed"].startswith("2.00x (")
    assert int8["speed"] == "6.00x (6.00 to 6.00)"
    assert (reuse["equal pictures"], exact["equal pictures"]) == (3, None)
    assert reuse["PSNR dB"] == "25.0 (24.0 to 26.0)"
    assert reuse["SSIM"] == "0.900 (0.888 to 0.950)"
    assert reuse["its change, points"] == "-2.0 (-5.0 to +1.0)"
    assert reuse["FID"] == "15.000"


def test_lossy_rows_have_a_table_of_their_own_and_failures_their_reason() -> None:
    figures = {
        "suite": "shortcuts",
        "machine": "a CPU",
        "date": "2026-01-02",
        "versions": {},
        "options": {"prompts": 2},
        "rows": [EXACT, NOTHING | {"scenario": "int8", "options": "--int8", "failed": "no such unit"}],
    }
    page = render(figures)
    exact, others = page.split("Not exact:")
    assert "| shortcut | options | prompt adherence | FID |" in exact
    assert "| none | - | 50% (40% to 60%) | 12.345 |" in exact
    assert "| shortcut | options |" in others
    assert "| int8 | failed: no such unit |" in others
