from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.placement.processes import Processes, joined

SCRIPT = """
import json, pathlib, sys
import torch.distributed as dist
from pixart_sigma.pipeline.placement.processes import joined

with joined("auto") as processes:
    result = {
        "rank": processes.rank,
        "world": processes.world,
        "local_rank": processes.local_rank,
        "device": str(processes.device),
        "first": processes.first,
        "summed": processes.summed([processes.rank + 0.25, 2.0**60, 1.0]),
        "gathered": processes.gathered(f"record-{processes.rank}"),
        "backend": dist.get_backend(),
    }
result["left"] = not dist.is_initialized()
pathlib.Path(sys.argv[1], f"{result['rank']}.json").write_text(json.dumps(result))
"""


def test_torchrun_starts_processes_that_know_each_other(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # The hidden GPUs of a machine that has some: two processes may not share one.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result == {
            "rank": rank,
            "world": 2,
            "local_rank": rank,
            "device": "cpu",
            "first": rank == 0,
            "summed": [1.5, 2.0**61, 2.0],
            "gathered": ["record-0", "record-1"],
            "backend": "gloo",
            "left": True,
        }


@pytest.mark.parametrize("world", [None, "1"])
def test_one_process_talks_to_nobody(monkeypatch: pytest.MonkeyPatch, world: str | None) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    with joined("cpu") as processes:
        assert processes == Processes(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
        assert processes.summed([1.5, 2.0]) == [1.5, 2.0]
        assert processes.gathered("a") == ["a"]
        assert not dist.is_initialized()


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(InvalidInput, match=r"RANK is not set; .*torchrun, or unset WORLD_SIZE"),
        joined("cpu"),
    ):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InvalidInput, match=r"WORLD_SIZE is 'two'.*torchrun"), joined("cpu"):
        pass


WHOLE = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LOCAL_RANK": None}, "LOCAL_RANK is not set"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": None}, "MASTER_PORT is not set"),
        ({"RANK": "2"}, "RANK 2 and WORLD_SIZE 2 do not fit"),
        ({"RANK": "-1"}, "RANK is '-1', not a number"),
        ({"WORLD_SIZE": "0"}, "RANK 1 and WORLD_SIZE 0 do not fit"),
    ],
    ids=str,
)
def test_an_environment_is_whole_or_refused_before_anybody_is_waited_for(
    changes: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (WHOLE | changes).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=f"{message}; start with torchrun"), joined("cpu"):
        pass


def test_a_rank_alone_is_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    with joined("cpu") as processes:
        assert (processes.world, processes.first) == (1, True)


def test_processes_take_the_gpu_of_their_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: what is refused before one is touched."""
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    module = "pixart_sigma.pipeline.placement.processes.resolve_device"
    for device, message in (
        ("cuda", "process 1 of this machine has no GPU, there are 1"),
        ("cuda:0", "use cuda"),
    ):
        monkeypatch.setattr(module, torch.device)
        with pytest.raises(InvalidInput, match=message), joined(device):
            pass
