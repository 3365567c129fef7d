"""`pixart-sigma benchmark`: measures, and prints a table. Knows nothing of what is measured."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.pipeline.samplers import DEFAULT_STEPS

if TYPE_CHECKING:
    from pixart_sigma.benchmark.inference.scenarios import Suite
    from pixart_sigma.benchmark.run import Outcome, TrainingSuite

benchmark = typer.Typer(
    help="Time this package beside what one would use instead, and beside its own cost model.",
    no_args_is_help=True,
)

Scenarios = Annotated[
    list[str] | None,
    typer.Option("--scenario", help="One of the suite's scenarios, by name; may be repeated. Default: all."),
]
Dtypes = Annotated[
    list[str] | None, typer.Option("--dtype", help="float32 or bfloat16; may be repeated. Default: both.")
]
Device = Annotated[str, typer.Option(help="As torch names it, or auto: a GPU if there is one.")]
Rounds = Annotated[int, typer.Option(help="Timed runs of each row; their median counts.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")]
MarkdownFile = Annotated[Path | None, typer.Option("--markdown", help="Write the table to this file too.")]


def _add_inference(suite: "Suite", explanation: str) -> None:
    @benchmark.command(suite, help=explanation)
    def command(
        scenario: Scenarios = None,
        dtype: Dtypes = None,
        device: Device = "auto",
        rounds: Rounds = 7,
        json_file: JsonFile = None,
        markdown_file: MarkdownFile = None,
    ) -> None:
        _inference(suite, scenario, dtype, device, rounds, None, json_file, markdown_file)


def _add_training(suite: "TrainingSuite", explanation: str) -> None:
    @benchmark.command(suite, help=explanation)
    def command(
        scenario: Scenarios = None,
        device: Device = "auto",
        rounds: Rounds = 7,
        json_file: JsonFile = None,
        markdown_file: MarkdownFile = None,
    ) -> None:
        _training(suite, scenario, device, rounds, False, json_file, markdown_file)


_add_inference("transformer", "XL/2's forward pass with guidance, beside diffusers' transformer.")


@benchmark.command("pipeline")
def time_pipeline(
    scenario: Scenarios = None,
    dtype: Dtypes = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    steps: Annotated[int, typer.Option(help="Denoising steps of a picture.")] = DEFAULT_STEPS,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A picture from its prompt, beside diffusers' pipeline, by stage."""
    _inference("pipeline", scenario, dtype, device, rounds, steps, json_file, markdown_file)


_add_inference("vae", "The autoencoder, both ways, beside diffusers'.")
_add_inference("text-encoder", "A prompt and an empty one through T5-XXL, beside diffusers' way.")


@benchmark.command("train-step")
def time_train_step(
    scenario: Scenarios = None,
    device: Device = "auto",
    rounds: Rounds = 7,
    compile_: Annotated[bool, typer.Option("--compile", help="Also time the compiled step.")] = False,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """A training step on cached features, beside a plain loop's."""
    _training("train-step", scenario, device, rounds, compile_, json_file, markdown_file)


_add_training("ablations", "A training step beside one of ours with one thing changed.")
_add_training("plan", "A training step's time, beside what the cost model says.")


@benchmark.command("attention")
def time_attention(
    device: Device = "auto",
    rounds: Rounds = 7,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """The fused attention kernel, beside attention written out."""
    _training("attention", None, device, rounds, False, json_file, markdown_file)


@benchmark.command("memory")
def measure_memory(
    scenario: Scenarios = None,
    device: Device = "auto",
    steps: Annotated[
        int, typer.Option(help="Denoising steps of a picture; memory does not depend on it.")
    ] = 1,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """The most memory that parts and pictures take, beside the plan's prediction."""
    from pixart_sigma.benchmark.run import Output, run_memory

    output = Output(json_file, markdown_file)
    _conclude(run_memory(scenario or (), device, steps, output, _say))


@benchmark.command("report")
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


def _inference(
    suite: "Suite",
    scenarios: list[str] | None,
    dtypes: list[str] | None,
    device: str,
    rounds: int,
    num_steps: int | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    from pixart_sigma.benchmark.run import Output, run_inference

    output = Output(json_file, markdown_file)
    _conclude(run_inference(suite, scenarios or (), dtypes or (), device, rounds, num_steps, output, _say))


def _training(
    suite: "TrainingSuite",
    scenarios: list[str] | None,
    device: str,
    rounds: int,
    compiled: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    from pixart_sigma.benchmark.run import Output, run_training

    output = Output(json_file, markdown_file)
    _conclude(run_training(suite, scenarios or (), device, rounds, compiled, output, _say))


def _conclude(outcome: "Outcome") -> None:
    print(outcome.text)
    if outcome.failures:
        raise PixArtSigmaError(
            f"{len(outcome.failures)} of the rows failed and have no figures: {'; '.join(outcome.failures)}"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
