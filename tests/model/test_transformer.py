import math

import pytest
import torch

from comparison import relative_error
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import Captions, KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.model.kv_compression import num_kept_tokens

CAPTION_CHANNELS = 12


def tiny(**options):
    torch.manual_seed(0)
    defaults = {
        "num_layers": 2,
        "num_attention_heads": 3,
        "attention_head_dim": 8,
        "sample_size": 16,
        "caption_channels": CAPTION_CHANNELS,
        "interpolation_scale": 1.0,
    }
    return PixArtTransformer(TransformerConfig(**(defaults | options)))  # torch's defaults: nothing is zero


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask_of(lengths, longest=None):
    return torch.arange(longest or max(lengths)) < torch.tensor(lengths)[:, None]


def run(model, latents, lengths=(5, 3), timesteps=(10.0, 800.0), **options):
    captions = model.prepare_captions(draw(len(lengths), max(lengths), CAPTION_CHANNELS), mask_of(lengths))
    return model(latents, captions, model.prepare_timesteps(torch.tensor(timesteps)), **options)


# Sizes


def test_parameter_counts_of_xl_2():
    with torch.device("meta"):
        plain = PixArtTransformer(TransformerConfig())
        compressed = PixArtTransformer(
            TransformerConfig(kv_compression=KVCompression((2, 2), "conv", tuple(range(14, 28))))
        )
    count = sum(parameter.numel() for parameter in plain.parameters())
    assert count == 610_856_096
    assert sum(parameter.numel() for parameter in compressed.parameters()) == count + 112_896


def test_only_the_named_blocks_compress():
    model = tiny(num_layers=4, kv_compression=KVCompression((2, 2), "conv", (1, 3)))
    with_weights = {name.split(".")[1] for name in model.state_dict() if "kv_compression" in name}
    assert with_weights == {"1", "3"}


@pytest.mark.parametrize("out_channels", [4, 8])
def test_output_channels(out_channels):
    assert run(tiny(out_channels=out_channels), draw(2, 4, 6, 10)).shape == (2, out_channels, 6, 10)


def test_patches_are_put_back_where_they_were():
    """With blocks that add nothing, a patch of the output depends on the same patch of the input alone."""
    model = tiny()
    with torch.no_grad():
        for block in model.transformer_blocks:
            block.attn1.to_out[0].weight.zero_()
            block.attn2.to_out[0].weight.zero_()
            block.ff.net[2].weight.zero_()
    latents = draw(2, 4, 6, 10)
    changed = latents.clone()
    changed[:, :, 2:4, 6:8] += 1
    difference = (run(model, changed) - run(model, latents)).abs().sum(dim=(0, 1))
    assert (difference[2:4, 6:8] > 1e-3).all()
    difference[2:4, 6:8] = 0
    assert difference.max() < 1e-5


# Captions


def test_ragged_captions_equal_each_alone():
    model = tiny()
    latents = draw(3, 4, 6, 8)
    embeds, lengths = draw(3, 19, CAPTION_CHANNELS), [19, 1, 6]
    timesteps = model.prepare_timesteps(torch.tensor([300.0]))
    together = model(latents, model.prepare_captions(embeds, mask_of(lengths)), timesteps)
    for row, length in enumerate(lengths):
        alone = model.prepare_captions(embeds[row : row + 1, :length], torch.ones(1, length))
        expected = model(latents[row : row + 1], alone, timesteps)
        assert relative_error(together[row : row + 1], expected) <= 1e-5


def test_padding_is_never_looked_at():
    model = tiny()
    latents, embeds, mask = draw(2, 4, 4, 4), draw(2, 300, CAPTION_CHANNELS), mask_of([20, 7], 300)
    timesteps = model.prepare_timesteps(torch.tensor([300.0]))
    clean = model(latents, model.prepare_captions(embeds, mask), timesteps)
    spoilt = torch.where(mask[..., None], embeds, torch.tensor(float("nan")))
    captions = model.prepare_captions(spoilt, mask)
    assert captions.length == 32  # 20, rounded up to a multiple of 16, not 300
    assert torch.equal(model(latents, captions, timesteps), clean)


