"""Options that several suites have, and what becomes of a suite that ran."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixart_sigma.errors import PixArtSigmaError

if TYPE_CHECKING:
    from pixart_sigma.benchmark.outcome import Outcome

Scenarios = Annotated[
    list[str] | None,
    typer.Option(
        "--scenario",
        help="One of the suite's scenarios, by name; may be repeated. Default: all, but those of hours.",
    ),
]
Dtypes = Annotated[
    list[str] | None, typer.Option("--dtype", help="float32 or bfloat16; may be repeated. Default: both.")
]
Device = Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")]
Rounds = Annotated[int, typer.Option(help="Timed runs of each row; their median counts.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")]
MarkdownFile = Annotated[Path | None, typer.Option("--markdown", help="Write the table to this file too.")]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Also time both sides compiled, and their compilation; of a waterfall, a last row."
    ),
]
Batch = Annotated[
    int, typer.Option(help="Pictures (or prompts) at once, all different; times are those of all.")
]
Waterfall = Annotated[
    bool,
    typer.Option(
        "--waterfall",
        help="Instead: everything switched off, then one optimisation more a row, each beside the row before.",
    ),
]


def conclude(outcome: "Outcome") -> None:
    """Print the table. Raises PixArtSigmaError, which says which, if rows failed."""
    print(outcome.text)
    if outcome.failures:
        raise PixArtSigmaError(
            f"{len(outcome.failures)} of the rows failed and have no figures: {'; '.join(outcome.failures)}"
        )


def say(line: str) -> None:
    """What is going on, for whoever waits."""
    print(line, file=sys.stderr, flush=True)
