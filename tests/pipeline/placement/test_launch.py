import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pixart_sigma.pipeline.placement.launch import announce, launch, verdict

# Workers that need no torch start in no time.
ANNOUNCING = """
import os, sys, time
from pixart_sigma.pipeline.placement.launch import announce
rank = int(os.environ["RANK"])
"""
STOPPING = """
import os, signal, sys, time
from pathlib import Path
def stop(number, frame):
    time.sleep(1)  # as long as a checkpoint takes
    Path(f"stopped-{os.environ['RANK']}").write_text(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
Path(f"ready-{os.environ['RANK']}").touch()
time.sleep(60)
"""
PARENT = """
import sys
from pixart_sigma.pipeline.placement.launch import launch
sys.exit(launch(2, [], "worker"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and where workers' modules are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def write_worker(folder: Path, text: str) -> None:
    (folder / "worker.py").write_text(text, "utf-8")


def test_processes_get_their_arguments_and_torchruns_environment(folder: Path) -> None:
    write_worker(
        folder,
        "import os, sys\nfrom pathlib import Path\n"
        "names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE')\n"
        "Path('seen-' + os.environ['RANK']).write_text(' '.join([os.environ[n] for n in names] + sys.argv[1:]))",
    )
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert launch(2, ["a", "--b=$c"], "worker") == 0
    assert (folder / "seen-0").read_text() == "0 0 2 2 a --b=$c"
    assert (folder / "seen-1").read_text() == "1 1 2 2 a --b=$c"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert "RANK" not in os.environ


def test_processes_meet(folder: Path) -> None:
    write_worker(
        folder,
        "import torch, torch.distributed as dist\nfrom pathlib import Path\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.tensor(dist.get_rank() + 1.0)\ndist.all_reduce(total)\n"
        "Path(f'total-{dist.get_rank()}').write_text(str(float(total)))\ndist.destroy_process_group()\n",
    )
    assert launch(2, [], "worker") == 0
    assert [(folder / f"total-{rank}").read_text() for rank in (0, 1)] == ["3.0", "3.0"]


def test_a_file_in_the_users_folder_is_not_a_module_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "json.py").write_text("raise SystemExit(9)")
    write_worker(folder, "import json")
    assert launch(2, [], "worker") == 0


def test_what_all_processes_say_is_told_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_worker(folder, ANNOUNCING + "announce('error: no such recipe')\ntime.sleep(0.5)\nsys.exit(2)")
    assert launch(3, [], "worker") == 2
    assert capfd.readouterr().err == "error: no such recipe\n"


def test_what_one_process_alone_says_is_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_worker(
        folder,
        ANNOUNCING + "if rank == 0: time.sleep(60)\nannounce('error: picture 7 is corrupt')\nsys.exit(2)",
    )
    began = time.monotonic()
    assert launch(2, [], "worker") == 2
    assert capfd.readouterr().err == "error: picture 7 is corrupt\n"
    assert time.monotonic() - began < 30  # process 0 was ended


def test_our_own_mistakes_keep_their_traceback(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_worker(folder, ANNOUNCING + "time.sleep(0 if rank else 60)\nraise ValueError('a mistake')")
    assert launch(2, [], "worker") == 1
    errors = capfd.readouterr().err
    assert "ValueError: a mistake" in errors
    assert errors.splitlines()[-1] == "error: process 1 failed, as it says above; the others were ended"


def test_a_killed_process_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_worker(folder, ANNOUNCING + "if rank == 0: time.sleep(60)\nos.kill(os.getpid(), 9)")
    assert launch(2, [], "worker") == 137
    errors = capfd.readouterr().err
    assert errors.startswith("error: process 1 was ended by SIGKILL")
    assert errors.endswith("; start again\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("sent", "received", "status"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGHUP, signal.SIGTERM, 129),
    ],
)
def test_a_signal_reaches_all_and_they_have_time(
    folder: Path, sent: signal.Signals, received: signal.Signals, status: int
) -> None:
    process = started_parent(folder, STOPPING)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == ""
    assert [(folder / f"stopped-{rank}").read_text() for rank in (0, 1)] == [str(int(received))] * 2


def test_a_second_signal_ends_what_does_not_stop(folder: Path) -> None:
    process = started_parent(folder, STOPPING.replace("time.sleep(1)", "time.sleep(50)"))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 137
    assert "was ended by SIGKILL" in errors


def started_parent(folder: Path, worker: str) -> subprocess.Popen[str]:
    """A process that has launched two workers, which are ready."""
    write_worker(folder, worker)
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while len(list(folder.glob("ready-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def test_announce_in_one_process_and_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    note = tmp_path / "note"
    announce("a line")
    assert capsys.readouterr().err == "a line\n"
    monkeypatch.setenv("RANK", "1")  # by somebody who reads no notes
    announce("a line")
    assert capsys.readouterr().err == "a line\n"
    # torchrun sets both; its file names the line in its own report.
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(note))
    monkeypatch.setenv("RANK", "1")
    announce("a line")
    assert capsys.readouterr().err == ""
    failure = ProcessFailure(1, 0, 2, str(note))
    assert failure.error_file_data["line"] == "a line"
    assert ChildFailedError("run", {1: failure}).format_msg().count("traceback : a line") == 1


@pytest.mark.parametrize(
    ("codes", "received", "status", "lines"),
    [
        ({}, None, 0, 0),
        ({}, signal.SIGTERM, 0, 0),  # they were done before it reached them
        ({0: 143, 1: 143}, signal.SIGTERM, 143, 0),
        ({0: -15, 1: 143}, signal.SIGTERM, 143, 0),
        ({0: 130}, signal.SIGINT, 130, 0),
        ({1: 143, 0: -15}, None, 143, 0),  # as Slurm does, which signals all processes of a step
        ({1: -2, 0: -15}, None, 130, 0),
        ({0: 143, 1: -9}, signal.SIGTERM, 137, 1),
        ({0: 1, 1: 143}, None, 1, 1),
        ({0: 143, 1: 1}, signal.SIGTERM, 1, 1),
        ({0: 1, 1: 2}, None, 2, 1),  # the refusal is the cause, the traceback what followed
        ({1: -40, 0: -15}, None, 168, 1),
    ],
)
def test_verdict(codes: dict[int, int], received: int | None, status: int, lines: int) -> None:
    failures: Any = {
        rank: SimpleNamespace(exitcode=code, error_file_data={"line": f"error: {rank}"} if code == 2 else {})
        for rank, code in codes.items()
    }
    found, told = verdict(failures, received)
    assert (found, len(told)) == (status, lines)
