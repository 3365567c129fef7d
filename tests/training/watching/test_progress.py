import time

import pytest
import torch

from pixart_sigma.training.watching.progress import Progress, report_stage


class Clock:
    """Stands in for time.perf_counter; moves only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def steps(progress: Progress, clock: Clock, num: int, seconds: float) -> None:
    for _ in range(num):
        clock.now += seconds
        progress.advance()


def test_a_line_tells_step_figures_speed_memory_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(1000, 0, batch_size=8) as progress:
        steps(progress, clock, 100, 0.5)
        progress.log(100, {"loss": 0.123456, "gradient_norm": 2.0})
    line = capsys.readouterr().out.strip()
    start, memory, left = line.rsplit("  ", 2)
    assert start == "step 100/1,000  loss 0.1235  gradient_norm 2  16.0 samples/s"
    assert left == "0:07:30 left"
    assert memory.endswith(" GiB")
    assert 0.01 < float(memory.removesuffix(" GiB")) < 1000


def test_a_pause_does_not_count(clock: Clock) -> None:
    progress = Progress(1000, 0, batch_size=4)
    steps(progress, clock, 10, 1.0)
    progress.log(10, {})
    clock.now += 500  # validation
    progress.pause()
    assert progress.speed() == pytest.approx(4)
    steps(progress, clock, 5, 0.5)
    assert progress.speed() == pytest.approx(8)
    clock.now += 500  # a checkpoint within a stretch
    progress.pause()
    steps(progress, clock, 2, 1.0)
    assert progress.speed() == pytest.approx(4)


def test_the_speed_is_that_of_the_last_stretch_and_not_of_the_whole(clock: Clock) -> None:
    progress = Progress(1000, 0, batch_size=1)
    steps(progress, clock, 10, 9.0)
    progress.log(10, {})
    steps(progress, clock, 10, 0.5)
    assert progress.speed() == pytest.approx(2)


def test_nothing_is_said_of_time_before_a_step_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(10, 0, batch_size=1).log(0, {})
    assert "left" not in capsys.readouterr().out


def test_a_terminal_gets_a_bar(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with Progress(40, 20, batch_size=8) as progress:
        steps(progress, clock, 10, 0.5)
        progress.log(30, {"loss": 0.5})
        progress.say("kept [bold]as it is[/bold]")
    shown = capsys.readouterr().out
    assert "30/40" in shown
    assert "0:00:05 left" in shown
    assert "loss 0.5  16.0 samples/s" in shown
    assert "kept [bold]as it is[/bold]" in shown


def test_quiet_ranks_measure_and_say_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(10, 0, batch_size=2, device=torch.device("cpu"), quiet=True) as progress:
        steps(progress, clock, 2, 1.0)
        assert progress.speed() == pytest.approx(2)
        progress.log(2, {"loss": 1.0})
        progress.say("hello")
    report_stage("drawing", quiet=True)(3, 3)
    assert capsys.readouterr().out == ""


def test_a_stage_reports_now_and_then_and_at_its_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_stage("drawing", every_seconds=10)
    for done in range(1, 2001):
        clock.now += 0.012
        report(done, 2000)
    assert capsys.readouterr().out.splitlines() == [
        "drawing: 834 of 2,000",
        "drawing: 1,668 of 2,000",
        "drawing: 2,000 of 2,000",
    ]
