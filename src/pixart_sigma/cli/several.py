"""One command as several processes: whether it may be, and what to tell them. Knows nothing of what they do."""

import os
from collections.abc import Collection

import typer

from pixart_sigma.errors import InvalidInput


def check_processes(nproc: int) -> None:
    """Raises InvalidInput for less than one, and within a process that was started as one of several."""
    if nproc < 1:
        raise InvalidInput(
            f"--nproc-per-node {nproc} is less than 1; give the number of processes, one a GPU"
        )
    if "RANK" in os.environ:
        raise InvalidInput(
            f"--nproc-per-node {nproc} within a process that a launcher started (RANK {os.environ['RANK']}); "
            "give it to torchrun instead"
        )


def is_one_of_several() -> bool:
    """Whether a launcher started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def same_command(context: typer.Context, without: Collection[str]) -> list[str]:
    """The command that is running and what it was given, but for the parameters named → arguments for another one."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in without or value is None or value == parameter.default:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
        elif value is True:
            options.append(parameter.opts[0])
        else:
            values = value if isinstance(value, list | tuple) else [value]
            options += [f"{parameter.opts[0]}={one}" for one in values]
    # Behind the dashes a prompt may begin with one.
    return [context.info_name or "", *options, "--", *arguments]
