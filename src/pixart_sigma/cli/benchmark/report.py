"""The page on performance, from its text and the figures beside it."""

from pathlib import Path
from typing import Annotated

import typer


def write_report(
    folder: Annotated[Path, typer.Argument(help="A folder with page.md and the files that --json wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of the terminal.")
    ] = None,
) -> None:
    """Put figures into the page on performance."""
    from pixart_sigma.benchmark.report import render_page
    from pixart_sigma.weights.atomic import check_writable, written_whole

    if output is not None:
        check_writable(output)
    page = render_page(folder)
    if output is None:
        print(page, end="")
        return
    with written_whole(output) as temporary:
        temporary.write_text(page, "utf-8")
