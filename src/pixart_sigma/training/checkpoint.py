"""Checkpoints: a folder per step, written beside the training by all processes, renamed once it is complete.

folder/step-NNNNNNNN/
    shard-*.safetensors   weights that are trained, their moving average, the optimisers' tensors
    state.json            whatever the loop notes (the step, …) and what optimisers hold beside tensors
    recipe.toml           how the run was made

torch.distributed.checkpoint does the work, in its safetensors format: its usual one keeps an index that is unpickled,
this one is read without running anything. A checkpoint of some number of processes can be loaded by another number,
sharded or not. While it is written its folder is `.step-NNNNNNNN.writing`, which is never loaded. What an optimiser's
groups hold (rates, betas) is the recipe's business and not stored.
Knows nothing of recipes but for their text. All processes call each method; the folder is one that all of them see.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.checkpoint.storage import WriteResult

from pixart_sigma.errors import PixArtSigmaError, WeightsError
from pixart_sigma.pipeline.placement.processes import Processes

# A file is put together in memory before it is written; this bounds what that takes.
_FILE_BYTES = 2**30


class Average(Protocol):
    """The moving average of the weights that are trained, by their names."""

    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds; the model as it was before ddp wrapped it."""

    model: nn.Module
    average: Average
    optimizers: Sequence[torch.optim.Optimizer]


