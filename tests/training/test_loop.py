import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pixart_sigma.errors import InvalidInput, PixArtSigmaError, RecipeError, Stopped, WeightsError
from pixart_sigma.pipeline.placement.processes import Processes
from pixart_sigma.training.checkpoint import finished_checkpoints
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.loop import run_loop
from pixart_sigma.training.recipe import TextEncoderRecipe, load_recipe
from pixart_sigma.training.run import train
from pixart_sigma.training.watching.metrics import read_metrics

ALONE = Processes(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
BATCH = 8


class Interrupted(Exception):
    pass


class Squared(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, batch: tuple[Tensor, float]) -> dict[str, Tensor]:
        inputs, share = batch
        return {"loss": (self.linear(inputs) - 2 * inputs).square().mean(1).sum() * share}


class Regression:
    """Learns y = 2 x, from draws keyed by the step; stops before `stop_at` as a killed process would."""

    def __init__(
        self,
        width: int = 4,
        stop_at: int | None = None,
        poison_at: tuple[int, ...] = (),
        signal_at: int | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = Squared(width)
        self._width = width
        self._stop_at = stop_at
        self._poison_at = poison_at
        self._signal_at = signal_at
        self.validated: list[Tensor] = []

    methods = ()
    data_digest = "squares"
    exports_average = True

    def notes(self) -> list[str]:
        return ["ready"]

    def blocks(self) -> list[nn.Module]:
        return []

    def load(self, step: int, part: range) -> Any:
        if step == self._stop_at:
            raise Interrupted
        inputs = torch.randn(BATCH, self._width, generator=keyed_generator(0, step, "inputs"))
        return step, inputs[part.start : part.stop]

    def batch(self, loaded: Any, share: float) -> Any:
        step, inputs = loaded
        if step == self._signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return inputs, share * (float("nan") if step in self._poison_at else 1.0)

    def record_ids(self, step: int, part: range) -> list[str]:
        return [f"record-{step}-{position}" for position in part]

    def validate(self, step: int, folder: Path | None) -> dict[str, float]:
        weight = self.model.get_parameter("linear.weight")
        self.validated.append(weight.clone())
        assert folder is not None
        (folder / f"step-{step:08d}.txt").write_text("looked")
        return {"loss": float(weight.norm())}

    def export(
        self, folder: Path, weights: dict[str, Tensor], held_out: dict[str, float]
    ) -> dict[str, float]:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(weights, folder / "model.pt")
        return {"norm": float(weights["linear.weight"].norm()), "held_out": held_out["loss"]}


def recipe(**run: object) -> TextEncoderRecipe:
    settings: dict[str, object] = {"steps": 12, "log_every": 2, "checkpoint_every": 4, "validate_every": 6}
    settings |= {"batch_size": BATCH, "compile": False, "precision": "fp32", "trackers": []} | run
    overrides = ["optimizer.learning_rate=0.02", "rate.warmup_steps=2"]
    overrides += [f"run.{name}={json.dumps(value)}" for name, value in settings.items()]
    loaded = load_recipe("pocket-text-encoder", overrides)
    assert isinstance(loaded, TextEncoderRecipe)
    return loaded


def newest(folder: Path) -> Path:
    return finished_checkpoints(folder / "checkpoints")[-1]


def stored(folder: Path) -> dict[str, Tensor]:
    """All that the newest checkpoint holds."""
    return {
        name: tensor
        for path in sorted(newest(folder).glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one: Path, other: Path) -> bool:
    first, second = stored(one), stored(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def losses(folder: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line}


def test_training_learns_and_leaves_everything_behind(tmp_path: Path) -> None:
    closing = run_loop(Regression(), recipe(steps=300, validate_every=100), tmp_path, ALONE)
    found = losses(tmp_path)
    assert found[300] < 0.7 * found[2]
    assert len(found) == 150
    names = [path.name for path in finished_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step-00000296", "step-00000300"]
    written = load_recipe(str(newest(tmp_path) / "recipe.toml"))
    assert written == recipe(steps=300, validate_every=100)
    assert (tmp_path / "samples/step-00000200.txt").exists()
    assert (tmp_path / "report.html").exists()
    # What is exported is the average and not the last weights.
    exported = torch.load(tmp_path / "export/model.pt", weights_only=True)["linear.weight"]
    assert torch.equal(exported, stored(tmp_path)["average.linear.weight"])
    assert not torch.equal(exported, stored(tmp_path)["weights.linear.weight"])
    assert closing["norm"] == pytest.approx(float(exported.norm()))


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path / "whole", ALONE)
    with pytest.raises(Interrupted):
        run_loop(Regression(stop_at=10), recipe(), tmp_path / "killed", ALONE)
    assert newest(tmp_path / "killed").name == "step-00000008"
    resumed = Regression()
    resumed.model.get_parameter("linear.weight").data.zero_()
    run_loop(resumed, recipe(), tmp_path / "killed", ALONE)
    assert same(tmp_path / "whole", tmp_path / "killed")
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path / "one", ALONE)
    run_loop(Regression(), recipe(accumulate=4), tmp_path / "four", ALONE)
    one, four = stored(tmp_path / "one"), stored(tmp_path / "four")
    torch.testing.assert_close(
        one["weights.linear.weight"], four["weights.linear.weight"], rtol=1e-5, atol=1e-6
    )
    assert losses(tmp_path / "one")[12] == pytest.approx(losses(tmp_path / "four")[12], rel=1e-5)


def test_validation_sees_the_average_and_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    task = Regression()
    run_loop(task, recipe(), tmp_path / "a", ALONE)
    run_loop(Regression(), recipe(validate_every=12), tmp_path / "b", ALONE)
    assert torch.equal(task.validated[-1], stored(tmp_path / "a")["average.linear.weight"])
    assert same(tmp_path / "a", tmp_path / "b")


def test_a_validation_that_a_kill_cut_off_is_made_up_for(tmp_path: Path) -> None:
    task = Regression()
    run_loop(task, recipe(steps=6), tmp_path, ALONE)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "validation_" not in line), "utf-8")
    again = Regression()
    run_loop(again, recipe(steps=6), tmp_path, ALONE)
    assert torch.equal(again.validated[0], task.validated[-1])
    run_loop(once := Regression(), recipe(steps=6), tmp_path, ALONE)
    assert once.validated == []


def test_a_checkpoint_beyond_the_end_is_refused(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(steps=6), tmp_path, ALONE)
    with pytest.raises(RecipeError, match=r"checkpoint of step 6 is beyond run\.steps 4"):
        run_loop(Regression(), recipe(steps=4), tmp_path, ALONE, allow_changed=True)


def test_other_data_are_refused_on_resuming_unless_allowed(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(steps=6), tmp_path, ALONE)
    other = Regression()
    other.data_digest = "cubes"
    with pytest.raises(RecipeError, match=r"not those of the checkpoint step-00000006.*--allow-changed"):
        run_loop(other, recipe(), tmp_path, ALONE)
    run_loop(other, recipe(), tmp_path, ALONE, allow_changed=True)
    assert newest(tmp_path).name == "step-00000012"


def test_a_skipped_step_does_not_spoil_the_mean(tmp_path: Path) -> None:
    run_loop(Regression(poison_at=(5,)), recipe(log_every=4), tmp_path, ALONE)
    figures = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in figures] == [4, 8, 12]
    assert all(line["loss"] is not None for line in figures)


