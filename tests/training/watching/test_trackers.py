import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixart_sigma.errors import InvalidInput, MissingDependency, PixArtSigmaError
from pixart_sigma.training.watching.trackers import open_trackers

RECIPE = {"run": {"steps": 12}, "optimizer": {"betas": [0.9, 0.99]}}


def read_back(output: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_has_the_curves_the_pictures_and_the_recipe(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), (250, 0, 0)).save(tmp_path / "grid.png")
    tracker = open_trackers(("tensorboard",), tmp_path, "cats", RECIPE, 0)
    for step in (1, 2, 3):
        tracker.scalars(step, {"loss": 1 / step, "gradient_norm": float("inf")})
    tracker.scalars(3, {"validation_loss": 0.25, "export_megabytes": 2.0})
    tracker.images(3, {"grid": tmp_path / "grid.png", "128": Image.new("L", (2, 2))})
    tracker.close()
    events = read_back(tmp_path)
    assert sorted(events.Tags()["scalars"]) == ["export/megabytes", "training/loss", "validation/loss"]
    assert [(point.step, point.value) for point in events.Scalars("training/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    (picture,) = events.Images("samples/grid")
    assert (picture.step, picture.width, picture.height) == (3, 6, 4)
    assert [point.step for point in events.Images("samples/128")] == [3]
    (text,) = events.Tensors("recipe/text_summary")
    assert "cats" in str(text.tensor_proto.string_val)
    assert "betas" in str(text.tensor_proto.string_val)


def test_a_resumed_run_has_no_point_twice(tmp_path: Path) -> None:
    for first, last in ((1, 8), (6, 12)):
        tracker = open_trackers(("tensorboard",), tmp_path, "cats", RECIPE, first - 1)
        for step in range(first, last + 1):
            tracker.scalars(step, {"loss": float(100 * first + step)})
        tracker.close()
        if first == 1:
            time.sleep(1.1)  # the reader orders files by the second they were begun in
    points = [(point.step, point.value) for point in read_back(tmp_path).Scalars("training/loss")]
    assert points == [(step, 100 + step) for step in range(1, 6)] + [
        (step, 600 + step) for step in range(6, 13)
    ]


def test_without_tensorboard_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependency, match="pip install tensorboard"):
        open_trackers(("tensorboard",), tmp_path, "cats", RECIPE, 0)


class Wandb(types.ModuleType):
    """A stand-in for wandb that remembers what it was told, and a server that has seen `seen` steps of a run."""

    class Problem(Exception):
        pass

    def __init__(self, seen: int = 0, refuses: bool = False) -> None:
        super().__init__("wandb")
        self.errors = types.SimpleNamespace(Error=self.Problem)
        self.seen, self.refuses = seen, refuses
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0

    def init(self, **settings: Any) -> Any:
        if self.refuses:
            raise self.Problem("No API key\nconfigured.")
        self.settings = settings
        return types.SimpleNamespace(
            starting_step=self.seen + 1 if self.seen else 0,
            log=lambda content, step: self.logged.append((step, content)),
            finish=self.finish,
        )

    def finish(self) -> None:
        self.finished += 1

    def Image(self, picture: Image.Image) -> str:
        return f"picture of {picture.size}"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)

    def put(module: types.ModuleType | None) -> Any:
        monkeypatch.setitem(sys.modules, "wandb", module)
        return module

    return put


def test_wandb_has_figures_and_pictures_and_the_recipe(tmp_path: Path, install: Any) -> None:
    wandb = install(Wandb())
    tracker = open_trackers(("wandb",), tmp_path, "cats", RECIPE, 0)
    tracker.scalars(5, {"loss": 0.5, "validation_loss": 0.6, "gradient_norm": float("nan")})
    tracker.scalars(6, {"gradient_norm": float("nan")})
    tracker.images(6, {"grid": Image.new("RGB", (6, 4))})
    tracker.close()
    assert wandb.logged == [
        (5, {"training/loss": 0.5, "validation/loss": 0.6}),
        (6, {"samples/grid": "picture of (6, 4)"}),
    ]
    assert wandb.finished == 1
    settings = wandb.settings
    assert (settings["name"], settings["config"], settings["dir"]) == ("cats", RECIPE, str(tmp_path))
    # With a mode of our own, WANDB_MODE would be ignored.
    assert "mode" not in settings


def test_a_resumed_run_goes_on_under_its_id_without_what_wandb_has_seen(
    tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = install(Wandb())
    open_trackers(("wandb",), tmp_path, "cats", RECIPE, 0).close()
    assert (tmp_path / "wandb-run-id").read_text("utf-8").strip() == first.settings["id"]
    second = install(Wandb(seen=8))
    monkeypatch.setenv("WANDB_PROJECT", "pets")
    tracker = open_trackers(("wandb",), tmp_path, "cats", RECIPE, 6)
    for step in (7, 8, 9):
        tracker.scalars(step, {"loss": float(step)})
    assert (second.settings["id"], second.settings["resume"]) == (first.settings["id"], "allow")
    assert (first.settings["project"], second.settings["project"]) == ("pixart-sigma", "pets")
    assert second.logged == [(9, {"training/loss": 9.0})]
    open_trackers(("wandb",), tmp_path / "other", "cats", RECIPE, 0)
    assert second.settings["id"] != first.settings["id"]


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")], ids=["absent", "a folder of that name"])
def test_without_wandb_one_line_names_the_extra(
    tmp_path: Path, install: Any, module: types.ModuleType | None
) -> None:
    install(module)
    with pytest.raises(MissingDependency, match=r"pip install 'pixart-sigma\[wandb\]'") as caught:
        open_trackers(("wandb",), tmp_path, "cats", RECIPE, 0)
    assert "\n" not in str(caught.value)


def test_a_tracker_that_does_not_start_closes_the_others(
    tmp_path: Path, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixart_sigma.training.watching.trackers import TensorBoardTracker

    closed: list[TensorBoardTracker] = []
    close = TensorBoardTracker.close
    monkeypatch.setattr(TensorBoardTracker, "close", lambda self: (closed.append(self), close(self)))
    install(Wandb(refuses=True))
    with pytest.raises(
        PixArtSigmaError, match=r"\(No API key configured\); log in .* WANDB_MODE=offline"
    ) as caught:
        open_trackers(("tensorboard", "wandb"), tmp_path, "cats", RECIPE, 0)
    assert "\n" not in str(caught.value)
    assert len(closed) == 1


def test_no_tracker_takes_everything_and_leaves_nothing(tmp_path: Path) -> None:
    tracker = open_trackers((), tmp_path, "cats", RECIPE, 0)
    tracker.scalars(1, {"loss": 1.0})
    tracker.images(1, {"grid": tmp_path / "missing.png"})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="tracker 'paper' is not known; choose from tensorboard, wandb"):
        open_trackers(("paper",), tmp_path, "cats", RECIPE, 0)
