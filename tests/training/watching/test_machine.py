import getpass
import json
import mmap
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from pixart_sigma.training.watching import machine
from pixart_sigma.training.watching.machine import describe_machine, memory_in_use, write_machine


def test_the_machine_is_described_for_a_report() -> None:
    rows = describe_machine(world_size=3)
    assert rows["Processes"] == "3"
    assert rows["torch"] == torch.__version__
    assert "core" in rows["Processor"]
    assert rows["Memory"].endswith(" GiB")
    assert rows["System"].endswith(platform.python_version())
    assert all(words and words == " ".join(words.split()) for words in rows.values())


def test_nothing_tells_whose_machine_it_is(tmp_path: Path) -> None:
    write_machine(tmp_path / "machine.json")
    text = (tmp_path / "machine.json").read_text("utf-8")
    assert json.loads(text) == describe_machine()
    names = {platform.node(), getpass.getuser(), str(Path.home()), str(Path(__file__).parents[3])} - {""}
    words = text.lower().replace('"', " ").replace(",", " ").split()
    assert not names & set(words)
    assert "/" not in text


def test_gpus_of_one_kind_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name = "Some GPU"
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    assert describe_machine()["GPU"] == "8 × Some GPU (80 GiB)"


def test_a_checkout_has_its_commit_and_what_has_none_is_no_error(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    assert machine._commit(tmp_path) is None
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert machine._commit(tmp_path) == f"({head[:12]})"
    (tmp_path / "file").write_text("two")
    assert machine._commit(tmp_path) == f"({head[:12]}-dirty)"
    assert machine._commit(None) is None


def test_memory_on_the_cpu_is_that_of_the_process() -> None:
    # A map of its own, which no memory freed by another test can serve.
    with mmap.mmap(-1, 2**28) as taken:
        before = memory_in_use(torch.device("cpu"))
        for page in range(0, 2**28, mmap.PAGESIZE):
            taken[page] = 1
        grown = memory_in_use(torch.device("cpu")) - before
    assert 250 * 2**20 < grown < 300 * 2**20
