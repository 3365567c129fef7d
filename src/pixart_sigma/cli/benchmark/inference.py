"""The suites that time making pictures and their parts, beside diffusers."""

from collections.abc import Callable
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

Compile = Annotated[
    bool, typer.Option("--compile", help="Also time both sides compiled, and their compilation.")
]

if TYPE_CHECKING:
    from pixart_sigma.benchmark.inference.scenarios import Suite
    from pixart_sigma.benchmark.waterfall.measure import Suite as WaterfallSuite


def time_pipeline(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    steps: Annotated[int, typer.Option(help="Denoising steps of a picture.")] = DEFAULT_STEPS,
    compile_: Compile = False,
    waterfall: Waterfall = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A picture from its prompt, beside diffusers' pipeline, by stage."""
    if waterfall:
        _run_waterfall("pipeline", scenario, dtype, device, rounds, steps, compile_, json_file, markdown_file)
        return
    _run("pipeline", scenario, dtype, device, rounds, steps, compile_, json_file, markdown_file)


def time_transformer(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    compile_: Compile = False,
    waterfall: Waterfall = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """XL/2's forward pass with guidance, beside diffusers' transformer."""
    if waterfall:
        _run_waterfall(
            "transformer", scenario, dtype, device, rounds, None, compile_, json_file, markdown_file
        )
        return
    _run("transformer", scenario, dtype, device, rounds, None, compile_, json_file, markdown_file)


def _plain(suite: "Suite", explanation: str) -> Callable[..., None]:
    """The command of a suite that has no options of its own; explanation: its help."""

    def command(
        scenario: Scenarios = None,
        dtype: Dtypes = None,
        device: Device = "auto",
        rounds: Rounds = 7,
        json_file: JsonFile = None,
        markdown_file: MarkdownFile = None,
    ) -> None:
        _run(suite, scenario, dtype, device, rounds, None, False, json_file, markdown_file)

    command.__doc__ = explanation
    return command


time_autoencoder = _plain("vae", "The autoencoder, both ways, beside diffusers'.")
time_text_encoder = _plain("text-encoder", "A prompt and an empty one through T5-XXL, beside diffusers' way.")


def _run_waterfall(
    suite: "WaterfallSuite",
    scenarios: list[str] | None,
    dtypes: list[str] | None,
    device: str,
    rounds: int,
    num_steps: int | None,
    compiled: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    if compiled:
        raise InvalidInput("--compile is ignored with --waterfall, whose rows are eager; remove it")
    from pixart_sigma.benchmark.outcome import Output
    from pixart_sigma.benchmark.waterfall.run import run_waterfall

    output = Output(json_file, markdown_file)
    conclude(run_waterfall(suite, scenarios or (), dtypes or (), device, rounds, num_steps, output, say))


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
