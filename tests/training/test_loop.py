import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pixart_sigma.errors import InvalidInput, PixArtSigmaError, RecipeError, WeightsError
from pixart_sigma.training.checkpoint import checkpoints
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.loop import run_loop
from pixart_sigma.training.recipe import TextEncoderRecipe, load_recipe
from pixart_sigma.training.run import train

CPU = torch.device("cpu")


class Interrupted(Exception):
    pass


class Regression:
    """Learns y = 2 x, from draws keyed by the step; stops before `stop_at` as a killed process would."""

    def __init__(self, width: int = 4, stop_at: int | None = None, poison_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Linear(width, width)
        self._width = width
        self._stop_at = stop_at
        self._poison_at = poison_at
        self.validated: list[Tensor] = []

    def compile(self) -> None:
        raise AssertionError("the recipe says not to compile")

    def loss(self, step: int) -> dict[str, Tensor]:
        if step == self._stop_at:
            raise Interrupted
        inputs = torch.randn(8, self._width, generator=keyed_generator(0, step, "inputs"))
        error = (self.model(inputs) - 2 * inputs).square().mean()
        return {"loss": error * float("nan") if step == self._poison_at else error}

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        assert not self.model.training
        self.validated.append(self.model.weight.clone())
        (folder / f"step-{step:08d}.txt").write_text("looked")
        return {"loss": float(self.model.weight.norm())}

    def export(self, folder: Path) -> dict[str, float]:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / "model.pt")
        return {"norm": float(self.model.weight.norm())}


def recipe(**run: object) -> TextEncoderRecipe:
    settings = {"steps": 12, "log_every": 2, "checkpoint_every": 4, "validate_every": 6, "warmup_steps": 2}
    settings |= {"compile": False, "precision": "fp32"} | run
    overrides = ["optimizer.learning_rate=0.02"]
    overrides += [f"run.{name}={str(value).lower()}" for name, value in settings.items()]
    loaded = load_recipe("pocket-text-encoder", overrides)
    assert isinstance(loaded, TextEncoderRecipe)
    return loaded


def weights(folder: Path) -> dict[str, Tensor]:
    return {
        f"{file}.{name}": tensor
        for file in ("weights", "average")
        for name, tensor in load_file(checkpoints(folder / "checkpoints")[-1] / f"{file}.safetensors").items()
    }


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_training_learns_and_leaves_everything_behind(tmp_path: Path) -> None:
    closing = run_loop(Regression(), recipe(steps=300, validate_every=100), tmp_path, CPU)
    found = losses(tmp_path)
    assert found[300] < 0.7 * found[2]
    assert len(found) == 150
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000296", "step-00000300"]
    assert load_recipe(str(tmp_path / "checkpoints/step-00000300/recipe.toml")) == recipe(
        steps=300, validate_every=100
    )
    assert (tmp_path / "samples/step-00000200.txt").exists()
    # What is exported is the average and not the last weights.
    exported = torch.load(tmp_path / "export/model.pt", weights_only=True)["weight"]
    assert torch.equal(exported, weights(tmp_path)["average.weight"])
    assert not torch.equal(exported, weights(tmp_path)["weights.weight"])
    assert closing["norm"] == pytest.approx(float(exported.norm()))


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path / "whole", CPU)
    with pytest.raises(Interrupted):
        run_loop(Regression(stop_at=10), recipe(), tmp_path / "killed", CPU)
    assert checkpoints(tmp_path / "killed/checkpoints")[-1].name == "step-00000008"
    resumed = Regression()
    resumed.model.weight.data.zero_()
    run_loop(resumed, recipe(), tmp_path / "killed", CPU)

    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_validation_sees_the_average_and_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    task = Regression()
    run_loop(task, recipe(), tmp_path / "a", CPU)
    run_loop(Regression(), recipe(validate_every=12), tmp_path / "b", CPU)
    assert torch.equal(task.validated[-1], weights(tmp_path / "a")["average.weight"])
    assert torch.equal(weights(tmp_path / "a")["weights.weight"], weights(tmp_path / "b")["weights.weight"])


def test_a_run_does_not_overwrite_another(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/step-00000003").mkdir(parents=True)
    with pytest.raises(RecipeError, match="--resume"):
        train("pocket-autoencoder", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_the_clock_goes_on_and_half_a_line_is_dropped(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 0, "seconds": 1000.0}\n{"step": 0, "sec', "utf-8")
    run_loop(Regression(), recipe(), tmp_path, CPU)
    records = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    assert records[0] == {"step": 0, "seconds": 1000.0}
    assert records[-1]["seconds"] >= 1000


def test_half_a_checkpoint_is_not_one(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path, CPU)
    (tmp_path / "checkpoints/.step-00000016.writing").mkdir()
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step-00000012"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run_loop(Regression(), recipe(), tmp_path, CPU)
    with pytest.raises(WeightsError, match=r"weights\.safetensors has other weights"):
        run_loop(Regression(width=5), recipe(), tmp_path, CPU)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(PixArtSigmaError, match="not finite near step 6"):
        run_loop(Regression(poison_at=5), recipe(), tmp_path, CPU)
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step-00000004"


def test_an_absent_device_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="quantum"):
        train("pocket-autoencoder", tmp_path / "run", ["run.device=quantum"])
    assert not (tmp_path / "run").exists()
