from typing import Any

from pixart_sigma.benchmark.inference.summary import summarise

ROW: dict[str, Any] = {
    "scenario": "sigma-256",
    "dtype": "bfloat16",
    "flops": 4e9,
    "matrix_rate": 8e9,
    "failed": None,
    "text_layers": "6 of 24",
    "gate": {"errors": {"latents": 0.001, "pixels": 0.02}, "tolerance": 0.1},
    "speed": {"estimate": 1.5, "low": 1.4, "high": 1.7},
    "sides": {
        "diffusers": {
            "seconds": [3.0, 2.0, 9.0],
            "stages": {"text": [1.0, 0.5, 4.0]},
            "peak_bytes": 2 * 2**20,
            "warm_up_seconds": 5.0,
        },
        "ours": {
            "seconds": [2.0, 2.0, 1.0],
            "stages": {"decode": [1.0, 0.5, 0.6], "text": [0.1, 0.1, 0.1]},
            "peak_bytes": None,
            "warm_up_seconds": 5.0,
        },
    },
}


def test_a_scenario_has_a_row_for_each_side() -> None:
    theirs, ours = summarise([ROW])
    assert theirs == {
        "scenario": "sigma-256 (text layers: 6 of 24)",
        "dtype": "bfloat16",
        "side": "diffusers",
        "s": 3.0,
        "fastest": 2.0,
        "speed": "1.00x",
        "text": 1.0,
        "decode": None,
        "peak MiB": 2,
        "of matrix rate": "17%",
        "matrix GFLOP/s": 8.0,
        "gate": "2.0e-02",
    }
    assert ours["speed"] == "1.50x (1.40 to 1.70)"
    assert ours["of matrix rate"] == "25%"
    assert (ours["s"], ours["fastest"], ours["decode"], ours["peak MiB"]) == (2.0, 1.0, 0.6, None)


def test_a_failed_scenario_has_its_reason_and_no_figures() -> None:
    failed = {
        "scenario": "sigma-512",
        "dtype": "float32",
        "flops": 1.0,
        "failed": "the two sides differ: x 1",
    }
    rows = summarise([ROW, failed])
    assert rows[2].keys() == rows[0].keys()
    assert rows[2]["gate"] == "failed: the two sides differ: x 1"
    assert rows[2]["s"] is None
    assert rows[2]["speed"] is None


def test_compiled_rows_are_marked_and_never_stand_unmarked_beside_eager_ones() -> None:
    sides = {name: side | {"empty_cache_warm_up_seconds": 60.0} for name, side in ROW["sides"].items()}
    rows = summarise([ROW, ROW | {"mode": "compiled", "sides": sides}])
    assert [row["mode"] for row in rows] == ["eager", "eager", "compiled", "compiled"]
    assert [row["first run s, empty cache"] for row in rows] == [None, None, 60.0, 60.0]
    assert [row["first run s, warm cache"] for row in rows] == [None, None, 5.0, 5.0]
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
