"""Each operation on a tiny transformer: saved, loaded again, run, and compared with the model it was made from."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from comparison import relative_error
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.training.recipe.start import StartRecipe
from pixart_sigma.training.surgery import (
    Change,
    compressed_blocks,
    operate,
    summarise,
    write_surgery_log,
)
from pixart_sigma.weights.transformer import load_transformer, save_transformer

CONFIG = TransformerConfig(
    num_layers=4,
    num_attention_heads=2,
    attention_head_dim=12,
    sample_size=16,
    caption_channels=16,
    interpolation_scale=0.25,
)
CONV = ("conv.weight", "conv.bias", "norm.weight", "norm.bias")


@dataclass
class Case:
    """What an operation made of the tiny transformer."""

    old: PixArtTransformer
    new: PixArtTransformer
    changes: list[Change]

    def names(self, action: str) -> set[str]:
        return {change.name for change in self.changes if change.action == action}

    def detail(self, name: str) -> str:
        (detail,) = [change.detail for change in self.changes if change.name == name]
        return detail


def trained(config: TransformerConfig = CONFIG) -> PixArtTransformer:
    """No tensor at the value that it would have if it were made, so that a reset shows."""
    model = PixArtTransformer(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def start(**values: Any) -> StartRecipe:
    return StartRecipe.model_validate({"model": "start", **values})


def case(
    folder: Path,
    config: TransformerConfig = CONFIG,
    channels: int | None = None,
    seed: int = 0,
    **values: Any,
) -> Case:
    """The operation's result after a save and a load; the log is complete whatever was done."""
    old = trained(config)
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    new_config, state, changes = operate(config, old.state_dict(), start(**values), seed, channels)
    model = PixArtTransformer(new_config)
    model.load_state_dict(state)
    save_transformer(model, folder)
    new = load_transformer(folder)
    assert new.config == new_config
    result = Case(old, new, changes)

    after = new.state_dict()
    assert all(torch.equal(old.state_dict()[name], tensor) for name, tensor in before.items())
    tensors = [change.name for change in changes if change.action != "configured"]
    assert set(tensors) == before.keys() | after.keys()
    assert result.names("kept") | result.names("resized") | result.names("made") == after.keys()
    assert result.names("kept") | result.names("resized") | result.names("dropped") == before.keys()
    assert len(set(tensors)) + len(result.names("made") & result.names("dropped")) == len(tensors)
    for name in result.names("kept"):
        assert torch.equal(before[name], after[name]), name
    return result


def run(model: PixArtTransformer, grid: tuple[int, int] = (6, 4), latents: Tensor | None = None) -> Tensor:
    """The output for fixed inputs, which depend on the latent channels alone."""
    config = model.config
    generator = torch.Generator().manual_seed(2)
    if latents is None:
        latents = torch.randn(2, config.in_channels, 2 * grid[0], 2 * grid[1], generator=generator)
    captions = torch.randn(2, 5, config.caption_channels, generator=generator)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    size = {}
    if config.micro_conditioning:
        size = {"image_size": torch.tensor([[96.0, 64.0]]), "aspect_ratio": torch.tensor([[1.5]])}
    timesteps = torch.tensor([10.0, 700.0])
    with torch.no_grad():
        return model(
            latents, model.prepare_captions(captions, mask), model.prepare_timesteps(timesteps, **size)
        )


def compression(model: PixArtTransformer) -> set[str]:
    return {name for name in model.state_dict() if ".kv_compression." in name}


def in_blocks(blocks: tuple[int, ...], *names: str) -> set[str]:
    return {f"transformer_blocks.{block}.attn1.{name}" for block in blocks for name in names}


def test_a_recipe_that_changes_nothing_keeps_everything(tmp_path: Path) -> None:
    result = case(tmp_path)
    assert result.names("kept") == set(result.old.state_dict())
    assert len(result.changes) == len(result.old.state_dict())
    assert torch.equal(run(result.new), run(result.old))
    config, state, _ = operate(CONFIG, result.old.state_dict(), start(), seed=0)
    assert config == CONFIG
    assert all(
        tensor.data_ptr() == result.old.state_dict()[name].data_ptr() for name, tensor in state.items()
    )


