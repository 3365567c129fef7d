import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from comparison import relative_error
from pixart_sigma.training.optimizers import MovingAverage
from ranks import run_ranks


def one_weight(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False, dtype=dtype)
    model.weight.data.fill_(value)
    return model


def test_the_average_follows() -> None:
    model = one_weight(0.0)
    average = MovingAverage(model, 0.9)
    model.weight.data.fill_(1.0)
    average.update(10_000)
    assert float(average.tensors["weight"]) == pytest.approx(0.1)
    average.update(10_000)
    assert float(average.tensors["weight"]) == pytest.approx(0.19)
    assert model.weight.item() == 1.0


def test_the_average_soon_forgets_where_it_began() -> None:
    model = one_weight(0.0)
    average = MovingAverage(model, 0.999)
    model.weight.data.fill_(1.0)
    for step in range(50):
        average.update(step)
    assert float(average.tensors["weight"]) > 0.99


def test_only_what_is_trained_has_an_average() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert set(MovingAverage(model, 0.9).tensors) == {"weight"}


def test_swapping_twice_restores_the_live_weights() -> None:
    model = one_weight(0.0)
    average = MovingAverage(model, 0.9)
    model.weight.data.fill_(1.0)
    average.update(10_000)
    average.swap()
    assert (model.weight.item(), float(average.tensors["weight"])) == pytest.approx((0.1, 0.1))
    with pytest.raises(RuntimeError, match="swap"):
        average.update(10_000)
    average.swap()
    assert (model.weight.item(), float(average.tensors["weight"])) == pytest.approx((1.0, 0.1))


def test_a_loaded_average_counts_whether_copied_or_put_in_place() -> None:
    model = one_weight(0.0)
    average = MovingAverage(model, 0.9)
    for tensor in (torch.full((1, 1), 3.0), torch.full((1, 1), 4.0)):
        average.tensors["weight"] = tensor
        average.swap()
        assert model.weight.item() == tensor.item()
        average.swap()


def test_the_average_of_bf16_weights_keeps_fp32_through_a_swap() -> None:
    model = one_weight(1.0, torch.bfloat16)
    average = MovingAverage(model, 0.9999)
    model.weight.data.fill_(2.0)
    # bf16 has no number between 1 and 1.0078.
    average.update(10**6)
    average.swap()
    assert model.weight.item() == 1.0
    average.swap()
    assert model.weight.item() == 2.0
    assert average.tensors["weight"].dtype == torch.float32
    assert float(average.tensors["weight"]) == pytest.approx(1.0001, abs=1e-6)


def network() -> nn.Sequential:
    """Row counts that 2 does not divide; the first bias is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7))
    model[0].bias.requires_grad_(False)
    return model


def averaged(model: nn.Module) -> dict[str, Tensor]:
    """A few steps, then: the averages, and what averaged and live weights make of an input."""
    average = MovingAverage(model, 0.9)
    optimizer = torch.optim.SGD((weight for weight in model.parameters() if weight.requires_grad), lr=0.1)
    inputs = torch.linspace(-1, 1, 12).view(4, 3)
    for step in range(20):
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step)
    outputs = {}
    # Without a backward, FSDP leaves the outermost module's weights gathered; a swap must not be lost on them.
    with torch.no_grad():
        outputs["live"] = model(inputs)
        average.swap()
        outputs["averaged"] = model(inputs)
        average.swap()
        outputs["live again"] = model(inputs)
    return outputs | {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in average.tensors.items()
    }


def averaged_on_ranks() -> dict[str, Tensor]:
    model = network()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return averaged(model)


def test_sharded_weights_have_the_same_average() -> None:
    reference = averaged(network())
    assert torch.equal(reference["live"], reference["live again"])
    assert relative_error(reference["averaged"], reference["live"]) > 1e-2
    for result in run_ranks(2, averaged_on_ranks):
        assert result.keys() == reference.keys()
        for name, tensor in result.items():
            assert relative_error(tensor, reference[name]) <= 1e-6, name
