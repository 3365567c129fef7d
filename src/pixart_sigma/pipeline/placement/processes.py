"""The processes of a run, as torchrun starts them, and the few words they exchange beside gradients.

Knows nothing of models. A run that torchrun did not start, or of one process, talks to nobody.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.device import resolve_device

PATIENCE = timedelta(days=2)
"""The others wait while the first one reads a data set. When one fails, its launcher ends the others without this."""

_REMEDY = "start with torchrun, or unset WORLD_SIZE for a single process"


@dataclass(frozen=True)
class Processes:
    """This process among the `world` of them; `local_rank` counts on its machine. All of them call each method."""

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks to the user."""
        return self.rank == 0

    def summed(self, values: Sequence[float]) -> list[float]:
        """Numbers, as many on every process → their sums over the processes, in fp64. One collective."""
        if self.world == 1:
            return list(values)
        # In host memory, where gloo serves whatever the device: the numbers come from Python and go back there.
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def gathered(self, value: Any) -> list[Any]:
        """Any small picklable value → everybody's, by rank."""
        values: list[Any] = [value]
        if self.world > 1:
            values = [None] * self.world
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Around what the first process makes and the others find made."""
        if not self.first:
            self.gathered(None)
        yield
        if self.first:
            self.gathered(None)


ALONE = Processes(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
"""One process that talks to nobody, for work that does not ask it for a device."""


@contextmanager
def joined(device: str, patience: timedelta = PATIENCE) -> Iterator[Processes]:
    """`with joined("auto") as processes:` the process group of torchrun's environment, left again at the end.

    device: as in a recipe, "auto", "cpu", "cuda"; each process takes the GPU of its local rank. patience: how long a
    process waits for the others. Without WORLD_SIZE, or where it is 1, this is a single process, whatever else the
    environment says. Raises InvalidInput where the device is absent, the environment is half there, or GPUs are fewer
    than processes.
    """
    world = _from_environment("WORLD_SIZE", 1)
    if world == 1:
        yield Processes(rank=0, world=1, local_rank=0, device=resolve_device(device))
        return
    rank, local_rank = _place_in(world)
    own = _own_device(device, local_rank)
    if own.type == "cuda":
        torch.cuda.set_device(own)
        # gloo beside nccl: checkpoints and small talk go through host memory.
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=own, timeout=patience)
    else:
        dist.init_process_group("gloo", timeout=patience)
    # Not destroyed after an error: with nccl that waits for the other processes, which may wait for this one.
    # The process is about to end, and torchrun then ends the others.
    yield Processes(rank, world, local_rank, own)
    dist.destroy_process_group()


def _own_device(device: str, local_rank: int) -> torch.device:
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        return _own_gpu(local_rank)
    own = resolve_device(device)
    if own.type == "cuda":
        raise InvalidInput(
            f"device {device} names one GPU for several processes; use cuda (in a recipe: run.device)"
        )
    return own


def _own_gpu(local_rank: int) -> torch.device:
    """Tried out by itself: on another one each process would leave some hundred megabytes."""
    if not torch.cuda.is_available():
        return resolve_device("cuda")  # which says so
    if local_rank >= torch.cuda.device_count():
        raise InvalidInput(
            f"process {local_rank} of this machine has no GPU, there are {torch.cuda.device_count()}; start as many "
            "processes as GPUs (torchrun --nproc-per-node)"
        )
    return resolve_device(f"cuda:{local_rank}")


def _place_in(world: int) -> tuple[int, int]:
    """→ (rank, local rank) of one of several processes, whose environment is seen to be whole."""
    rank, local_rank = _from_environment("RANK"), _from_environment("LOCAL_RANK")
    _from_environment("MASTER_PORT")  # torch reads it, and the address
    if "MASTER_ADDR" not in os.environ:
        raise InvalidInput(f"the environment variable MASTER_ADDR is not set; {_REMEDY}")
    if rank >= world:
        raise InvalidInput(
            f"the environment variables RANK {rank} and WORLD_SIZE {world} do not fit; {_REMEDY}"
        )
    return rank, local_rank


def _from_environment(name: str, default: int | None = None) -> int:
    value = os.environ.get(name)
    if value is None and default is not None:
        return default
    if value is None or not value.isdecimal():
        found = "is not set" if value is None else f"is {value!r}, not a number"
        raise InvalidInput(f"the environment variable {name} {found}; {_REMEDY}")
    return int(value)