class Checkpoints:
    """The checkpoints of a run; at most one is being written at a time.

    After each one all but the newest `keep_last` are deleted, and those whose step is a multiple of `keep_every`
    stay. Folders that an earlier run left half-written are removed at once.
    """

    def __init__(
        self, folder: Path, processes: Processes, keep_last: int, keep_every: int | None = None
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._writing: tuple[int, Future[Any]] | None = None
        self._newest_step: int | None = None
        # A group of its own: its collectives run in a thread, beside those of the training.
        self._group = dist.new_group(backend="gloo") if processes.world > 1 else None
        if processes.first:
            for leftover in folder.glob(".step-*"):
                shutil.rmtree(leftover)
        self._barrier()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A run that fails leaves the checkpoint that it was writing complete, if that can be."""
        if error is not None and self._writing is not None:
            self._writing[1].exception()

    def finished(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return finished_checkpoints(self._folder)

    def newest(self) -> Path | None:
        """The newest complete checkpoint, the same for all processes."""
        found = self.finished()
        return self._processes.gathered(found[-1] if found else None)[0]

    def save(self, step: int, state: TrainingState, notes: dict[str, Any], recipe: str) -> None:
        """Begin to write the state after `step` steps, and return once it is copied; training may go on.

        notes: what JSON holds, given back by `load`. Waits for the checkpoint before this one, and raises
        PixArtSigmaError on all processes if that could not be written. A step that is there already is left alone.
        """
        self.wait()
        if step == self._newest_step:
            return
        tensors, others = _split(_named(state))
        texts = {"state.json": json.dumps({"notes": notes, "optimizers": others}), "recipe.toml": recipe}
        writer = _Writer(self._folder, step, _file_numbers(tensors), texts, self._prune)
        _hush_single_process()
        future = dcp.async_save(
            tensors,
            storage_writer=writer,
            process_group=self._group,
            no_dist=self._group is None,
            async_stager=BlockingAsyncStager(),
        )
        self._writing = (step, future)

    def poll(self) -> None:
        """Once a step: raise PixArtSigmaError on all processes together if the last checkpoint failed.

        One small collective a step while a checkpoint is being written, none at other times.
        """
        if self._writing is not None:
            unfinished = not self._writing[1].done()
            if self._processes.summed([float(unfinished)])[0] == 0:
                self.wait()

    def wait(self) -> None:
        """Return when no checkpoint is being written. Raises as `save`; what was half-written is removed then."""
        if self._writing is None:
            return
        step, future = self._writing
        self._writing = None
        error = future.exception()
        if error is None:
            self._newest_step = step
            return
        if self._processes.first:
            shutil.rmtree(_aside(self._folder, step), ignore_errors=True)
        self._barrier()
        reason = _first_failure(error)
        if not isinstance(reason, OSError):
            raise error
        found = self.finished()
        remedy = f"resume from {found[-1].name}" if found else "start again"
        raise PixArtSigmaError(
            f"checkpoint {_name(step)} could not be written to {self._folder}: {reason.strerror or reason}; make room "
            f"or choose another folder, and {remedy}"
        ) from error

    def load(self, path: Path, state: TrainingState) -> dict[str, Any]:
        """Restore everything in place, bit for bit, and return the notes.

        The state may be spread otherwise over the processes than when it was saved. Raises WeightsError if the
        checkpoint is damaged, or was made of other weights or with another optimiser.
        """
        reader = HuggingFaceStorageReader(str(path))
        with _damage_reported(path):
            stored: dict[str, TensorStorageMetadata] = reader.read_metadata().state_dict_metadata
            texts = json.loads((path / "state.json").read_text("utf-8"))
            notes, others = texts["notes"], texts["optimizers"]
        _prepare(state)
        tensors, places = _split(_named(state))
        absent = _stateless(state, stored.keys() | others.keys())
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(absent)}
        places = {name: value for name, value in places.items() if not name.startswith(absent)}
        _check_fit(path, stored, tensors, others.keys(), places.keys())
        _hush_single_process()
        with _damage_reported(path):
            dcp.load(tensors, storage_reader=reader, process_group=self._group, no_dist=self._group is None)
        for prefix, optimizer, weight in _optimized(state):
            if prefix in absent:
                optimizer.state.pop(weight, None)
            for key in optimizer.state.get(weight, {}):
                if prefix + key in others:
                    optimizer.state[weight][key] = others[prefix + key]
        self._newest_step = int(path.name.removeprefix("step-"))
        return notes

    def _prune(self) -> None:
        for old in self.finished()[: -self._keep_last]:
            if not self._keep_every or int(old.name.removeprefix("step-")) % self._keep_every:
                shutil.rmtree(old, ignore_errors=True)

    def _barrier(self) -> None:
        if self._group is not None:
            dist.barrier(self._group)


def finished_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, which need not be there, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


class _Writer(HuggingFaceStorageWriter):
    """Writes aside; the first process, told that all have written, adds the texts and gives the final name."""

    def __init__(
        self,
        folder: Path,
        step: int,
        file_numbers: dict[str, int],
        texts: dict[str, str],
        prune: Callable[[], None],
    ) -> None:
        self._aside = _aside(folder, step)
        self._final = folder / _name(step)
        self._texts = texts
        self._prune = prune
        super().__init__(str(self._aside), fqn_to_index_mapping=file_numbers, save_distributed=True)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        for name, text in self._texts.items():
            (self._aside / name).write_text(text, "utf-8")
        if self._final.exists():  # of a run that was continued from before this step
            shutil.rmtree(self._final)
        self._aside.rename(self._final)
        self._prune()


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _aside(folder: Path, step: int) -> Path:
    return folder / f".{_name(step)}.writing"


def _named(state: TrainingState) -> dict[str, Any]:
    """Everything to store by name: tensors, which are those in use and not copies, and optimisers' other values."""
    named: dict[str, Any] = {}
    for name, weight in state.model.named_parameters():
        if weight.requires_grad:
            named[f"weights.{name}"] = weight.detach()
    named |= {f"average.{name}": tensor for name, tensor in state.average.tensors.items()}
    for prefix, optimizer, weight in _optimized(state):
        named |= {prefix + key: value for key, value in optimizer.state.get(weight, {}).items()}
    return named


def _optimized(state: TrainingState) -> Iterator[tuple[str, torch.optim.Optimizer, nn.Parameter]]:
    """Every weight that an optimiser has: the prefix of what is stored about it, the optimiser, the weight."""
    names = {weight: name for name, weight in state.model.named_parameters()}
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                yield f"optimizer.{names[weight]}.", optimizer, weight


def _split(named: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in named.items() if name not in tensors}


def _file_numbers(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Which file, from 1, each tensor goes to; sizes are those of whole tensors, so all processes agree."""
    numbers, number, filled = {}, 1, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if filled and filled + size > _FILE_BYTES:
            number, filled = number + 1, 0
        numbers[name] = number
        filled += size
    return numbers


def _prepare(state: TrainingState) -> None:
    """Let fresh optimisers make their tensors, spread as their weights are, by torch's step with zero gradients.

    Whatever that step leaves in weights and state, loading overwrites.
    """
    for optimizer in state.optimizers:
        optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)
        get_optimizer_state_dict(state.model, optimizer)


def _stateless(state: TrainingState, stored: Collection[str]) -> tuple[str, ...]:
    """The prefixes of weights that had no optimiser state yet when the checkpoint was made."""
    return tuple(
        prefix for prefix, _, _ in _optimized(state) if not any(name.startswith(prefix) for name in stored)
    )


def _check_fit(
    path: Path,
    stored: dict[str, TensorStorageMetadata],
    tensors: dict[str, Tensor],
    stored_others: Collection[str],
    others: Collection[str],
) -> None:
    """Raises WeightsError unless names, shapes and dtypes are the same, and all parts of every tensor are there."""
    wanted: dict[str, Any] = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    found: dict[str, Any] = {name: (entry.size, entry.properties.dtype) for name, entry in stored.items()}
    wanted |= dict.fromkeys(others)
    found |= dict.fromkeys(stored_others)
    different = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name, "") != found.get(name, "")
    )
    if different:
        what = "another optimiser" if different[0].startswith("optimizer.") else "other weights"
        raise WeightsError(
            f"checkpoint {path} has {what} than this recipe makes ({len(different)} differ, as {different[0]}); "
            f"resume with {path / 'recipe.toml'}"
        )
    for name, entry in stored.items():
        if sum(chunk.sizes.numel() for chunk in entry.chunks) != entry.size.numel():
            raise WeightsError(
                f"checkpoint {path} lacks parts of {name}; resume from the checkpoint before it"
            )


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (CheckpointException, OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        reason = _first_failure(error)
        raise WeightsError(
            f"checkpoint {path} cannot be read ({reason}); delete it, to resume from the one before"
        ) from error


def _first_failure(error: BaseException) -> BaseException:
    """What went wrong on the first process on which something did; torch wraps it, even on a single one."""
    while isinstance(error, CheckpointException):
        error = min(error.failures.items())[1][0]
    return error


def _hush_single_process() -> None:
    # torch says at every save and load that a single process has nobody to talk to, as if that were a mistake.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
