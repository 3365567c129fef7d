import pytest
import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.device import resolve_device, resolve_dtype


def test_auto_is_bfloat16_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("mps")) == torch.bfloat16
    for capability, dtype in {(7, 5): torch.float32, (8, 0): torch.bfloat16, (9, 0): torch.bfloat16}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert resolve_dtype("auto", torch.device("cuda")) == dtype


def test_a_full_device_is_not_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*sizes: int, device: str) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(torch.OutOfMemoryError):
        resolve_device("cuda")


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown dtype 'int8'; one of auto, float32, bfloat16"):
        resolve_dtype("int8", torch.device("cpu"))


@pytest.mark.parametrize("device", ["toaster", "cpu:nine", "meta"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match=f"device '{device}' is not available here"):
        resolve_device(device)
