"""`python -m pixart_sigma`: the command, for launchers that start modules."""

from pixart_sigma.cli import main

main()
