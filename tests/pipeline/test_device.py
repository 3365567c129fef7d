import pytest
import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.device import resolve_device, resolve_dtype


def test_auto_is_float32_on_the_cpu_and_bfloat16_elsewhere() -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown dtype 'int8'; one of auto, float32, bfloat16"):
        resolve_dtype("int8", torch.device("cpu"))


@pytest.mark.parametrize("device", ["toaster", "cpu:nine", "meta"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match=f"device '{device}' is not available here"):
        resolve_device(device)
