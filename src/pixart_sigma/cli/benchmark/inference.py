"""The suites that time making pictures and their parts, beside diffusers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pixart_sigma.cli.benchmark.options import (
    Batch,
    Compile,
    Device,
    Dtypes,
    JsonFile,
    MarkdownFile,
    Rounds,
    Scenarios,
    Waterfall,
    conclude,
    say,
)
from pixart_sigma.pipeline.samplers import DEFAULT_STEPS

if TYPE_CHECKING:
    from pixart_sigma.benchmark.inference.scenarios import Suite
    from pixart_sigma.benchmark.waterfall.measure import Suite as WaterfallSuite


def time_pipeline(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    steps: Annotated[int, typer.Option(help="Denoising steps of a picture.")] = DEFAULT_STEPS,
    batch: Batch = 1,
    compile_: Compile = False,
    waterfall: Waterfall = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A picture from its prompt, beside diffusers' pipeline, by stage."""
    _run(
        "pipeline",
        scenario,
        dtype,
        device,
        rounds,
        steps,
        batch,
        json_file,
        markdown_file,
        compile_,
        waterfall,
    )


def time_transformer(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    batch: Batch = 1,
    compile_: Compile = False,
    waterfall: Waterfall = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """XL/2's forward pass with guidance, beside diffusers' transformer."""
    _run(
        "transformer",
        scenario,
        dtype,
        device,
        rounds,
        None,
        batch,
        json_file,
        markdown_file,
        compile_,
        waterfall,
    )


def _plain(suite: "Suite", explanation: str) -> Callable[..., None]:
    """The command of a suite that has no options of its own; explanation: its help."""

    def command(
        scenario: Scenarios = None,
        dtype: Dtypes = None,
        device: Device = "auto",
        rounds: Rounds = 7,
        batch: Batch = 1,
        json_file: JsonFile = None,
        markdown_file: MarkdownFile = None,
    ) -> None:
        _run(suite, scenario, dtype, device, rounds, None, batch, json_file, markdown_file)

    command.__doc__ = explanation
    return command


time_autoencoder = _plain("vae", "The autoencoder, both ways, beside diffusers'.")
time_text_encoder = _plain("text-encoder", "A prompt and an empty one through T5-XXL, beside diffusers' way.")


def _run(
    suite: "Suite",
    scenarios: list[str] | None,
    dtypes: list[str] | None,
    device: str,
    rounds: int,
    num_steps: int | None,
    batch: int,
    json_file: Path | None,
    markdown_file: Path | None,
    compiled: bool = False,
    waterfall: bool = False,
) -> None:
    from pixart_sigma.benchmark.outcome import Output

    output = Output(json_file, markdown_file)
    names = (scenarios or (), dtypes or ())
    if waterfall:
        from pixart_sigma.benchmark.waterfall.run import run_waterfall

        # Only suites that have one offer it.
        chosen = cast("WaterfallSuite", suite)
        conclude(run_waterfall(chosen, *names, device, rounds, num_steps, batch, compiled, output, say))
        return
    from pixart_sigma.benchmark.run import run_inference

    conclude(run_inference(suite, *names, device, rounds, num_steps, batch, compiled, output, say))
