"""The reference is held against values worked out by hand, and the library against the reference."""

import pytest
import torch

from pixart_sigma.benchmark.growth.reference import plain_attention, written_plainly
from pixart_sigma.benchmark.growth.scenarios import TINY, Scenario, Way, config_in, draw_inputs
from pixart_sigma.model import KVCompression, PixArtTransformer
from pixart_sigma.model.attention import SelfAttention

GRID = (2, 3)


def test_one_key_stands_for_a_window() -> None:
    """With queries of zero every key counts alike: what comes out is the mean of the compressed values."""
    tokens = torch.arange(12.0).reshape(1, 6, 2)
    weights = {f"to_{name}.bias": torch.zeros(2) for name in ("q", "k", "v", "out.0")}
    weights |= {f"to_{name}.weight": torch.eye(2) for name in ("k", "v", "out.0")}
    weights["to_q.weight"] = torch.zeros(2, 2)
    compression = KVCompression((2, 2), "average", (0,))
    # The first channel of the grid is 0, 2, 4 over 6, 8, 10, and the last column is repeated.
    windows = [(0 + 2 + 6 + 8) / 4, (4 + 4 + 10 + 10) / 4]
    found = plain_attention(weights, 1, tokens, GRID, compression)
    assert found[0, :, 0].tolist() == pytest.approx([sum(windows) / 2] * 6)
    whole = plain_attention(weights, 1, tokens, GRID, None)
    assert whole[0, :, 0].tolist() == pytest.approx([5.0] * 6)


@pytest.mark.parametrize("way", ["R = 1", "2x2 conv", "2x2 average"])
@pytest.mark.parametrize("scenario", TINY["kv-compression"], ids=lambda scenario: scenario.name)
def test_the_library_computes_what_is_written_plainly(
    scenario: Scenario, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = PixArtTransformer(config_in(scenario.config, way)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = draw_inputs(scenario)
    with torch.no_grad():
        captions = model.prepare_captions(inputs.embeds, inputs.mask)
        timesteps = model.prepare_timesteps(torch.tensor([500]))
        ours = model(inputs.latents, captions, timesteps)
        with written_plainly(model), monkeypatch.context() as patch:
            patch.delattr(SelfAttention, "keys_and_values")  # what the library computes with
            plain = model(inputs.latents, captions, timesteps)
        again = model(inputs.latents, captions, timesteps)
    assert (ours - plain).abs().max() <= 1e-4 * plain.abs().max()
    assert torch.equal(ours, again)
