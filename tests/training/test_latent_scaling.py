import json
from pathlib import Path

import pytest
import torch

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.latent_scaling import (
    LatentStatistics,
    choose_scaling,
    estimate_latent_statistics,
    write_latent_scaling,
)

MEAN = torch.tensor([0.5, -3.0, 40.0])
STD = torch.tensor([2.0, 0.1, 5.0])


def latents(*shape: int) -> torch.Tensor:
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
    return noise * STD[:, None, None] + MEAN[:, None, None]


def test_statistics_are_those_of_all_positions_whatever_the_batches() -> None:
    batches = [latents(3, 3, 4, 6), latents(1, 3, 16, 2), latents(2, 3, 4, 4)]
    measured = estimate_latent_statistics(iter(batches))
    together = torch.cat([batch.transpose(0, 1).flatten(1) for batch in batches], dim=1).double()
    assert measured.num_images == 6
    assert measured.mean == pytest.approx(together.mean(1).tolist(), rel=1e-9)
    assert measured.std == pytest.approx(together.std(1, correction=0).tolist(), rel=1e-9)
    assert measured.scaling_factor == pytest.approx(1 / float(together.std(correction=0)), rel=1e-9)
    assert ((together - together.mean()) * measured.scaling_factor).std() == pytest.approx(1, rel=1e-2)


def test_half_precision_latents_are_summed_in_full() -> None:
    batch = latents(8, 3, 32, 32).bfloat16()
    assert estimate_latent_statistics([batch]) == estimate_latent_statistics([batch.float()])


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no latents"):
        estimate_latent_statistics([])
    with pytest.raises(InvalidInput, match="4 channels follow latents of 3"):
        estimate_latent_statistics([torch.randn(1, 3, 2, 2), torch.randn(1, 4, 2, 2)])
    for alike in (
        torch.zeros(2, 3, 4, 4),
        torch.full((2, 3, 4, 4), 0.3),
        torch.full((2, 3, 4, 4), torch.nan),
    ):
        with pytest.raises(InvalidInput, match="standard deviation is"):
            estimate_latent_statistics([alike])


@pytest.mark.parametrize(("policy", "expected"), [("estimate", 0.25), ("config", 0.13025)])
def test_both_factors_are_recorded_whichever_is_used(policy: str, expected: float, tmp_path: Path) -> None:
    statistics = LatentStatistics((0.0, 1.0), (4.0, 4.0), 0.25, 32)
    scaling, change = choose_scaling(policy, 0.13025, 0.1159, statistics)
    assert (scaling.scaling_factor, scaling.shift_factor) == (expected, 0.1159)
    assert (change.name, change.action) == ("vae.scaling_factor", "configured")
    assert change.detail.startswith(f"{expected} ({policy})")
    for number in ("0.13025", "0.25", "32 images", "0.1159"):
        assert number in change.detail
    write_latent_scaling(scaling, tmp_path / "scaling.json")
    assert json.loads((tmp_path / "scaling.json").read_text()) == {
        "policy": policy,
        "scaling_factor": expected,
        "shift_factor": 0.1159,
        "config_scaling_factor": 0.13025,
        "statistics": {"mean": [0, 1], "std": [4, 4], "scaling_factor": 0.25, "num_images": 32},
    }
