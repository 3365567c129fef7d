"""Where a run's curves and pictures go besides its own folder: TensorBoard, Weights & Biases.

Each is imported when it is asked for. A resumed run goes on in the same place, without points that stand twice.
Knows nothing of what the figures mean; only the first rank opens trackers.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pixart_sigma.errors import InvalidInput, MissingDependency, PixArtSigmaError

Picture = Image.Image | Path
_FLUSH_SECONDS = 30
_PROJECT = "pixart-sigma"


class Tracker(Protocol):
    """Takes figures and pictures after so many steps; steps never go back."""

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures by name; those that are not finite are left out."""

    def images(self, step: int, pictures: Mapping[str, Picture]) -> None:
        """Pictures by name, in memory or in a file."""

    def close(self) -> None:
        """Write what is still held back. Nothing may follow."""


def open_trackers(
    names: Sequence[str], output: Path, run_name: str, configuration: Mapping[str, Any], step: int
) -> Tracker:
    """One tracker that passes everything on to those named, "tensorboard" or "wandb"; to none if there are none.

    `output`: the run's folder, which also holds what a resumed run needs to go on. `configuration`: the recipe, of
    what JSON knows. `step`: the steps done already; whatever was tracked beyond them is done again. Raises
    MissingDependency if a tracker is not installed, PixArtSigmaError if it does not start.
    """
    if unknown := [name for name in names if name not in _TRACKERS]:
        raise InvalidInput(f"tracker {unknown[0]!r} is not known; choose from {', '.join(_TRACKERS)}")
    opened: list[Tracker] = []
    try:
        for name in names:
            opened.append(_TRACKERS[name](output, run_name, configuration, step))
    except BaseException:
        TrackerGroup(opened).close()
        raise
    return TrackerGroup(opened)


class TrackerGroup:
    """Passes everything on to several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.scalars(step, figures)

    def images(self, step: int, pictures: Mapping[str, Picture]) -> None:
        for tracker in self._trackers:
            tracker.images(step, pictures)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


class TensorBoardTracker:
    """Event files under `output/tensorboard`; `validation_x` and `export_x` become groups of their own."""

    def __init__(self, output: Path, run_name: str, configuration: Mapping[str, Any], step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependency(
                "tracker 'tensorboard' needs the package tensorboard; pip install tensorboard, or set run.trackers"
            ) from error
        folder = output / "tensorboard"
        # Points from purge_step on are hidden; those of the checkpoint's own step are not drawn again, so they stay.
        purge_step = step + 1 if folder.exists() else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=_FLUSH_SECONDS)
        recipe = json.dumps(configuration, indent=2, ensure_ascii=False)
        text = "\n".join(f"    {line}" for line in [run_name, *recipe.splitlines()])  # Markdown's verbatim
        self._writer.add_text("recipe", text, step)

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in _finite(figures).items():
            self._writer.add_scalar(_grouped(name, "training"), value, step)

    def images(self, step: int, pictures: Mapping[str, Picture]) -> None:
        for name, picture in pictures.items():
            pixels = np.asarray(_opened(picture))
            self._writer.add_image(_grouped(name, "samples"), pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases, whose id is kept in `output/wandb-run-id`; its own files are in `output/wandb`.

    WANDB_MODE, WANDB_PROJECT and wandb's other variables hold. wandb refuses points of steps that it has seen, so
    those of steps that a resumed run does again are left out: they are the same.
    """

    def __init__(self, output: Path, run_name: str, configuration: Mapping[str, Any], step: int) -> None:
        try:
            import wandb

            # An output folder's own `wandb` folder, where Python is run from there, passes for an empty package.
            if not hasattr(wandb, "init"):
                raise ImportError("wandb has no init")
        except ImportError as error:
            raise MissingDependency(
                "tracker 'wandb' needs the package wandb; pip install 'pixart-sigma[wandb]', or set run.trackers"
            ) from error
        self._wandb: Any = wandb
        stored = output / "wandb-run-id"
        if not stored.exists():
            output.mkdir(parents=True, exist_ok=True)
            stored.write_text(secrets.token_hex(4) + "\n", "utf-8")
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or _PROJECT,
                name=run_name,
                id=stored.read_text("utf-8").strip(),
                resume="allow",
                dir=str(output),
                config=dict(configuration),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise PixArtSigmaError(
                f"tracker 'wandb' did not start ({reason}); log in with wandb login, or set WANDB_MODE=offline"
            ) from error
        self._first = int(self._run.starting_step)

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        self._log(step, {_grouped(name, "training"): value for name, value in _finite(figures).items()})

    def images(self, step: int, pictures: Mapping[str, Picture]) -> None:
        drawn = {name: _opened(picture) for name, picture in pictures.items()}
        self._log(
            step, {_grouped(name, "samples"): self._wandb.Image(picture) for name, picture in drawn.items()}
        )

    def close(self) -> None:
        self._run.finish()

    def _log(self, step: int, content: Mapping[str, Any]) -> None:
        if content and step >= self._first:
            self._run.log(dict(content), step=step)


_TRACKERS: dict[str, type[TensorBoardTracker] | type[WandbTracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}


def _grouped(name: str, group: str) -> str:
    """ "validation_loss" → "validation/loss", "loss" → "GROUP/loss": both trackers group by the slash."""
    for own in ("validation", "export"):
        if name.startswith(f"{own}_"):
            return f"{own}/{name.removeprefix(f'{own}_')}"
    return name if "/" in name else f"{group}/{name}"


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _opened(picture: Picture) -> Image.Image:
    if isinstance(picture, Path):
        with Image.open(picture) as opened:
            return opened.convert("RGB")
    return picture.convert("RGB")
