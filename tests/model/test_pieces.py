"""Working in pieces: equal to the whole, less memory, and no scores. The thresholds are lowered to tiny sizes."""

import subprocess
import sys
import weakref

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from comparison import relative_error
from pixart_sigma.model import Captions, KVCompression, PixArtTransformer, Timesteps, TransformerConfig
from pixart_sigma.model import activation_memory as memory
from pixart_sigma.model import attention as attention_module
from pixart_sigma.model.activation_memory import activation_bytes, condition_bytes
from pixart_sigma.model.attention import attend

COMPRESSIONS = [
    None,
    *(KVCompression((2, 2), operator, (1,)) for operator in ("conv", "average", "nearest", "discard")),
]


def tiny(compression=None, **options):
    torch.manual_seed(0)
    defaults = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "caption_channels": 16}
    return PixArtTransformer(TransformerConfig(**(defaults | options), kv_compression=compression))


def conditions(model, batch=2):
    mask = torch.arange(20) < torch.tensor([[20], [7]])[:batch]
    return (
        model.prepare_captions(torch.randn(batch, 20, model.config.caption_channels), mask),
        model.prepare_timesteps(torch.tensor([1.0, 700.0])[:batch]),
    )


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything of more than 20 rows is cut, into pieces of 7 tokens of two samples."""
    monkeypatch.setattr(memory, "MANY_ROWS", 20)
    monkeypatch.setattr(memory, "PIECE_ROWS", 15)


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=lambda one: one and one.operator)
def test_pieces_equal_the_whole(monkeypatch: pytest.MonkeyPatch, few_rows: None, compression) -> None:
    model = tiny(compression)
    captions, timesteps = conditions(model)
    latents = torch.randn(2, 4, 18, 14)
    kept = torch.arange(20) if compression is not None and compression.operator == "discard" else None
    expected = model(latents, captions, timesteps, kept)  # with gradients
    assert expected.requires_grad
    rows = set()
    monkeypatch.setattr(
        model.transformer_blocks[0].ff,
        "forward",
        lambda tokens: (
            rows.add(tokens.shape[1])
            or type(model.transformer_blocks[0].ff).forward(model.transformer_blocks[0].ff, tokens)
        ),
    )
    given = latents.clone()
    with torch.no_grad():
        assert relative_error(model(latents, captions, timesteps, kept), expected) <= 1e-5
    assert rows == {7}  # 63 tokens
    assert torch.equal(latents, given)


def test_with_gradients_and_for_few_tokens_nothing_is_cut(
    few_rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    captions, timesteps = conditions(model)
    seen = []
    for block in model.transformer_blocks:
        block.ff.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(torch.randn(2, 4, 18, 14), captions, timesteps)
    with torch.no_grad():
        model(torch.randn(2, 4, 4, 10), captions, timesteps)
    assert seen == [63, 63, 10, 10]


def test_pieces_compile(few_rows: None) -> None:
    """A block's graph is one, whatever is cut in it."""
    model = tiny(COMPRESSIONS[1])
    latents = torch.randn(2, 4, 12, 14)
    with torch.no_grad():
        captions, timesteps = conditions(model)
        expected = model(latents, captions, timesteps)
        for block in model.transformer_blocks:
            block.forward = torch.compile(block.forward, backend="eager", fullgraph=True)
        assert relative_error(model(latents, captions, timesteps), expected) <= 1e-5


# Attention


def qkv(num_keys=40, num_queries=30):
    return (
        torch.randn(2, num_queries, 3, 8).transpose(1, 2),
        torch.randn(2, 3, num_keys, 8),
        torch.randn(2, 3, num_keys, 8),
    )


