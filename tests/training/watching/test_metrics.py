import json
from pathlib import Path

import pytest

from pixart_sigma.training.watching.metrics import Metrics, read_metrics


def test_a_line_is_a_json_object_with_step_seconds_and_figures(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    metrics.write(10, {"loss": 0.5})
    metrics.event(11, "skipped step", "a … b")
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert [line.pop("seconds") >= 0 for line in lines] == [True, True]
    assert lines == [{"step": 10, "loss": 0.5}, {"step": 11, "event": "skipped step", "detail": "a … b"}]
    assert [record["step"] for record in read_metrics(path)] == [10, 11]


def test_what_is_not_finite_is_null_and_not_a_word_that_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Metrics(path, 0).write(1, {"loss": float("nan"), "gradient_norm": float("inf"), "mse": 1.0})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    record = json.loads(path.read_text(), parse_constant=refuse)
    assert (record["loss"], record["gradient_norm"], record["mse"]) == (None, None, 1.0)


def test_a_resumed_run_drops_what_is_beyond_its_checkpoint_and_the_clock_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "seconds": 10.0 * step, "loss": 1.0 / step} for step in (2, 4, 6, 8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "seco')
    metrics = Metrics(path, 4)
    metrics.write(6, {"loss": 0.0})
    records = read_metrics(path)
    assert records[:2] == lines[:2]
    assert [(record["step"], record.get("event"), record.get("loss")) for record in records[2:]] == [
        (4, "resumed", None),
        (6, None, 0.0),
    ]
    assert records[2]["detail"] == "4 steps done again"
    assert 40 <= records[2]["seconds"] <= records[3]["seconds"] < 60
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_fresh_run_was_not_resumed(tmp_path: Path) -> None:
    Metrics(tmp_path / "metrics.jsonl", 0).write(1, {"loss": 1.0})
    assert not any("event" in record for record in read_metrics(tmp_path / "metrics.jsonl"))


@pytest.mark.parametrize("rest", [b'{"step": 3, "sec', b'{"step": 3}', b"3", b"\xff\x00", b'{"a": "\xe2'])
def test_a_line_that_is_no_record_is_left_out(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 2, "seconds": 1.0}\n' + rest)
    assert read_metrics(path) == [{"step": 2, "seconds": 1.0}]


def test_the_quiet_ranks_leave_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 9, "seconds": 1.0}\n')
    quiet = Metrics(path, 4, quiet=True)
    quiet.write(6, {"loss": 0.0})
    quiet.event(6, "resumed")
    assert path.read_text() == '{"step": 9, "seconds": 1.0}\n'


def test_nan_of_an_earlier_version_is_read_as_null_and_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "seconds": 1.0, "loss": NaN, "mse": 1.0}\n')
    Metrics(path, 2)
    assert read_metrics(path)[0] == {"step": 2, "seconds": 1.0, "loss": None, "mse": 1.0}
