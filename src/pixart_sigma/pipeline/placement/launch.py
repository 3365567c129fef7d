"""Several processes of one command on this machine, started and ended by torch's own launcher.

Each process has torchrun's environment (RANK, WORLD_SIZE, …), so that a command need not know who started it.
A signal to this process is passed on to all of them. Knows nothing of what they do.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import PContext
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

# How long a signalled process may take to write its checkpoint before it is killed.
GRACE_SECONDS = 60
BAD_INPUT = 2
# Where a process leaves a line for its launcher; torchrun shows it in its report.
_NOTE = "TORCHELASTIC_ERROR_FILE"
_LINE = "line"
_ADDRESS = "127.0.0.1"
_POLL_SECONDS = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# How a process ends that was told to stop, before it could handle the signal or after: exit code → signal.
_STOPPED = {code: number for number in (signal.SIGTERM, signal.SIGINT) for code in (-number, 128 + number)}


def announce(line: str) -> None:
    """A line for the user on stderr: from several processes that say the same, once.

    Process 0 writes it. Each leaves it for the launcher, which tells what process 0 did not; where no launcher will
    read it, each writes it.
    """
    note = os.environ.get(_NOTE)
    if os.environ.get("RANK", "0") == "0" or not note:
        sys.stderr.write(line + "\n")
    if "RANK" in os.environ and note:
        report = {"message": line, "extraInfo": {"py_callstack": line, "timestamp": str(int(time.time()))}}
        content = {"message": report, _LINE: line}  # torchrun reads the one, `verdict` the other
        Path(note).write_text(json.dumps(content), "utf-8")


def launch(
    nproc: int, arguments: list[str], module: str = "pixart_sigma", *, remedy: str = "start again"
) -> int:
    """`python -m module *arguments` in nproc processes → exit status. remedy: what to do if one was killed.

    0: all are done. 2: one refused its input, and its line is on stderr. 128 + the signal's number: all were told to
    stop and did, or one was killed, which a line tells. 1: one failed with a traceback of its own. When one fails,
    the others are ended. Nothing is started again.
    """
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, start_processes

    # What it has to say is told below, in one line instead of many.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    # The processes meet at a store of this one: a port that the system chose and nobody can take meanwhile.
    store = TCPStore(_ADDRESS, 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": str(nproc),
        "LOCAL_WORLD_SIZE": str(nproc),
        "MASTER_ADDR": _ADDRESS,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        # Left out, every process would start a thread for every core.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc))),
    }
    with tempfile.TemporaryDirectory(prefix="pixart-sigma-") as notes, _handlers_restored():
        try:
            context = start_processes(
                name="pixart-sigma",
                entrypoint=sys.executable,
                # -P: modules in the folder that the user happens to be in are not ours.
                args=dict.fromkeys(range(nproc), ("-P", "-m", module, *arguments)),
                envs={rank: shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(nproc)},
                logs_specs=DefaultLogsSpecs(log_dir=notes),
            )
        except SignalException as early:
            return 128 + int(early.sigval)
        received, failures = _wait(context)
    del store  # it has lived as long as they
    status, lines = verdict(failures, received, remedy)
    for line in lines:
        sys.stderr.write(line + "\n")
    return status


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """torch sets handlers that raise SignalException, and leaves them."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _wait(context: PContext) -> tuple[int | None, Mapping[int, ProcessFailure]]:
    """(the signal that this process received, or None; the processes that did not end with 0, by rank)."""
    from torch.distributed.elastic.multiprocessing import SignalException

    received = None
    try:
        context.wait(period=_POLL_SECONDS)
    except SignalException as first:  # raised by the handlers that torch installs
        received = int(first.sigval)
        # A hangup would kill them unheard.
        passed_on = signal.SIGINT if received == signal.SIGINT else signal.SIGTERM
        try:
            context.close(passed_on, GRACE_SECONDS)
        except SignalException:  # a second one: the user is in a hurry
            context.close(signal.SIGKILL)
    result = context.wait(timeout=0)
    return received, result.failures if result else {}


def verdict(
    failures: Mapping[int, ProcessFailure], received: int | None, remedy: str = "start again"
) -> tuple[int, list[str]]:
    """Processes that did not end with 0, by rank and the first to fail first → (exit status, lines for stderr).

    `received`: the signal that the launcher received and passed on, or None.
    """
    codes = {rank: failure.exitcode for rank, failure in failures.items()}
    refused = [rank for rank, code in codes.items() if code == BAD_INPUT]
    if refused:
        lines = dict.fromkeys(failures[rank].error_file_data.get(_LINE) for rank in refused)  # in order
        told = failures[0].error_file_data.get(_LINE) if 0 in failures else None
        return BAD_INPUT, [line for line in lines if line not in (None, told)]
    broken = [rank for rank, code in codes.items() if code not in _STOPPED]
    if broken:
        rank = broken[0]
        if codes[rank] > 0:
            return codes[rank], [f"error: process {rank} failed, as it says above; the others were ended"]
        return 128 - codes[rank], [
            f"error: process {rank} was ended by {_name(-codes[rank])}, perhaps for want of memory or time; "
            f"{remedy}"
        ]
    if codes and received is None:  # somebody signalled the processes themselves
        received = _STOPPED[next(iter(codes.values()))]
    return (128 + received, []) if codes and received is not None else (0, [])


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