def test_a_mask_with_holes_counts_its_tokens_only():
    model = tiny()
    latents, embeds = draw(1, 4, 4, 4), draw(1, 6, CAPTION_CHANNELS)
    timesteps = model.prepare_timesteps(torch.tensor([300.0]))
    kept = [0, 2, 5]
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[0, kept] = True
    holed = model(latents, model.prepare_captions(embeds, mask), timesteps)
    packed = model(latents, model.prepare_captions(embeds[:, kept], torch.ones(1, 3)), timesteps)
    assert relative_error(holed, packed) <= 1e-5


def test_full_captions_need_no_mask():
    model = tiny()
    assert model.prepare_captions(draw(2, 16, CAPTION_CHANNELS), torch.ones(2, 16)).mask is None
    assert model.prepare_captions(draw(2, 15, CAPTION_CHANNELS), torch.ones(2, 15)).mask is not None


@pytest.mark.parametrize("lengths", [([8, 8], [8, 8]), ([16, 16], [3, 5]), ([2, 5], [20, 1])])
def test_concatenated_captions_equal_their_parts(lengths):
    model = tiny()
    latents = draw(4, 4, 4, 6)
    timesteps = model.prepare_timesteps(torch.tensor([300.0]))
    parts = [
        model.prepare_captions(draw(2, max(part), CAPTION_CHANNELS, seed=seed), mask_of(part))
        for seed, part in enumerate(lengths)
    ]
    joined = Captions.concat(parts)
    assert len(joined) == 4
    expected = torch.cat([model(latents[:2], parts[0], timesteps), model(latents[2:], parts[1], timesteps)])
    assert relative_error(model(latents, joined, timesteps), expected) <= 1e-5


def test_repeated_captions_stay_together():
    model = tiny()
    captions = model.prepare_captions(draw(2, 5, CAPTION_CHANNELS), mask_of([5, 3]))
    repeated = captions.repeat(2)
    assert len(repeated) == 4
    assert torch.equal(repeated.keys, captions.keys[:, [0, 0, 1, 1]])
    assert torch.equal(repeated.values, captions.values[:, [0, 0, 1, 1]])
    assert torch.equal(repeated.mask, captions.mask[[0, 0, 1, 1]])


# Timesteps


def test_a_schedule_prepared_at_once_equals_its_steps():
    model = tiny()
    latents = draw(2, 4, 4, 4)
    captions = model.prepare_captions(draw(2, 5, CAPTION_CHANNELS), torch.ones(2, 5))
    schedule = model.prepare_timesteps(torch.tensor([900, 500, 20]))
    assert len(schedule) == 3
    for index, timestep in enumerate([900.0, 500.0, 20.0]):
        expected = model(latents, captions, model.prepare_timesteps(torch.tensor([timestep])))
        assert relative_error(model(latents, captions, schedule[index]), expected) <= 1e-5
    assert torch.equal(schedule[-1].blocks, schedule[2].blocks)
    with pytest.raises(IndexError):
        schedule[3]


def test_each_sample_has_its_own_timestep():
    model = tiny()
    latents = draw(2, 4, 4, 4)
    together = run(model, latents, lengths=(5, 5), timesteps=(10.0, 800.0))
    for row, timestep in enumerate([10.0, 800.0]):
        shared = run(model, latents, lengths=(5, 5), timesteps=(timestep,))
        assert relative_error(together[row], shared[row]) <= 1e-5


def test_micro_conditioning_changes_the_output_and_broadcasts():
    model = tiny(micro_conditioning=True)
    sizes, ratio = torch.tensor([[256.0, 512.0]]), torch.tensor([[0.5]])
    one = model.prepare_timesteps(torch.tensor([10.0, 20.0]), sizes, ratio)
    every = model.prepare_timesteps(torch.tensor([10.0, 20.0]), sizes.repeat(2, 1), ratio.repeat(2, 1))
    other = model.prepare_timesteps(torch.tensor([10.0, 20.0]), sizes.flip(1), ratio)
    assert torch.equal(one.blocks, every.blocks)
    assert not torch.allclose(one.blocks, other.blocks)


# Compression and qk-norm inside the model

OPERATORS = ["conv", "average", "nearest", "discard"]


