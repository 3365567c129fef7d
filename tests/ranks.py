"""Runs a function of a test file on several gloo processes of this machine and returns what each of them returned.

    def summed(value: int) -> int: ...
    assert run_ranks(2, summed, 5) == [10, 10]

The function is found in its file by name, in fresh interpreters; inside it `torch.distributed` is initialised. Its
arguments and results are pickled. A process that fails makes the call fail, with that process's traceback.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 240


def run_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The results of `function(*arguments)` on ranks 0 … world - 1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "arguments").write_bytes(pickle.dumps(arguments))
        processes = []
        for rank in range(world):
            environment = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            }
            source = function.__code__.co_filename
            command = [sys.executable, __file__, source, function.__name__, str(folder)]
            with (folder / f"stderr-{rank}").open("w") as errors:
                processes.append(subprocess.Popen(command, env=environment, stderr=errors))
        try:
            codes = [process.wait(TIMEOUT_SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            told = "\n".join((folder / f"stderr-{rank}").read_text() for rank in failed)
            raise AssertionError(f"ranks {failed} failed with {[codes[rank] for rank in failed]}\n{told}")
        return [pickle.loads((folder / f"result-{rank}").read_bytes()) for rank in range(world)]


def _main(source: str, name: str, folder: Path) -> None:
    import torch.distributed as dist

    spec = importlib.util.spec_from_file_location("ranked", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranked"] = module
    spec.loader.exec_module(module)
    dist.init_process_group("gloo")
    result = getattr(module, name)(*pickle.loads((folder / "arguments").read_bytes()))
    (folder / f"result-{dist.get_rank()}").write_bytes(pickle.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
