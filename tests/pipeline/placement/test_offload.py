"""Weights that visit the device, here from the CPU to the CPU: the logic, not the overlap."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import Captions, KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.pipeline.placement import offload
from pixart_sigma.pipeline.placement.offload import offloaded
from pixart_sigma.weights.transformer import with_kv_compression

CPU = torch.device("cpu")


def make() -> PixArtTransformer:
    torch.manual_seed(3)
    return PixArtTransformer(
        TransformerConfig(
            num_layers=5,
            num_attention_heads=2,
            attention_head_dim=12,
            caption_channels=16,
            kv_compression=KVCompression((2, 2), "conv", (3, 4)),
        )
    ).eval()


def prepared(model: PixArtTransformer) -> tuple[Captions, Any]:
    embeds = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
    return (
        model.prepare_captions(embeds, torch.arange(9) < torch.tensor([[9], [4]])),
        model.prepare_timesteps(torch.tensor([600.0, 300.0, 10.0])),
    )


def steps(model: PixArtTransformer) -> list[Tensor]:
    latents = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        captions, schedule = prepared(model)
        return [model(latents, captions, schedule[index]) for index in range(3)]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that were fetched, in order."""
    order: list[int] = []
    fetch = offload._Visits._fetch

    def spy(visits: offload._Visits, index: int) -> None:
        order.append(index)
        fetch(visits, index)
        assert len(visits._visiting) <= 2

    monkeypatch.setattr(offload._Visits, "_fetch", spy)
    return order


def test_results_are_equal_and_the_model_is_as_it_was() -> None:
    model = make()
    expected = steps(model)
    before = {name: (tensor.clone(), tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    with offloaded(model, CPU) as used:
        assert used is model
        for step, wanted in zip(steps(used), expected, strict=True):
            assert torch.equal(step, wanted)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.data_ptr() == before[name][1]
    for block in model.transformer_blocks:
        assert not {"forward", "modulation", "caption_keys_and_values"} & set(vars(block))
    assert torch.equal(steps(model)[0], expected[0])


def test_blocks_are_fetched_one_ahead_in_their_order(fetched: list[int]) -> None:
    model = make()
    with offloaded(model, CPU), torch.no_grad():
        captions, schedule = prepared(model)  # each of the two once through all blocks
        assert fetched == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
        fetched.clear()
        model(torch.randn(2, 4, 8, 6), captions, schedule[0])
        assert fetched == [1, 2, 3, 4, 0]


def test_two_blocks_at_most_are_on_the_device_and_the_one_that_computes_is() -> None:
    model = make()
    at_home = [block.attn1.to_q.weight.data_ptr() for block in model.transformer_blocks]
    seen = []

    def look(index: int) -> None:
        visiting = [
            number
            for number, block in enumerate(model.transformer_blocks)
            if block.attn1.to_q.weight.data_ptr() != at_home[number]
        ]
        assert index in visiting
        seen.append(len(visiting))

    with offloaded(model, CPU):
        for index, block in enumerate(model.transformer_blocks):
            block.attn1.to_q.register_forward_pre_hook(lambda *_, index=index: look(index))
        steps(model)
    assert set(seen) == {2}


def test_what_is_fetched_is_what_computes() -> None:
    """Weights at home are spoilt once they are on the device: a block that used them would show it."""
    model = make()
    expected = steps(model)
    with offloaded(model, CPU), torch.no_grad():
        captions, schedule = prepared(model)
        latents = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(2))
        assert torch.equal(model(latents, captions, schedule[0]), expected[0])
        visits = next(
            cell.cell_contents
            for cell in model.transformer_blocks[0].forward.__closure__
            if isinstance(cell.cell_contents, offload._Visits)
        )
        for index in visits._visiting:
            for kept in visits._kept[index]:
                kept.add_(1)
        first = model.transformer_blocks[0].attn1.to_q.weight
        assert not torch.equal(first, visits._kept[0][0])


def test_host_memory_holds_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's weights go where they were copied to before the next one's are copied; and with them those of the
    model that was compressed for one call.
    """
    model = make()
    weights = [block.attn1.to_q.weight for block in model.transformer_blocks]
    held = [weight.detach() for weight in weights]  # so that nothing else comes to lie where they are
    loaded = [weight.data_ptr() for weight in held]
    still: list[int] = []

    def copied(tensor: Tensor, device: torch.device) -> Tensor:
        still.append(sum(weight.data_ptr() == own for weight, own in zip(weights, loaded, strict=True)))
        return tensor.clone()

    monkeypatch.setattr(offload, "_in_host_memory", copied)
    with offloaded(with_kv_compression(model, KVCompression((2, 2), "average", (1, 2))), CPU):
        assert sorted(set(still), reverse=True) == [5, 4, 3, 2, 1]
        assert still == sorted(still, reverse=True)
        assert not {weight.data_ptr() for weight in weights} & set(loaded)


def test_after_an_error_weights_are_at_home_again() -> None:
    model = make()
    before = [tensor.data_ptr() for tensor in model.state_dict().values()]
    captions, schedule = prepared(model)
    with pytest.raises(InvalidInput), offloaded(model, CPU):
        model(torch.randn(2, 4, 7, 6), captions, schedule[0])
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == before
