"""`pixart-sigma convert`: a transformer from one format into another, bit by bit. Knows nothing of tensors.

What can be refused without opening the weights is refused before torch is imported.
"""

from pathlib import Path
from typing import Annotated

import typer

from pixart_sigma.weights.folder import caption_length, find_pipeline
from pixart_sigma.weights.formats import Format, check_dtype, check_source_stays, check_target


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="A released model, a Hub id, a folder, a .pth or a .safetensors."),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="A folder for diffusers, a .pth, or a .safetensors.")
    ],
    to: Annotated[Format, typer.Option(help="The format of DST.")],
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="The moving average of a .pth instead of its weights.")
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="For a file that does not say: the released model, or a folder, whose sizes it has.",
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. Default: as it is in SRC.")
    ] = None,
    null_caption: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where SRC has none: a .pth or null_caption.safetensors that has it."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit, where SRC is on the Hub.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
) -> None:
    """Convert a transformer between the official, diffusers' and the single-file format."""
    check_dtype(dtype)
    check_target(target, to, overwrite)  # before a source is fetched
    folders = find_pipeline(source, revision=revision, parts=("transformer",))
    check_source_stays(target, to, folders.transformer)
    from pixart_sigma.weights.convert import convert as convert_weights

    written = convert_weights(
        folders.transformer,
        target,
        to,
        ema=ema,
        like=like,
        dtype=dtype,
        null_caption=null_caption,
        caption_length=caption_length(folders),
    )
    print(written)
