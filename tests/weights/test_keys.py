import re

import pytest
import torch

from comparison import load_golden
from pixart_sigma.errors import WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.keys import OFFICIAL_BUFFERS, OFFICIAL_NAMES, from_official, to_official


@pytest.mark.parametrize(
    ("golden", "micro_conditioning", "compressed"),
    [
        ("sigma_plain_square", False, ()),
        ("alpha_micro_condition", True, ()),
        ("sigma_kv_conv2_deep", False, (2, 3)),
    ],
)
def test_official_names_become_exactly_ours(
    golden: str, micro_conditioning: bool, compressed: tuple[int, ...]
) -> None:
    tensors, _ = load_golden(golden)
    official = {
        name.removeprefix("state_dict."): value for name, value in tensors.items() if "state_dict" in name
    }
    config = TransformerConfig(
        num_layers=4,
        num_attention_heads=4,
        attention_head_dim=12,
        caption_channels=24,
        micro_conditioning=micro_conditioning,
        kv_compression=KVCompression((2, 2), "conv", compressed) if compressed else None,
    )
    ours, leftovers = from_official(official)

    expected = {name: tensor.shape for name, tensor in PixArtTransformer(config).state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.items()} == expected
    assert set(leftovers) == set(OFFICIAL_BUFFERS)
    back = to_official(ours)
    assert back.keys() | set(OFFICIAL_BUFFERS) == official.keys()
    assert all(torch.equal(tensor, official[name]) for name, tensor in back.items())


def test_fused_rows_are_split_in_their_order() -> None:
    qkv = torch.arange(6.0)
    ours, leftovers = from_official(
        {"blocks.12.attn.qkv.bias": qkv, "blocks.3.cross_attn.kv_linear.weight": qkv[:4]}
    )
    assert {name: tensor.tolist() for name, tensor in ours.items()} == {
        "transformer_blocks.12.attn1.to_q.bias": [0, 1],
        "transformer_blocks.12.attn1.to_k.bias": [2, 3],
        "transformer_blocks.12.attn1.to_v.bias": [4, 5],
        "transformer_blocks.3.attn2.to_k.weight": [0, 1],
        "transformer_blocks.3.attn2.to_v.weight": [2, 3],
    }
    assert not leftovers


def test_unknown_names_are_left_over() -> None:
    ours, leftovers = from_official({"blocks.0.attn.lora_down.weight": torch.ones(1)})
    assert not ours
    assert set(leftovers) == {"blocks.0.attn.lora_down.weight"}


def test_no_two_official_names_share_one_of_ours() -> None:
    targets = [target for names in OFFICIAL_NAMES.values() for target in names]
    assert len(set(targets)) == len(targets)
    assert all(
        ("{}" in source) == ("{}" in target) for source, names in OFFICIAL_NAMES.items() for target in names
    )
    assert not any(re.search(r"\.(weight|bias)$", target) for target in targets)


def test_what_cannot_be_fused_is_named() -> None:
    query, key, value = (f"transformer_blocks.7.attn1.to_{letter}.bias" for letter in "qkv")
    with pytest.raises(WeightsError, match=r"blocks\.7\.attn\.qkv\.bias cannot be made"):
        to_official({query: torch.ones(2), key: torch.ones(2)})
    with pytest.raises(WeightsError, match="not all there in one dtype"):
        to_official({query: torch.ones(2), key: torch.ones(2), value: torch.ones(2).half()})
    with pytest.raises(WeightsError, match="stray has no place in the official layout"):
        to_official({"stray": torch.ones(2)})


def test_rows_that_are_no_equal_parts_are_named() -> None:
    with pytest.raises(WeightsError, match=r"blocks\.0\.cross_attn\.kv_linear\.bias has shape \[3\]"):
        from_official({"blocks.0.cross_attn.kv_linear.bias": torch.ones(3)})


@pytest.mark.parametrize(
    "name", ["x_embedder.proj.bias\n", "\n", "a\nb.weight", "blocks.\u0663.attn.proj.bias"]
)
def test_a_strange_name_is_nobodys(name: str) -> None:
    bias = torch.ones(1)
    ours, leftovers = from_official({"x_embedder.proj.bias": bias, name: torch.zeros(1)})
    assert ours.keys() == {"pos_embed.proj.bias"}
    assert ours["pos_embed.proj.bias"] is bias
    assert set(leftovers) == {name}
    with pytest.raises(WeightsError, match="has no place in the official layout"):
        to_official({name: bias})
