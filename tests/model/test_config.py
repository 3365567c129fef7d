import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression, TransformerConfig


def test_defaults_are_sigma_xl_2():
    config = TransformerConfig()
    assert (config.width, config.base_grid, config.micro_conditioning) == (1152, 64, False)


@pytest.mark.parametrize(
    ("window", "ratio"), [((1, 2), 2), ((2, 1), 2), ((2, 2), 4), ((3, 3), 9), ((4, 4), 16)]
)
def test_ratio_follows_from_the_window(window, ratio):
    assert KVCompression(window, "average", (0,)).ratio == ratio


def test_norm_belongs_to_conv():
    assert KVCompression((2, 2), "conv", (0,)).norm is True
    assert KVCompression((2, 2), "conv", (0,), norm=False).norm is False
    assert KVCompression((2, 2), "average", (0,)).norm is False
    with pytest.raises(InvalidInput, match="norm belongs to operator 'conv'"):
        KVCompression((2, 2), "average", (0,), norm=True)


def test_lists_and_order_do_not_matter():
    assert KVCompression([2, 2], "conv", [3, 1]) == KVCompression((2, 2), "conv", (1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1, 1), "conv", (0,)), "1x1 compresses nothing"),
        (((0, 2), "conv", (0,)), "0x2"),
        (((2, 2), "ave", (0,)), "unknown compression operator 'ave'"),
        (((2, 2), "conv", ()), "names no blocks"),
        (((2, 2), "conv", (1, 1)), "twice"),
    ],
)
def test_impossible_compression_is_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        KVCompression(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"interpolation_scale": -1.0}, "interpolation_scale is -1"),
        ({"num_attention_heads": 3, "attention_head_dim": 6}, "multiple of 4"),
        ({"num_attention_heads": 4, "attention_head_dim": 8, "micro_conditioning": True}, "multiple of 3"),
        ({"num_layers": 4, "kv_compression": KVCompression((2, 2), "conv", (3, 4))}, r"blocks \[4\]"),
    ],
)
def test_impossible_transformer_is_refused(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        TransformerConfig(**arguments)
