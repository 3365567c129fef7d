"""The suites that time making pictures and their parts, beside diffusers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixart_sigma.cli.benchmark.options import (
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
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.samplers import DEFAULT_STEPS

if TYPE_CHECKING:
    from pixart_sigma.benchmark.inference.scenarios import Suite


def time_pipeline(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    steps: Annotated[int, typer.Option(help="Denoising steps of a picture.")] = DEFAULT_STEPS,
    waterfall: Waterfall = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A picture from its prompt, beside diffusers' pipeline, by stage."""
    if waterfall:
        from pixart_sigma.benchmark.outcome import Output
        from pixart_sigma.benchmark.waterfall.run import run_waterfall

        output = Output(json_file, markdown_file)
        conclude(run_waterfall("pipeline", scenario or (), dtype or (), device, rounds, steps, output, say))
        return
    _run("pipeline", scenario, dtype, device, rounds, steps, False, json_file, markdown_file)


def time_transformer(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Also time both sides compiled, and their compilation.")
    ] = False,
    waterfall: Waterfall = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """XL/2's forward pass with guidance, beside diffusers' transformer."""
    if waterfall and compile_:
        raise InvalidInput("--compile is ignored with --waterfall, whose rows are eager; remove it")
    if waterfall:
        from pixart_sigma.benchmark.outcome import Output
        from pixart_sigma.benchmark.waterfall.run import run_waterfall

        output = Output(json_file, markdown_file)
        conclude(run_waterfall("transformer", scenario or (), dtype or (), device, rounds, None, output, say))
        return
    _run("transformer", scenario, dtype, device, rounds, None, compile_, json_file, markdown_file)


def time_autoencoder(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """The autoencoder, both ways, beside diffusers'."""
    _run("vae", scenario, dtype, device, rounds, None, False, json_file, markdown_file)


def time_text_encoder(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A prompt and an empty one through T5-XXL, beside diffusers' way."""
    _run("text-encoder", scenario, dtype, device, rounds, None, False, json_file, markdown_file)


def _run(
    suite: "Suite",
    scenarios: list[str] | None,
    dtypes: list[str] | None,
    device: str,
    rounds: int,
    num_steps: int | None,
    compiled: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.run import run_inference

    output = Output(json_file, markdown_file)
    names = (scenarios or (), dtypes or ())
    conclude(run_inference(suite, *names, device, rounds, num_steps, compiled, output, say))
