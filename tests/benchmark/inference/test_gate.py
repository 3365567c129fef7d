import pytest
import torch

from pixart_sigma.benchmark.inference.gate import compare

OTHER = {"latents": torch.tensor([1.0, -2.0])}


@pytest.mark.parametrize(
    ("latents", "dtype", "failure"),
    [
        ([1.0, -2.0], torch.float32, None),
        ([1.0001, -2.0], torch.float32, None),
        ([1.001, -2.0], torch.float32, "the two sides differ: latents 0.0005, allowed is 0.0001"),
        ([1.05, -2.0], torch.bfloat16, None),
        ([1.0, float("nan")], torch.bfloat16, "latents nan"),
        ([1.0, -2.0, 0.0], torch.bfloat16, "latents inf"),
    ],
)
def test_the_gate_takes_the_largest_error(
    latents: list[float], dtype: torch.dtype, failure: str | None
) -> None:
    found = compare({"latents": torch.tensor(latents)}, OTHER, dtype).failure
    if failure is None:
        assert found is None
    else:
        assert found is not None
        assert failure in found


def test_an_output_that_one_side_lacks_is_a_failure() -> None:
    found = compare(OTHER | {"pixels": torch.ones(1)}, OTHER, torch.float32)
    assert found.errors == {"latents": 0.0, "pixels": float("inf")}
    assert found.failure is not None