@pytest.mark.parametrize("window", [(1, 2), (2, 1), (2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_runs_and_learns_on_every_grid(window, operator):
    model = tiny(kv_compression=KVCompression(window, operator, (0, 1)))
    for height, width in [(24, 24), (18, 14)]:
        grid = (height // 2, width // 2)
        kept = (
            torch.randperm(grid[0] * grid[1])[: num_kept_tokens(grid, window)]
            if operator == "discard"
            else None
        )
        model.zero_grad()
        output = run(model, draw(2, 4, height, width), kept_tokens=kept)
        assert output.shape == (2, 8, height, width)
        output.square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name


@pytest.mark.parametrize("operator", ["conv", "average", "nearest"])
def test_compression_changes_nothing_on_a_grid_of_equal_tokens(operator):
    """Attention over copies of one token is that token's value, compressed or not."""
    compressed = tiny(kv_compression=KVCompression((2, 2), operator, (0, 1), norm=False))
    plain = tiny()
    plain.load_state_dict({n: t for n, t in compressed.state_dict().items() if "kv_compression" not in n})
    tokens = draw(1, 1, 24).expand(2, 5 * 7, 24)
    for ours, theirs in zip(compressed.transformer_blocks, plain.transformer_blocks, strict=True):
        assert relative_error(ours.attn1(tokens, (5, 7), None), theirs.attn1(tokens, (5, 7), None)) <= 1e-5


def test_selecting_before_projecting_is_selecting_after():
    """Nearest tokens are picked before keys and values are projected; by definition, keys and values are
    picked.
    """
    model = tiny(qk_norm=True, kv_compression=KVCompression((2, 2), "nearest", (0,)))
    attention = model.transformer_blocks[0].attn1
    tokens, grid = draw(2, 4 * 6, 24), (4, 6)

    def heads(x):
        return x.unflatten(-1, (3, 8)).transpose(1, 2)

    queries = attention.q_norm(attention.to_q(tokens))
    keys = attention.kv_compression.windows(attention.k_norm(attention.to_k(tokens)), grid, None).squeeze(2)
    values = attention.kv_compression.windows(attention.to_v(tokens), grid, None).squeeze(2)
    weights = (heads(queries) @ heads(keys).transpose(-1, -2) / math.sqrt(8)).softmax(-1)
    expected = attention.to_out[0]((weights @ heads(values)).transpose(1, 2).flatten(2))
    assert relative_error(attention(tokens, grid, None), expected) <= 1e-5


def test_qk_norm_bounds_queries_and_keys():
    """The norm is over the whole width: scaling the query and key projections changes nothing."""
    model = tiny(qk_norm=True)
    names = {name for name in model.state_dict() if "_norm." in name}
    assert names == {
        f"transformer_blocks.{block}.attn1.{which}_norm.{leaf}"
        for block in range(2)
        for which in "qk"
        for leaf in ("weight", "bias")
    }
    assert model.transformer_blocks[0].attn1.q_norm.weight.shape == (24,)
    latents = draw(2, 4, 4, 6)
    before = run(model, latents)
    with torch.no_grad():
        for block in model.transformer_blocks:
            for projection in (block.attn1.to_q, block.attn1.to_k):
                projection.weight.mul_(100)
                projection.bias.mul_(100)
    assert relative_error(run(model, latents), before) <= 1e-2  # LayerNorm's epsilon


# Purity, gradients, precision, compilation


def test_forward_is_a_function_of_its_inputs():
    model = tiny(kv_compression=KVCompression((2, 2), "conv", (1,)))
    first, second = draw(2, 4, 6, 8), draw(2, 4, 10, 4, seed=1)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = first.clone()
    expected = run(model, first)
    run(model, second)  # another size in between leaves no trace
    random_state = torch.get_rng_state()
    model.train()
    in_training = run(model, first)
    model.eval()
    assert torch.equal(run(model, first), expected)
    assert torch.equal(in_training, expected)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(first, inputs)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_gradients_reach_every_parameter_and_input():
    model = tiny(qk_norm=True, micro_conditioning=True, kv_compression=KVCompression((2, 2), "conv", (0,)))
    latents = draw(2, 4, 6, 8).requires_grad_()
    embeds = draw(2, 5, CAPTION_CHANNELS).requires_grad_()
    mask = mask_of([5, 3])
    captions = model.prepare_captions(embeds, mask)
    timesteps = model.prepare_timesteps(
        torch.tensor([5.0, 900.0]), torch.full((2, 2), 64.0), torch.ones(2, 1)
    )
    model(latents, captions, timesteps).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert latents.grad.any()
    assert torch.equal(embeds.grad.abs().sum(-1) > 0, mask)


def test_gradients_are_right():
    model = tiny(
        num_layers=1,
        num_attention_heads=1,
        attention_head_dim=4,
        kv_compression=KVCompression((2, 2), "conv", (0,)),
    ).double()
    captions = draw(1, 3, CAPTION_CHANNELS).double().requires_grad_()
    latents = draw(1, 4, 2, 6).double().requires_grad_()

    def output(latents, embeds):
        prepared = model.prepare_captions(embeds, torch.ones(1, 3))
        return model(latents, prepared, model.prepare_timesteps(torch.tensor([300.0])))

    assert torch.autograd.gradcheck(output, (latents, captions), fast_mode=True)


def test_bfloat16_is_close_and_keeps_its_dtype():
    model = tiny(qk_norm=True, kv_compression=KVCompression((2, 2), "conv", (1,)))
    latents = draw(2, 4, 6, 8)
    expected = run(model, latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(run(model, latents).float(), expected) < 0.05
    output = run(model.bfloat16(), latents)
    assert output.dtype == torch.bfloat16
    assert relative_error(output.float(), expected) < 0.05


# Torch's compiler warns of its own doings, and takes a warning made an error for a failure to compile.
@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning:torch")
def test_compiles_without_graph_breaks():
    model = tiny(kv_compression=KVCompression((2, 2), "conv", (1,)))
    # Tracing and its autograd are ours to keep possible; what a backend makes of the graph is not.
    compiled = torch.compile(model.forward, fullgraph=True, backend="aot_eager")
    captions = model.prepare_captions(draw(2, 5, CAPTION_CHANNELS), mask_of([5, 3]))
    timesteps = model.prepare_timesteps(torch.tensor([5.0, 900.0]))
    latents = draw(2, 4, 6, 8)
    output = compiled(latents, captions, timesteps)
    assert relative_error(output, model(latents, captions, timesteps)) <= 1e-5
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# Initialisation


def test_fresh_weights_predict_nothing_yet_but_learn():
    model = tiny(kv_compression=KVCompression((2, 2), "conv", (1,)))
    model.initialise_weights(generator=torch.Generator().manual_seed(3))
    captions, latents = draw(2, 5, CAPTION_CHANNELS), draw(2, 4, 4, 4)
    target = draw(2, 8, 4, 4, seed=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        output = model(
            latents,
            model.prepare_captions(captions, torch.ones(2, 5)),
            model.prepare_timesteps(torch.tensor([5.0, 900.0])),
        )
        if not losses:
            assert not output.any()
        loss = (output - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("compression", ["average", "random"])
def test_initialisation_follows_its_generator(compression):
    def weights(seed):
        model = tiny(kv_compression=KVCompression((2, 2), "conv", (1,)))
        model.initialise_weights(compression, torch.Generator().manual_seed(seed))
        return model.state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["scale_shift_table"], other["scale_shift_table"])
    kernel = first["transformer_blocks.1.attn1.kv_compression.conv.weight"]
    assert bool((kernel == 0.25).all()) is (compression == "average")


# Refusals


def test_refusals():
    model = tiny()
    captions = model.prepare_captions(draw(1, 5, CAPTION_CHANNELS), torch.ones(1, 5))
    timesteps = model.prepare_timesteps(torch.tensor([5.0]))
    with pytest.raises(InvalidInput, match="5x6 are not a multiple of the patch size 2"):
        model(draw(1, 4, 5, 6), captions, timesteps)
    with pytest.raises(InvalidInput, match="do not fit"):
        model.prepare_captions(draw(1, 5, CAPTION_CHANNELS), torch.ones(1, 4))
    with pytest.raises(InvalidInput, match="7 channels, the model takes 12"):
        model.prepare_captions(draw(1, 5, 7), torch.ones(1, 5))
    with pytest.raises(InvalidInput, match="no tokens"):
        model.prepare_captions(draw(2, 5, CAPTION_CHANNELS), mask_of([5, 0]))
    with pytest.raises(InvalidInput, match="takes no image_size"):
        model.prepare_timesteps(torch.tensor([5.0]), torch.ones(1, 2), torch.ones(1, 1))
    with pytest.raises(InvalidInput, match="needs image_size"):
        tiny(micro_conditioning=True).prepare_timesteps(torch.tensor([5.0]))
    with pytest.raises(InvalidInput, match="needs image_size"):
        tiny(micro_conditioning=True).prepare_timesteps(torch.tensor([5.0]), torch.ones(1, 2))
