"""What every table of a recipe is: a frozen pydantic model that refuses keys it does not know or would ignore.

Knows nothing of files, tensors or data.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pixart_sigma.resolution import TOKEN_SIDE

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


def check_resolution(resolution: int | None) -> None:
    """Raises ValueError for a side in pixels that whole tokens do not make up."""
    if resolution is not None and resolution % TOKEN_SIDE:
        raise ValueError(f"resolution {resolution} is not a multiple of {TOKEN_SIDE}")


class Section(BaseModel):
    """A table of a recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def refuse_ignored(self, names: set[str], why: str) -> None:
        """Raises ValueError if one of the keys is not its default although it would be ignored."""
        fields = type(self).model_fields
        written = sorted(name for name in names if getattr(self, name) != fields[name].default)
        if written:
            verb = "is" if len(written) == 1 else "are"
            raise ValueError(f"{', '.join(written)} {verb} ignored {why}; remove it")
