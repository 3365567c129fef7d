"""The command table, and the one place where errors become a line on stderr and an exit status.

Knows nothing of tensors; each subcommand has a file of its own.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer
from typer.exceptions import TyperException

import pixart_sigma
from pixart_sigma.cli.benchmark import benchmark
from pixart_sigma.cli.compare_precision import compare_precision
from pixart_sigma.cli.convert import convert
from pixart_sigma.cli.evaluate import evaluate
from pixart_sigma.cli.generate import generate
from pixart_sigma.cli.models import models
from pixart_sigma.cli.recipes import recipes
from pixart_sigma.cli.reproduce import reproduce
from pixart_sigma.cli.train import train
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.pipeline.placement.launch import BAD_INPUT, announce

DISTRIBUTIONS = {"PIL": "pillow", "google": "protobuf"}
"""Where the package to install is not called what is imported."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(generate)
app.command()(models)
app.command()(convert)
app.command()(train)
app.command()(evaluate)
app.command()(compare_precision)
app.command()(reproduce)
app.add_typer(recipes, name="recipes")
app.add_typer(benchmark, name="benchmark")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(pixart_sigma.__version__)
        raise typer.Exit


@app.callback()
def _table(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """PixArt-Σ: text to image with a diffusion transformer."""


def run(arguments: Sequence[str]) -> int:
    """Arguments without the program's name → exit status: 0, 2 for bad input, 130 when interrupted."""
    # Where it is installed, diffusers imports it, and it logs that an optional kernel is absent.
    logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _show_warning
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        return app(list(arguments), prog_name="pixart-sigma", standalone_mode=False) or 0
    except TyperException as error:  # what typer finds wrong with the arguments
        if not error.format_message():  # a command without a subcommand: its help was printed
            return BAD_INPUT
        return _fail(f"{error.format_message().rstrip('.')}; see pixart-sigma --help")
    except PixArtSigmaError as error:
        return _fail(str(error))
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "pixart_sigma"):
            raise  # not the user's environment but our mistake
        name = DISTRIBUTIONS.get(package, package)
        return _fail(f"the package {package!r} is missing or broken; install it: pip install {name}")
    except OSError as error:
        return _fail(
            f"{error.filename or 'a file'}: {error.strerror or error}; check the path and the space left"
        )
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # then torch is there already
            from pixart_sigma.pipeline.memory.shortage import is_shortage

            if not is_shortage(error):
                raise
        return _fail(
            "the memory does not suffice; make the picture smaller, or fewer at a time (when training: "
            "--set run.accumulate=8, --set parallel.activation_checkpointing=full)"
        )


def _fail(message: str) -> int:
    announce(f"error: {' '.join(message.split())}")
    return BAD_INPUT


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
