"""The command `pixart-sigma`. Imports nothing heavy until a subcommand runs."""

from pixart_sigma.cli.app import main

__all__ = ["main"]
