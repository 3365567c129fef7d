from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from comparison import relative_error
from pixart_sigma.model.compilation import compile_blocks
from pixart_sigma.training.parallel.activations import recompute_activations
from tiny_objective import Objective, batch_of

# Dynamo asks every tensor for its gradient and hides the warning by a way that "warnings are errors" precedes.
torch_looks_at_gradients = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


class Counted(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.calls[operation.overloadpacket.__name__] += 1
        return operation(*arguments, **(named or {}))


def gradients(model: Objective, bf16: bool = False) -> tuple[Tensor, list[Tensor], Counter[str]]:
    with Counted() as counted:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(batch_of(0, 4))["loss"]
        loss.backward()
    return loss.detach(), [weight.grad for weight in model.parameters()], counted.calls


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("what", ["selective", "full"])
def test_recomputing_changes_nothing_but_the_work(what: Any, bf16: bool) -> None:
    plain, changed = Objective(), Objective()
    recompute_activations(changed.blocks(), what)
    assert list(changed.state_dict()) == list(plain.state_dict())
    loss, expected, work = gradients(plain, bf16)
    its_loss, found, its_work = gradients(changed, bf16)
    assert torch.equal(its_loss, loss)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # A GELU a block again; products and attention only where nothing is kept.
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    assert its_work["gelu"] == work["gelu"] + 2
    assert its_work[attention] == work[attention] * (2 if what == "full" else 1)
    assert (its_work["addmm"] > work["addmm"]) == (what == "full")


def test_none_changes_nothing() -> None:
    model = Objective()
    recompute_activations(model.blocks(), "none")
    assert all("forward" not in vars(block) for block in model.blocks())


@torch_looks_at_gradients
@pytest.mark.parametrize("what", ["none", "selective", "full"])
def test_blocks_share_one_compilation(what: Any) -> None:
    plain, changed = Objective(num_layers=12), Objective(num_layers=12)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    recompute_activations(changed.blocks(), what)
    compile_blocks(changed.blocks(), backend=counter)
    assert list(changed.state_dict()) == list(plain.state_dict())
    loss, expected, _ = gradients(plain)
    for _ in range(2):
        changed.zero_grad()
        its_loss = changed(batch_of(0, 4))["loss"]
        its_loss.backward()
    assert relative_error(its_loss, loss) < 1e-6
    for weight, gradient in zip(changed.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 2  # blocks with and without compression


@pytest.mark.slow
@torch_looks_at_gradients
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # by inductor itself
@pytest.mark.parametrize("what", ["none", "selective"])
def test_compiled_kernels_compute_the_same(what: Any) -> None:
    plain, changed = Objective(), Objective()
    recompute_activations(changed.blocks(), what)
    compile_blocks(changed.blocks())
    loss, expected, _ = gradients(plain)
    its_loss = changed(batch_of(0, 4))["loss"]
    its_loss.backward()
    assert relative_error(its_loss, loss) < 1e-5
    for weight, gradient in zip(changed.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)
