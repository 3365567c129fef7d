"""The exception tree of the package: every error a user can cause has a place here.

A message is one line that names the rule, the value and the remedy, because the command line prints it as it
is. This module knows nothing of what raises or catches these.
"""


class PixArtSigmaError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInput(PixArtSigmaError, ValueError):
    """A value given by the user breaks a rule."""


class RecipeError(InvalidInput):
    """A training recipe, or an override of one, breaks a rule."""


class WeightsError(PixArtSigmaError):
    """A file of weights or its configuration is missing, corrupt, or does not fit the model."""


class MissingDependency(PixArtSigmaError, ImportError):
    """A dependency is not installed."""


class OutOfMemory(PixArtSigmaError, MemoryError):
    """Memory ran out in the middle of the work."""


class Stopped(PixArtSigmaError):
    """A signal ended a training run, after a complete checkpoint."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status