def test_a_run_does_not_overwrite_another(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/step-00000003").mkdir(parents=True)
    with pytest.raises(RecipeError, match="--resume"):
        train("pocket-autoencoder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_half_a_checkpoint_is_not_one(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path, ALONE)
    (tmp_path / "checkpoints/.step-00000016.writing").mkdir()
    assert newest(tmp_path).name == "step-00000012"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path, ALONE)
    with pytest.raises(WeightsError, match="other weights than this recipe makes"):
        run_loop(Regression(width=5), recipe(), tmp_path, ALONE)


def test_a_step_that_is_not_finite_is_skipped_and_its_records_are_named(tmp_path: Path) -> None:
    task = Regression(poison_at=(5, 9))
    run_loop(task, recipe(log_every=1), tmp_path, ALONE)
    events = [
        line for line in read_metrics(tmp_path / "metrics.jsonl") if line.get("event") == "skipped step"
    ]
    assert [event["step"] for event in events] == [6, 10]
    assert "record-5-0, record-5-1" in events[0]["detail"]
    assert all(tensor.isfinite().all() for tensor in stored(tmp_path).values())
    figures = [
        line for line in read_metrics(tmp_path / "metrics.jsonl") if line["step"] == 7 and "loss" in line
    ]
    assert figures[0]["loss"] is not None


def test_too_many_steps_that_are_not_finite_end_the_run(tmp_path: Path) -> None:
    poison = tuple(range(5, 12))
    with pytest.raises(
        PixArtSigmaError, match="3 steps had a loss or gradient that was not finite, the last one 8"
    ):
        run_loop(Regression(poison_at=poison), recipe(max_skipped_steps=2), tmp_path, ALONE)
    assert newest(tmp_path).name == "step-00000006"
    # The count is kept with the checkpoints: resuming does not start it again.
    with pytest.raises(PixArtSigmaError, match="the last one 8"):
        run_loop(Regression(poison_at=poison), recipe(max_skipped_steps=2), tmp_path, ALONE)


def test_a_signal_leaves_a_complete_checkpoint_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path / "whole", ALONE)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="after step 6") as stopped:
        run_loop(Regression(signal_at=5), recipe(), tmp_path / "stopped", ALONE)
    assert stopped.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert newest(tmp_path / "stopped").name == "step-00000006"
    run_loop(Regression(), recipe(), tmp_path / "stopped", ALONE)
    assert same(tmp_path / "whole", tmp_path / "stopped")


def test_an_absent_device_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="quantum"):
        train("pocket-autoencoder", tmp_path / "run", ["run.device=quantum"])
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_dealt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch_size 8 is not a multiple of accumulate 3"):
        recipe(accumulate=3)
