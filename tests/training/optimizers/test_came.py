"""CAME against the paper's formulas, a published package, and itself on one, two and three processes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from comparison import relative_error
from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.optimizers import came
from pixart_sigma.training.optimizers.came import CAME
from ranks import run_ranks

GOLDEN = Path(__file__).parent.parent / "goldens" / "came.safetensors"
SETTINGS = {"lr": 0.02, "betas": (0.9, 0.999, 0.9999), "eps": (1e-30, 1e-16), "weight_decay": 0.01}

# None divides by 2 or 3 in its first dimension but "even"; "short" leaves one of three ranks with nothing.
SHAPES = {
    "tall": (7, 3),
    "wide": (5, 8),
    "even": (6, 4),
    "short": (2,),
    "vector": (7,),
    "batch": (5, 3, 4),
    "conv": (7, 2, 3, 3),
}


def gradient(name: str, step: int) -> Tensor:
    """Gradients whose size changes over the steps and along rows, so that moments and clipping matter."""
    generator = torch.Generator().manual_seed(1000 * step + list(SHAPES).index(name))
    noise = torch.randn(SHAPES[name], generator=generator)
    rows = torch.linspace(0.1, 2.0, SHAPES[name][0]).view(-1, *[1] * (len(SHAPES[name]) - 1))
    return noise * rows * 10.0 ** (step % 4 - 2)


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            weight = torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))
            self.register_parameter(name, nn.Parameter(weight))

    def whole(self) -> dict[str, Tensor]:
        named = {name: weight.detach() for name, weight in self.named_parameters()}
        return {
            name: weight.full_tensor() if isinstance(weight, DTensor) else weight.clone()
            for name, weight in named.items()
        }


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for name, weight in model.named_parameters():
            weight.grad = gradient(name, step)
            if isinstance(weight, DTensor):
                weight.grad = distribute_tensor(
                    weight.grad, weight.device_mesh, weight.placements, src_data_rank=None
                )
        optimizer.step()
        optimizer.zero_grad()


def trained_whole(steps: int) -> dict[str, Tensor]:
    model = Weights()
    train(model, CAME(model.parameters(), **SETTINGS), range(steps))
    return model.whole()


def assert_equal(weights: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    assert weights.keys() == reference.keys()
    errors = {name: relative_error(weight, reference[name]) for name, weight in weights.items()}
    assert max(errors.values()) <= 1e-6, errors


class PaperCAME:
    """Algorithm 2 of the paper for one weight, in float64; one-dimensional weights are not factored."""

    def __init__(self, weight: np.ndarray, clip: float, eps: tuple[float, float]) -> None:
        self.theta, self.clip, self.eps = weight.astype(np.float64), clip, eps
        self.m = self.v = self.r = self.c = self.R = self.C = 0.0

    def step(self, g: np.ndarray) -> None:
        (beta1, beta2, beta3), (eps1, eps2) = SETTINGS["betas"], self.eps
        matrix = g.ndim >= 2
        if matrix:
            self.r = beta2 * self.r + (1 - beta2) * (g**2 + eps1).mean(-1)
            self.c = beta2 * self.c + (1 - beta2) * (g**2 + eps1).mean(-2)
            self.v = self.product(self.r, self.c)
        else:
            self.v = beta2 * self.v + (1 - beta2) * (g**2 + eps1)
        u = g / np.sqrt(self.v)
        u = u / max(1.0, np.sqrt((u**2).mean()) / self.clip)
        self.m = beta1 * self.m + (1 - beta1) * u
        update = self.m
        if matrix:
            instability = (u - self.m) ** 2 + eps2
            self.R = beta3 * self.R + (1 - beta3) * instability.mean(-1)
            self.C = beta3 * self.C + (1 - beta3) * instability.mean(-2)
            update = self.m / np.sqrt(self.product(self.R, self.C))
        self.theta = self.theta - SETTINGS["lr"] * (update + SETTINGS["weight_decay"] * self.theta)

    @staticmethod
    def product(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return rows[..., :, None] * columns[..., None, :] / rows.mean(-1)[..., None, None]


@pytest.mark.parametrize(("clip", "eps"), [(1.0, (1e-30, 1e-16)), (0.3, (1e-30, 1e-16)), (1.0, (1e-3, 1e-1))])
def test_it_computes_what_the_paper_says(clip: float, eps: tuple[float, float]) -> None:
    model = Weights()
    papers = {
        name: PaperCAME(weight.detach().numpy(), clip, eps) for name, weight in model.named_parameters()
    }
    optimizer = CAME(model.parameters(), **SETTINGS | {"eps": eps}, clip_threshold=clip)
    train(model, optimizer, range(20))
    for step in range(20):
        for name, paper in papers.items():
            paper.step(gradient(name, step).double().numpy())
    assert_equal(model.whole(), {name: torch.from_numpy(paper.theta) for name, paper in papers.items()})


def test_it_computes_what_the_published_package_does() -> None:
    with safe_open(GOLDEN, framework="pt") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        settings = json.loads(file.metadata()["config"])
    settings.pop("source")
    names = [key.removeprefix("before.") for key in golden if key.startswith("before.")]
    weights = [nn.Parameter(golden[f"before.{name}"].clone()) for name in names]
    optimizer = CAME(weights, **settings)
    for step in range(20):
        for name, weight in zip(names, weights, strict=True):
            weight.grad = golden[f"gradients.{name}"][step]
        optimizer.step()
    for name, weight in zip(names, weights, strict=True):
        assert relative_error(golden[f"before.{name}"], golden[f"after.{name}"]) > 0.03
        assert relative_error(weight, golden[f"after.{name}"]) <= 1e-6


def test_the_size_of_the_buckets_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = trained_whole(3)
    for size in (1, 50):
        monkeypatch.setattr(came, "_CPU_BUCKET_ELEMENTS", size)
        weights = trained_whole(3)
        assert all(torch.equal(weights[name], reference[name]) for name in SHAPES)


def test_bf16_weights_keep_an_fp32_state_through_a_checkpoint() -> None:
    weight = nn.Parameter(torch.randn(4, 3).bfloat16())
    optimizer = CAME([weight], **SETTINGS)
    weight.grad = torch.randn(4, 3).bfloat16()
    optimizer.step()
    restored = CAME([weight], **SETTINGS)
    restored.load_state_dict(optimizer.state_dict())
    for name, value in optimizer.state[weight].items():
        assert value.dtype == torch.float32
        assert restored.state[weight][name].dtype == torch.float32
        assert torch.equal(restored.state[weight][name], value)


def test_a_weight_without_gradient_stays_as_it_is() -> None:
    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    optimizer = CAME(weights, **SETTINGS)
    weights[0].grad = torch.ones(2, 2)
    optimizer.step()
    assert not torch.equal(weights[0], torch.ones(2, 2))
    assert torch.equal(weights[1], torch.ones(2, 2))
    assert weights[1] not in optimizer.state


def sharded() -> Weights:
    model = Weights()
    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Read a checkpoint; without processes, with `no_dist`."""
    weights, state = get_state_dict(model, optimizer)
    content = {"weights": weights, "state": state}
    dcp.load(content, checkpoint_id=folder, no_dist=not dist.is_initialized())
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)