@pytest.mark.parametrize(
    ("resolution", "scale"), [(256, 0.5), (512, 1), (1024, 2), (2048, 4), (2880, 5.625), (4096, 8)]
)
@pytest.mark.parametrize("base", [256, 1024])
def test_resolution_keeps_the_span_of_the_positions(resolution: int, scale: float, base: int) -> None:
    config = replace(CONFIG, sample_size=base // 8, interpolation_scale=base / 512)
    new, _, changes = operate(config, trained(config).state_dict(), start(resolution=resolution), seed=0)
    assert (new.sample_size, new.interpolation_scale) == (resolution // 8, scale)
    assert new.base_grid / new.interpolation_scale == 32
    configured = {change.name for change in changes if change.action == "configured"}
    assert configured == (set() if resolution == base else {"sample_size", "interpolation_scale"})


def test_resolution_does_not_change_what_is_computed(tmp_path: Path) -> None:
    result = case(tmp_path, resolution=256)
    assert result.names("kept") == set(result.old.state_dict())
    assert torch.equal(run(result.new), run(result.old))
    assert result.detail("interpolation_scale") == "0.25 → 0.5; a grid's positions spanned 32, now 32"


def test_a_given_interpolation_scale_is_taken(tmp_path: Path) -> None:
    """Σ at 256 px from α at 256 px: the same picture, other positions."""
    config = replace(CONFIG, sample_size=32, interpolation_scale=1.0)
    result = case(tmp_path, config, resolution=256, interpolation_scale=0.5)
    assert (result.new.config.sample_size, result.new.config.interpolation_scale) == (32, 0.5)
    assert result.detail("interpolation_scale") == "1.0 → 0.5; a grid's positions spanned 16, now 32"
    assert relative_error(run(result.new), run(result.old)) > 1e-3


def test_average_compression_without_norm_equals_the_average_operator(tmp_path: Path) -> None:
    windows: list[tuple[int, int]] = [(2, 2), (1, 2), (3, 3)]  # 3 divides neither side of the grid
    for window in windows:
        result = case(tmp_path, kv_compression={"window": window, "norm": False})
        assert result.new.config.kv_compression == KVCompression(window, "conv", (2, 3), norm=False)
        assert result.names("made") == in_blocks(
            (2, 3), "kv_compression.conv.weight", "kv_compression.conv.bias"
        )
        assert result.names("kept") == set(result.old.state_dict())
        for name in result.names("made"):
            tensor = result.new.state_dict()[name]
            assert torch.equal(
                tensor, torch.full_like(tensor, 0 if name.endswith("bias") else 1 / (window[0] * window[1]))
            )
        averaged = PixArtTransformer(
            replace(result.old.config, kv_compression=KVCompression(window, "average", (2, 3)))
        )
        averaged.load_state_dict(result.old.state_dict())
        assert relative_error(run(result.new), run(averaged)) <= 1e-5
        assert relative_error(run(result.new), run(result.old)) > 1e-3


def test_compression_with_norm_is_the_released_layout(tmp_path: Path) -> None:
    result = case(tmp_path, kv_compression={"window": (2, 2)})
    assert result.names("made") == in_blocks((2, 3), *(f"kv_compression.{name}" for name in CONV))
    state = result.new.state_dict()
    for name in result.names("made"):
        value = {"conv.weight": 0.25, "norm.weight": 1.0}.get(name.split("kv_compression.")[1], 0.0)
        assert torch.equal(state[name], torch.full_like(state[name], value)), name
    assert "the window's mean, 1/4" in result.detail("transformer_blocks.2.attn1.kv_compression.conv.weight")
    # Keys and values lose their scale: not the average, and not what it was.
    assert relative_error(run(result.new), run(result.old)) > 1e-3


def test_xl_compression_adds_what_the_paper_says() -> None:
    config = TransformerConfig()
    with torch.device("meta"):
        state = PixArtTransformer(config).state_dict()
    _, new, changes = operate(config, state, start(kv_compression={"window": (2, 2)}), seed=0)
    made = [change.name for change in changes if change.action == "made"]
    assert {int(name.split(".")[1]) for name in made} == set(range(14, 28))
    assert sum(new[name].numel() for name in made) == 112_896
    assert summarise(changes) == [
        "configured kv_compression: None → conv and norm, window 2x2, blocks 14-27",
        "made transformer_blocks.{14-27}.attn1.kv_compression.conv.weight: [1152, 1, 2, 2] float32; "
        "the window's mean, 1/4",
        "made transformer_blocks.{14-27}.attn1.kv_compression.conv.bias: [1152] float32; zero",
        "made transformer_blocks.{14-27}.attn1.kv_compression.norm.weight: [1152] float32; one",
        "made transformer_blocks.{14-27}.attn1.kv_compression.norm.bias: [1152] float32; zero",
        f"kept {len(state)} of {len(state) + 56} tensors as they were",
    ]


def test_random_compression_is_keyed_by_the_seed_and_by_nothing_else(tmp_path: Path) -> None:
    recipe = {"window": (2, 2), "blocks": "all", "init": "random"}
    weights = trained().state_dict()
    states = []
    for global_seed, seed in enumerate((5, 5, 6)):
        before = torch.manual_seed(global_seed).get_state()
        _, tensors, _ = operate(CONFIG, weights, start(kv_compression=recipe), seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append([tensors[name] for name in sorted(in_blocks((0, 1), "kv_compression.conv.weight"))])
    assert torch.equal(states[0][0], states[1][0])
    assert not torch.equal(states[0][0], states[2][0])
    assert not torch.equal(states[0][0], states[0][1])  # another draw for each block
    assert states[0][0].std() > 0.1
    few = {"window": (2, 2), "blocks": (1,), "init": "random"}
    _, tensors, _ = operate(CONFIG, trained().state_dict(), start(kv_compression=few), 5)
    assert torch.equal(tensors["transformer_blocks.1.attn1.kv_compression.conv.weight"], states[0][1])
    result = case(tmp_path, kv_compression=recipe)
    assert not result.new.state_dict()["transformer_blocks.0.attn1.kv_compression.conv.bias"].any()


@pytest.mark.parametrize(
    ("blocks", "num_layers", "expected"),
    [
        ("deep", 28, range(14, 28)),
        ("middle", 28, range(7, 21)),
        ("shallow", 28, range(1, 15)),
        ("all", 28, range(28)),
        ("deep", 8, range(4, 8)),
        ("middle", 8, range(2, 6)),
        ("shallow", 8, range(4)),
        ("deep", 5, range(2, 5)),
        ("deep", 1, range(1)),
        ((0, 3), 4, (0, 3)),
    ],
)
def test_blocks_by_name(blocks: Any, num_layers: int, expected: Any) -> None:
    assert compressed_blocks(blocks, num_layers) == tuple(expected)


@pytest.mark.parametrize("operator", ["average", "nearest"])
def test_operators_without_weights_make_no_tensors(operator: str, tmp_path: Path) -> None:
    result = case(tmp_path, kv_compression={"window": (2, 2), "operator": operator, "blocks": (0,)})
    assert result.names("kept") == set(result.new.state_dict())
    assert result.detail("kv_compression") == f"None → {operator}, window 2x2, blocks 0"
    assert torch.isfinite(run(result.new)).all()


def test_the_same_compression_keeps_what_it_learned_in_the_blocks_that_stay(tmp_path: Path) -> None:
    config = replace(CONFIG, kv_compression=KVCompression((2, 2), "conv", (1, 2)))
    result = case(tmp_path, config, kv_compression={"window": (2, 2), "blocks": (2, 3), "init": "random"})
    names = [f"kv_compression.{name}" for name in CONV]
    assert result.names("dropped") == in_blocks((1,), *names)
    assert result.names("made") == in_blocks((3,), *names)
    assert in_blocks((2,), *names) <= result.names("kept")
    assert torch.isfinite(run(result.new)).all()
    unchanged = case(tmp_path, config, kv_compression={"window": (2, 2), "blocks": (1, 2)})
    assert torch.equal(run(unchanged.new), run(unchanged.old))
    assert not unchanged.names("configured")


def test_the_norm_of_a_compression_comes_and_goes_alone(tmp_path: Path) -> None:
    config = replace(CONFIG, kv_compression=KVCompression((2, 2), "conv", (1, 2)))
    result = case(tmp_path, config, kv_compression={"window": (2, 2), "blocks": (1, 2), "norm": False})
    norms = in_blocks((1, 2), "kv_compression.norm.weight", "kv_compression.norm.bias")
    assert result.names("dropped") == norms
    assert not result.names("made")
    config = replace(CONFIG, kv_compression=KVCompression((2, 2), "conv", (1, 2), norm=False))
    result = case(tmp_path, config, kv_compression={"window": (2, 2), "blocks": (1, 2)})
    assert result.names("made") == norms
    assert not result.names("dropped")


def test_another_window_or_operator_starts_anew(tmp_path: Path) -> None:
    config = replace(CONFIG, kv_compression=KVCompression((2, 2), "conv", (2, 3)))
    old = compression(PixArtTransformer(config))
    result = case(tmp_path, config, kv_compression={"window": (1, 2)})
    assert result.names("dropped") == result.names("made") == old
    assert result.new.transformer_blocks[2].attn1.kv_compression.conv.weight.unique().tolist() == [0.5]
    assert not result.new.transformer_blocks[2].attn1.kv_compression.conv.bias.any()
    # Transposed, the window has as many weights: its shape decides, not their number.
    result = case(
        tmp_path,
        replace(config, kv_compression=KVCompression((2, 1), "conv", (2, 3))),
        kv_compression={"window": (1, 2)},
    )
    assert result.names("dropped") == result.names("made") == old
    result = case(tmp_path, config, kv_compression={"window": (2, 2), "operator": "average"})
    assert result.names("dropped") == old
    assert not result.names("made")
    assert not compression(result.new)
    config = replace(CONFIG, kv_compression=KVCompression((2, 2), "nearest", (2, 3)))
    result = case(tmp_path, config, kv_compression={"window": (2, 2)})
    assert result.names("made") == old
    assert not result.names("dropped")


def test_qk_norm_is_added_as_a_plain_layer_norm_and_taken_away(tmp_path: Path) -> None:
    names = in_blocks((0, 1, 2, 3), "q_norm.weight", "q_norm.bias", "k_norm.weight", "k_norm.bias")
    result = case(tmp_path, qk_norm=True)
    assert result.names("made") == names
    tokens = torch.randn(2, 3, 24)
    for block in result.new.transformer_blocks:
        assert torch.equal(block.attn1.q_norm(tokens), F.layer_norm(tokens, (24,)))
        assert torch.equal(block.attn1.k_norm(tokens), F.layer_norm(tokens, (24,)))
    assert relative_error(run(result.new), run(result.old)) > 1e-3

    result = case(tmp_path, replace(CONFIG, qk_norm=True), qk_norm=False)
    assert result.names("dropped") == names
    assert "qk_norm is turned off" in result.detail("transformer_blocks.0.attn1.q_norm.weight")
    assert not result.new.config.qk_norm
    assert torch.isfinite(run(result.new)).all()
    result = case(tmp_path, replace(CONFIG, qk_norm=True), qk_norm=True)
    assert names <= result.names("kept")


def test_micro_conditioning_is_dropped_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    config = replace(CONFIG, micro_conditioning=True)
    kept = case(tmp_path, config, resolution=1024)
    assert kept.new.config.micro_conditioning
    assert torch.equal(run(kept.new), run(kept.old))
    result = case(tmp_path, config, micro_conditioning=False)
    embedders = {
        name
        for name in result.old.state_dict()
        if "resolution_embedder" in name or "aspect_ratio_embedder" in name
    }
    assert len(embedders) == 8
    assert result.names("dropped") == embedders
    assert "micro_conditioning is turned off" in result.detail(min(embedders))
    plain = PixArtTransformer(CONFIG)
    plain.load_state_dict(
        {name: tensor for name, tensor in result.old.state_dict().items() if name not in embedders}
    )
    assert torch.equal(run(result.new), run(plain))


def test_micro_conditioning_is_added_without_a_change_to_the_output(tmp_path: Path) -> None:
    """α at 1024 px from α at 512 px."""
    result = case(tmp_path, micro_conditioning=True)
    assert len(result.names("made")) == 8
    assert relative_error(run(result.new), run(result.old)) <= 1e-6
    embedder = result.new.adaln_single.emb.resolution_embedder
    assert float(embedder.linear_1.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("out_channels", [8, 4])
def test_more_latent_channels_leave_the_first_ones_as_they_were(out_channels: int, tmp_path: Path) -> None:
    config = replace(CONFIG, out_channels=out_channels)
    result = case(tmp_path, config, channels=16)
    parts = out_channels // 4
    assert (result.new.config.in_channels, result.new.config.out_channels) == (16, parts * 16)
    assert result.names("resized") == {"pos_embed.proj.weight", "proj_out.weight", "proj_out.bias"}
    assert result.detail("pos_embed.proj.weight") == (
        "[24, 4, 2, 2] → [24, 16, 2, 2] float32; further channels start at zero"
    )
    latents = torch.randn(2, 16, 12, 8)
    old, new = run(result.old, latents=latents[:, :4]), run(result.new, latents=latents)
    for part in range(parts):
        assert relative_error(new[:, 16 * part : 16 * part + 4], old[:, 4 * part : 4 * part + 4]) <= 1e-6, (
            part
        )
        assert not new[:, 16 * part + 4 : 16 * part + 16].any()
    # Zeros still learn: from the new latents, and from the error of the new predictions.
    model = result.new.train()
    captions = model.prepare_captions(torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool))
    output = model(latents, captions, model.prepare_timesteps(torch.tensor([5.0, 900.0])))
    (output - torch.randn_like(output)).square().mean().backward()
    assert (model.pos_embed.proj.weight.grad[:, 4:].abs().amax((0, 2, 3)) > 0).all()
    assert (model.proj_out.weight.grad.abs().amax(1) > 0).all()


def test_fewer_latent_channels_keep_the_first(tmp_path: Path) -> None:
    result = case(tmp_path, replace(CONFIG, in_channels=16, out_channels=32), channels=4)
    assert "further channels are cut" in result.detail("proj_out.weight")
    latents = torch.cat([torch.randn(2, 4, 12, 8), torch.zeros(2, 12, 12, 8)], dim=1)
    old, new = run(result.old, latents=latents), run(result.new, latents=latents[:, :4])
    assert relative_error(new, torch.cat([old[:, :4], old[:, 16:20]], dim=1)) <= 1e-6


def test_latent_channels_that_are_the_same_change_nothing(tmp_path: Path) -> None:
    result = case(tmp_path, channels=4)
    assert result.names("kept") == set(result.old.state_dict())
    assert not result.names("configured")


def test_a_longer_caption_and_the_buffers_of_old_checkpoints() -> None:
    state = trained().state_dict()
    buffers = {
        "pos_embed.pos_embed": torch.zeros(1, 64, 24),
        "y_embedder.y_embedding": torch.zeros(120, 16),
        "caption_projection.y_embedding": torch.zeros(120, 16),
        "pos_embed": torch.zeros(1, 64, 24),
    }
    _, new, changes = operate(CONFIG, state | buffers, start(caption_length=300), seed=0)
    assert new.keys() == state.keys()
    assert {change.name for change in changes if change.action == "dropped"} == buffers.keys()
    configured = [change for change in changes if change.action == "configured"]
    assert [change.name for change in configured] == ["caption_length"]
    assert configured[0].detail == "300 tokens; no tensor of the transformer depends on it"


def test_several_operations_at_once_in_half_precision() -> None:
    """Figure 8 in one step: another autoencoder, a larger picture, compression."""
    config = replace(CONFIG, micro_conditioning=True)
    state = trained(config).bfloat16().state_dict()
    recipe = start(
        resolution=256,
        kv_compression={"window": (2, 2), "init": "random"},
        qk_norm=True,
        micro_conditioning=False,
    )
    new_config, new, _ = operate(config, state, recipe, seed=0, latent_channels=8)
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    model = PixArtTransformer(new_config).bfloat16()
    model.load_state_dict(new)
    assert run(model, (8, 8)).shape == (2, 16, 16, 16)


def test_the_log_has_every_tensor_on_a_line(tmp_path: Path) -> None:
    result = case(tmp_path / "model", resolution=256, qk_norm=True, kv_compression={"window": (2, 2)})
    write_surgery_log(result.changes, tmp_path / "surgery.jsonl")
    lines = (tmp_path / "surgery.jsonl").read_text("utf-8").splitlines()
    assert [Change(**json.loads(line)) for line in lines] == result.changes
    summary = summarise(result.changes)
    assert len(summary) == 4 + 4 + 4 + 1  # configuration, compression, q and k, kept
    assert not [line for line in summary if "\n" in line]
    assert any(line.startswith("made transformer_blocks.{0-3}.attn1.q_norm.weight: [24]") for line in summary)
    num_kept = len(result.old.state_dict())
    assert summary[-1] == f"kept {num_kept} of {num_kept + 8 + 16} tensors as they were"


def test_blocks_that_are_apart_are_listed() -> None:
    blocks = (0, 2, 3, 7)
    changes = [Change(f"transformer_blocks.{block}.a", "made", "x") for block in blocks]
    assert summarise(changes)[0] == "made transformer_blocks.{0, 2-3, 7}.a: x"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("proj_out.bias"), r"missing: proj_out\.bias"),
        (lambda state: state.update(tilt=torch.zeros(1)), "unexpected: tilt"),
        (
            lambda state: state.update({"proj_out.bias": torch.zeros(31)}),
            r"wrong shape: proj_out\.bias \[31\] instead of \[32\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(spoil: Any, message: str) -> None:
    state = dict(trained().state_dict())
    spoil(state)
    with pytest.raises(WeightsError, match=f"the model to start from do not fit.*{message}"):
        operate(CONFIG, state, start(), seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 1000}, r"1000 is not a multiple of 16; nearest: 992 \(--set start\.resolution=992\)"),
        ({"resolution": 8}, "8 is not a multiple of 16; nearest: 16"),
        ({"kv_compression": {"window": (1, 1)}}, "window 1x1 compresses nothing"),
        ({"kv_compression": {"window": (2, 2), "blocks": (3, 4)}}, r"blocks \[4\]; the model has 0 to 3"),
        ({"kv_compression": {"window": (2, 2), "blocks": ()}}, "names no blocks"),
    ],
)
def test_what_the_model_cannot_become_is_refused(values: dict[str, Any], message: str) -> None:
    # Some of it the recipe refuses by itself, so it is not asked.
    recipe = start()
    if "kv_compression" in values:
        recipe = start(kv_compression={"window": (2, 2)})
        values = {"kv_compression": recipe.kv_compression.model_copy(update=values["kv_compression"])}
    with pytest.raises(InvalidInput, match=message):
        operate(CONFIG, trained().state_dict(), recipe.model_copy(update=values), seed=0)


def test_an_output_that_is_not_by_latent_channel_is_refused() -> None:
    config = replace(CONFIG, out_channels=6)
    with pytest.raises(InvalidInput, match="6 output channels are no multiple of 4 latent channels"):
        operate(config, trained(config).state_dict(), start(), seed=0, latent_channels=16)


def test_unknown_named_blocks_are_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown blocks 'deepest'; one of shallow, middle, deep, all"):
        compressed_blocks("deepest", 28)
