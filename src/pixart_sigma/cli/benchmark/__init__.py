"""`pixart-sigma benchmark`: measures, and prints a table. Knows nothing of what is measured."""

import typer

from pixart_sigma.cli.benchmark import growth, inference, memory, report, shortcuts, start, training

benchmark = typer.Typer(
    help="Time this package beside what one would use instead, and beside its own cost model.",
    no_args_is_help=True,
)
benchmark.command("pipeline")(inference.time_pipeline)
benchmark.command("transformer")(inference.time_transformer)
benchmark.command("vae")(inference.time_autoencoder)
benchmark.command("text-encoder")(inference.time_text_encoder)
benchmark.command("start")(start.time_start)
benchmark.command("kv-compression")(growth.time_compression)
benchmark.command("scaling")(growth.time_scaling)
benchmark.command("shortcuts")(shortcuts.measure_shortcuts)
benchmark.command("memory")(memory.measure_memory)
benchmark.command("train-step")(training.time_train_step)
benchmark.command("ablations")(training.time_ablations)
benchmark.command("plan")(training.time_plan)
benchmark.command("attention")(training.time_attention)
benchmark.command("report")(report.write_report)