def train_and_save(folder: Path) -> dict[str, Any]:
    """On ranks: 5 steps, a checkpoint, 15 more steps; counts the messages of the last one."""
    model = sharded()
    optimizer = CAME(model.parameters(), **SETTINGS)
    train(model, optimizer, range(5))
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"weights": weights, "state": state}, checkpoint_id=folder)
    train(model, optimizer, range(5, 19))
    messages = 0
    all_reduce = dist.all_reduce

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal messages
        messages += 1
        return all_reduce(*arguments, **keywords)

    dist.all_reduce = counted
    train(model, optimizer, range(19, 20))
    placements = {name: value.placements for name, value in optimizer.state[model.tall].items()}
    return {"weights": model.whole(), "messages": messages, "placements": placements}


def train_and_resume(folder: Path) -> dict[str, Any]:
    """On ranks: 20 steps from the beginning; 15 steps from the checkpoint; 20 steps in other shardings."""
    model = sharded()
    train(model, CAME(model.parameters(), **SETTINGS), range(20))
    resumed = sharded()
    optimizer = CAME(resumed.parameters(), **SETTINGS)
    resume(resumed, optimizer, folder)
    train(resumed, optimizer, range(5, 20))
    return {"weights": model.whole(), "resumed": resumed.whole(), "columns": by_columns(), "hybrid": hybrid()}


def by_columns() -> dict[str, Tensor]:
    """20 steps of weights that are sharded along their last dimension."""
    model = Weights()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, weight in list(model.named_parameters()):
        whole = distribute_tensor(weight.detach(), mesh, [Shard(weight.ndim - 1)], src_data_rank=None)
        setattr(model, name, nn.Parameter(whole))
    train(model, CAME(model.parameters(), **SETTINGS), range(20))
    return model.whole()


def hybrid() -> dict[str, Tensor]:
    """20 steps of weights sharded over the inner dimension of a mesh of two."""
    model = Weights()
    fully_shard(
        model, mesh=init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("copies", "shards"))
    )
    train(model, CAME(model.parameters(), **SETTINGS), range(20))
    return model.whole()


# Reading with one process is meant.
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning")
def test_it_computes_the_same_sharded_and_resumes_on_other_numbers_of_processes(tmp_path: Path) -> None:
    reference = trained_whole(20)
    two = run_ranks(2, train_and_save, tmp_path)
    three = run_ranks(3, train_and_resume, tmp_path)
    for result in two:
        assert_equal(result["weights"], reference)
        # Column sums, norms, column sums of the instability; norms of the vectors.
        assert result["messages"] == 4
        # "Row moments" have an entry a row, and are sharded as the rows are.
        assert result["placements"] == {
            "exp_avg": (Shard(0),),
            "exp_avg_sq_row": (Shard(0),),
            "exp_avg_sq_col": (Replicate(),),
            "exp_avg_res_row": (Shard(0),),
            "exp_avg_res_col": (Replicate(),),
        }
    for result in three:
        for weights in result.values():
            assert_equal(weights, reference)
    one = Weights()
    optimizer = CAME(one.parameters(), **SETTINGS | {"weight_decay": 0.5})
    resume(one, optimizer, tmp_path)
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
    train(one, optimizer, range(5, 20))
    assert_equal(one.whole(), reference)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_weights_sharded_both_ways_are_refused() -> None:
    mesh = init_device_mesh("cpu", (1, 1))
    weight = nn.Parameter(distribute_tensor(torch.ones(2, 2), mesh, [Shard(0), Shard(1)]))
    weight.grad = torch.ones_like(weight)
    with pytest.raises(InvalidInput, match="sharded along one dimension"):
        CAME([weight], **SETTINGS).step()