@pytest.mark.parametrize("masked", [False, True])
def test_attention_without_a_kernel_is_cut_and_exact(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    queries, keys, values = qkv()
    mask = (torch.arange(40) < torch.tensor([[40], [11]]))[:, None, None] if masked else None
    expected = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    sizes = []
    whole = F.scaled_dot_product_attention

    def spy(queries, keys, values, attn_mask=None):
        sizes.append(queries.shape[:3].numel() * keys.shape[2])
        return whole(queries, keys, values, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(attention_module, "MOST_SCORES", 1000)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        attended = attend(queries, keys, values, mask)
    assert relative_error(attended, expected) <= 1e-5
    assert attended.stride() == queries.stride()  # heads are put together again without a copy
    assert max(sizes) <= 1000
    assert len(sizes) == 9  # 3 heads of 12, 12 and 6 queries


def test_attention_with_a_kernel_or_gradients_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values = qkv()
    calls = []
    whole = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **named: calls.append(1) or whole(*args, **named)
    )
    monkeypatch.setattr(attention_module, "MOST_SCORES", 1)
    with torch.no_grad():
        attend(queries, keys, values)
    assert len(calls) == 1
    with sdpa_kernel(SDPBackend.MATH):
        attend(queries, keys, values)
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_has_a_kernel_for_our_attention_with_and_without_mask(dtype: torch.dtype) -> None:
    """XL/2's heads, a broadcast mask: no matrix of scores."""
    queries = torch.randn(2, 700, 16, 72, dtype=dtype).transpose(1, 2)
    keys = torch.randn(2, 16, 304, 72, dtype=dtype)
    mask = (torch.arange(304) < torch.tensor([[300], [2]]))[:, None, None]
    with torch.no_grad():
        for given in (None, mask):
            assert attention_module._has_kernel(queries, keys, keys, given)


# How much


class LiveBytes(TorchDispatchMode):
    """The most bytes of tensors that lived at once of those made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for given, tensors in ((True, (args, kwargs)), (False, result)):
            for tensor in tree_leaves(tensors):
                storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
                if storage is not None and storage not in self.known:
                    self.known.add(storage)
                    if not given:
                        self.now += storage.nbytes()
                        self.peak = max(self.peak, self.now)
                        weakref.finalize(storage, self.leave, storage.nbytes())
        return result

    def leave(self, num_bytes):
        self.now -= num_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("grid", [(64, 64), (135, 240), (256, 256)])
@pytest.mark.parametrize(
    "compression",
    [
        None,
        KVCompression((2, 2), "average", (1,)),
        *(KVCompression((2, 2), operator, (0, 1)) for operator in ("conv", "average", "nearest")),
    ],
    ids=lambda one: one and f"{one.operator}-{len(one.blocks)}",
)
def test_activation_bytes_are_what_lives_at_once(monkeypatch, compression, grid, batch, dtype) -> None:
    """On the meta device, where attention's kernel is stood in for by its result alone."""
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda queries, *_, attn_mask=None: torch.empty_like(queries)
    )
    config = TransformerConfig(num_layers=2, caption_channels=16, kv_compression=compression)
    heads, head_dim = config.num_attention_heads, config.attention_head_dim
    with torch.device("meta"):
        model = PixArtTransformer(config).to(dtype)
        latents = torch.empty(batch, 4, 2 * grid[0], 2 * grid[1])
        keys = torch.empty(2, batch, heads, 304, head_dim, dtype=dtype)
        captions = Captions(keys, keys, torch.empty(batch, 1, 1, 304, dtype=torch.bool))
        rows = torch.empty(2, 1, 6, config.width, dtype=dtype)
        timesteps = Timesteps(rows, torch.empty(1, 2, config.width, dtype=dtype))
    with torch.no_grad(), LiveBytes() as live:
        model(latents, captions, timesteps)
    predicted = activation_bytes(config, grid, batch, dtype.itemsize)
    assert predicted == pytest.approx(live.peak, rel=0.02)
    if grid != (64, 64):  # whole, it would be 12 times the tokens
        assert predicted < 5 * batch * grid[0] * grid[1] * config.width * dtype.itemsize


@pytest.mark.parametrize("qk_norm", [False, True])
def test_projections_that_are_not_plain_take_each_token(
    monkeypatch: pytest.MonkeyPatch, qk_norm: bool
) -> None:
    """As in 8 bits; what such a layer needs for itself is counted elsewhere."""

    class OtherLinear(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.weight, self.bias = linear.weight, linear.bias

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return F.linear(tokens, self.weight, self.bias)

    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda queries, *_, attn_mask=None: torch.empty_like(queries)
    )
    config = TransformerConfig(
        num_layers=1,
        caption_channels=16,
        qk_norm=qk_norm,
        kv_compression=KVCompression((2, 2), "conv", (0,)),
    )
    grid, peaks = (135, 240), {}
    said = {plain: activation_bytes(config, grid, 2, 4, plain_projections=plain) for plain in (True, False)}
    for plain in (True, False):
        with torch.device("meta"):
            model = PixArtTransformer(config).eval()
            tokens = torch.empty(2, grid[0] * grid[1], config.width)
        attention = model.transformer_blocks[0].attn1
        if not plain:
            for name in ("to_q", "to_k", "to_v"):
                setattr(attention, name, OtherLinear(getattr(attention, name)))
        with torch.no_grad(), LiveBytes() as live:
            attention(tokens + 0, grid, None)
        peaks[plain] = live.peak + tokens.nbytes  # the residual
        # Beyond it is the copy that a convolution may make of its input, and makes on no meta device.
        assert peaks[plain] <= 1.001 * said[plain] <= 1.2 * peaks[plain]
    if qk_norm:  # keys are taken token by token in any case
        assert said[True] == said[False]
    else:
        assert said[True] < 0.9 * peaks[False]


def test_condition_bytes_are_those_of_the_conditions() -> None:
    model = tiny()
    captions, _ = conditions(model)
    timesteps = model.prepare_timesteps(torch.arange(5.0))
    tensors = (captions.keys, captions.values, timesteps.blocks, timesteps.output)
    assert condition_bytes(model.config, 2, 20, 5, 4) == sum(tensor.nbytes for tensor in tensors)


def test_plans_need_no_torch() -> None:
    code = "import sys, pixart_sigma.model.activation_memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
