import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from comparison import relative_error
from pixart_sigma.errors import RecipeError, WeightsError
from pixart_sigma.model import PixArtTransformer, TransformerConfig
from pixart_sigma.training.adapters import (
    adapter_state_dict,
    inject,
    load_adapter_state_dict,
    merged,
    plain_state_dict,
    write_adapter,
)
from pixart_sigma.training.recipe.transformer import LoraRecipe
from pixart_sigma.weights.folder import ADAPTER_FILE
from pixart_sigma.weights.lora import apply_lora, load_lora

CONFIG = TransformerConfig(
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=12,
    sample_size=16,
    caption_channels=20,
    interpolation_scale=1.0,
)
BASES = ("fp32", "bf16", "int8", "nf4")


def recipe(**changes: Any) -> LoraRecipe:
    return LoraRecipe(**({"rank": 4, "alpha": 6.0, "base": "fp32"} | changes))


def fresh() -> PixArtTransformer:
    torch.manual_seed(1)
    return PixArtTransformer(CONFIG)


def adapted(lora: LoraRecipe, seed: int = 0) -> PixArtTransformer:
    model = fresh()
    inject(model, lora, seed)
    return model


def shake(model: PixArtTransformer) -> None:
    """As if trained: every adapter is away from where it began."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.1).add_(0.2 * torch.randn(parameter.shape, generator=generator))


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 8, 12, generator=generator)
    embeds = torch.randn(2, 7, CONFIG.caption_channels, generator=generator)
    mask = torch.arange(7) < torch.tensor([[5], [7]])
    return latents, embeds, mask, torch.tensor([900.0, 14.0])


def output(model: PixArtTransformer) -> Tensor:
    latents, embeds, mask, timesteps = inputs()
    return model(latents, model.prepare_captions(embeds, mask), model.prepare_timesteps(timesteps))


def diffusers_output(model: Any) -> Tensor:
    latents, embeds, mask, timesteps = inputs()
    with torch.no_grad():
        return model(
            latents,
            encoder_hidden_states=embeds,
            timestep=timesteps,
            encoder_attention_mask=mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]


def diffusers_model() -> Any:
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(
        num_layers=CONFIG.num_layers,
        num_attention_heads=CONFIG.num_attention_heads,
        attention_head_dim=CONFIG.attention_head_dim,
        cross_attention_dim=CONFIG.width,
        sample_size=CONFIG.sample_size,
        caption_channels=CONFIG.caption_channels,
        interpolation_scale=CONFIG.interpolation_scale,
        use_additional_conditions=False,
    )
    model.load_state_dict(fresh().state_dict())
    return model.eval()


@pytest.mark.parametrize("dora", [False, True])
def test_only_the_adapters_of_the_targets_are_trained_in_fp32(dora: bool) -> None:
    model = adapted(recipe(dora=dora, base="bf16"))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    layers = {name.partition(".lora_")[0] for name in trained}
    per_block = [f"attn{n}.{to}" for n in (1, 2) for to in ("to_q", "to_k", "to_v", "to_out.0")]
    per_block += ["ff.net.0.proj", "ff.net.2"]
    assert layers == {f"transformer_blocks.{block}.{layer}" for block in range(2) for layer in per_block}
    assert len(trained) == len(layers) * (3 if dora else 2)
    assert trained["transformer_blocks.0.attn1.to_q.lora_A.default.weight"].shape == (4, CONFIG.width)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_fresh_adapters_change_nothing_but_the_rounding_of_the_base(dora: bool, base: str) -> None:
    model = adapted(recipe(dora=dora, base=base))
    plain = fresh()
    if base != "fp32":
        assert relative_error(output(model), output(plain)) > 1e-6
        plain.load_state_dict(plain_state_dict(model))
    assert relative_error(output(model), output(plain)) <= 1e-5


def test_the_beginning_depends_on_the_seed_alone() -> None:
    first = adapter_state_dict(adapted(recipe(), seed=3))
    torch.manual_seed(77)
    state = torch.get_rng_state()
    again = adapter_state_dict(adapted(recipe(), seed=3))
    torch.manual_seed(77)
    assert torch.equal(state, torch.get_rng_state())
    other = adapter_state_dict(adapted(recipe(), seed=4))
    name = "transformer_blocks.0.attn1.to_q.lora_A.weight"
    assert first.keys() == again.keys() == other.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])


def test_injection_draws_nothing_from_the_global_generator() -> None:
    model = fresh()
    state = torch.get_rng_state()
    inject(model, recipe(), 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("autocast", [False, True])
def test_training_lowers_the_loss_and_leaves_every_bit_of_the_base(
    dora: bool, base: str, autocast: bool
) -> None:
    model = adapted(recipe(dora=dora, base=base)).train()
    target = torch.randn(2, 8, 8, 12, generator=torch.Generator().manual_seed(3))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.requires_grad]
    before = [tensor.clone() for tensor in frozen]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    losses = []
    for step in range(8):
        model.train(step % 2 == 0)  # an evaluation in between must leave the base alone, too
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = (output(model).float() - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
    assert all(b < a for a, b in pairwise(losses))
    assert all(torch.equal(*pair) for pair in zip(before, frozen, strict=True))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("base", ["int8", "nf4"])
def test_gradients_of_a_quantised_base_are_those_of_its_values(dora: bool, base: str) -> None:
    quantised = adapted(recipe(dora=dora, base=base))
    plain = fresh()
    plain.load_state_dict(plain_state_dict(quantised))
    inject(plain, recipe(dora=dora), 0)
    for model in (quantised, plain):
        shake(model)
        output(model).square().mean().backward()
    expected = dict(plain.named_parameters())
    compared = 0
    for name, parameter in quantised.named_parameters():
        if parameter.requires_grad:
            assert relative_error(parameter.grad, expected[name].grad) <= 1e-4, name
            compared += 1
    assert compared == 20 * (3 if dora else 2)


@pytest.mark.parametrize("dora", [False, True])
def test_strength_1_is_the_trained_model_and_0_the_base(dora: bool, tmp_path: Path) -> None:
    lora = recipe(dora=dora)
    model = adapted(lora)
    shake(model)
    write_adapter(tmp_path, model, lora)
    trained, base = fresh(), fresh()
    apply_lora(trained, load_lora(tmp_path))
    apply_lora(base, load_lora(tmp_path), 0.0)
    expected = output(model)
    assert relative_error(output(fresh()), expected) > 0.05
    assert relative_error(output(trained), expected) <= 1e-5
    assert torch.equal(output(base), output(fresh()))
    assert relative_error(output(merged(model, lora)), expected) <= 1e-5


@pytest.mark.parametrize("base", BASES)
def test_the_merged_model_is_the_trained_one_whatever_the_base(base: str) -> None:
    lora = recipe(base=base, dora=True)
    model = adapted(lora)
    shake(model)
    plain = merged(model, lora)
    assert plain.state_dict().keys() == fresh().state_dict().keys()
    assert relative_error(output(plain), output(model)) <= 1e-5


@pytest.mark.parametrize("dora", [False, True])
def test_peft_loads_the_folder_into_diffusers_model(dora: bool, tmp_path: Path) -> None:
    lora = recipe(dora=dora)
    model = adapted(lora)
    shake(model)
    write_adapter(tmp_path, model, lora, "tiny")
    ours = fresh()
    apply_lora(ours, load_lora(tmp_path))
    expected = output(ours)

    from peft import PeftModel

    loaded = PeftModel.from_pretrained(diffusers_model(), tmp_path)
    assert loaded.peft_config["default"].base_model_name_or_path == "tiny"
    assert relative_error(diffusers_output(loaded), expected) <= 1e-5
    assert relative_error(diffusers_output(loaded.merge_and_unload()), expected) <= 1e-5


@pytest.mark.parametrize("dora", [False, True])
def test_peft_injects_the_tensors_into_diffusers_model(dora: bool) -> None:
    lora = recipe(dora=dora)
    model = adapted(lora)
    shake(model)
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    config = LoraConfig(r=4, lora_alpha=6, use_dora=dora, target_modules=list(lora.targets))
    theirs = inject_adapter_in_model(config, diffusers_model())
    report = set_peft_model_state_dict(theirs, adapter_state_dict(model))
    assert report.unexpected_keys == []
    assert not [name for name in report.missing_keys if "lora" in name]
    assert relative_error(diffusers_output(theirs), output(model)) <= 1e-5


@pytest.mark.parametrize("dora", [False, True])
def test_what_peft_saves_of_diffusers_model_loads_here(dora: bool, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    # PixArt's own script adapts the patches' convolution and everything around the blocks, too.
    targets = ["to_q", "ff.net.2", "proj", "linear", "linear_1", "linear_2", "proj_out"]
    theirs = get_peft_model(
        diffusers_model(), LoraConfig(r=3, lora_alpha=5, use_dora=dora, target_modules=targets)
    ).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours = fresh()
    apply_lora(ours, load_lora(tmp_path))
    expected = diffusers_output(theirs)
    assert relative_error(output(fresh()), expected) > 0.05
    assert relative_error(output(ours), expected) <= 1e-5


def test_states_round_trip(tmp_path: Path) -> None:
    lora = recipe(dora=True)
    model, other = adapted(lora), adapted(lora, seed=9)
    shake(model)
    state = adapter_state_dict(model)
    load_adapter_state_dict(other, state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in adapter_state_dict(other).items())
    assert torch.equal(output(model), output(other))
    with pytest.raises(WeightsError, match=r"adapters do not fit the model: transformer_blocks\.0"):
        load_adapter_state_dict(adapted(recipe()), state)
    with pytest.raises(WeightsError, match="adapters do not fit the model: other shapes"):
        load_adapter_state_dict(adapted(recipe(dora=True, rank=5)), state)


def test_the_weights_of_a_larger_module_make_the_same_file(tmp_path: Path) -> None:
    lora = recipe()
    objective = torch.nn.Module()
    objective.transformer = adapted(lora)
    objective.text_encoder = torch.nn.Linear(2, 2)
    write_adapter(tmp_path / "a", objective.transformer, lora)
    write_adapter(tmp_path / "b", objective.state_dict(), lora)
    first, second = (load_file(tmp_path / name / ADAPTER_FILE) for name in ("a", "b"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    with pytest.raises(WeightsError, match="there are no adapters"):
        write_adapter(tmp_path / "c", fresh(), lora)


@pytest.mark.parametrize("base", BASES)
def test_names_beside_the_adapters_are_those_without(base: str) -> None:
    model = adapted(recipe(base=base, targets=("attn1.to_q",)))
    state = model.state_dict()
    wrapped = {name for name in state if ".base_layer." in name or ".lora_" in name}
    assert {name.partition(".to_q.")[0] for name in wrapped} == {
        f"transformer_blocks.{block}.attn1" for block in range(2)
    }
    expected = fresh().state_dict()
    assert state.keys() - wrapped <= expected.keys()
    plain = plain_state_dict(model)
    assert {name: tensor.shape for name, tensor in plain.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    if base == "fp32":
        assert all(torch.equal(tensor, expected[name]) for name, tensor in plain.items())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("to_q", "to_x"), "lora.targets names 'to_x', which the model does not have; "),
        (("o_q",), "lora.targets names 'o_q', "),
        (("proj",), "lora.targets 'proj' hits pos_embed.proj, which is not a linear layer; "),
        (("attn1",), "lora.targets 'attn1' hits transformer_blocks.0.attn1, which is not a linear layer; "),
    ],
)
def test_targets_that_are_no_linear_layers_are_refused(targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"^{message}[^\n]*$"):
        adapted(recipe(targets=targets))


def test_layers_outside_of_the_blocks_can_be_adapted() -> None:
    lora = recipe(targets=("proj_out", "adaln_single.linear", "linear_1"), base="nf4")
    model = adapted(lora)
    shake(model)
    assert relative_error(output(merged(model, lora)), output(model)) <= 1e-5


def test_dora_of_rows_that_are_zero_is_refused() -> None:
    model = fresh()
    model.initialise_weights()
    with pytest.raises(
        RecipeError, match=r"^lora\.dora cannot scale transformer_blocks\.0\.attn2\.to_out\.0"
    ):
        inject(model, recipe(dora=True), 0)


def test_importing_and_injecting_says_nothing() -> None:
    """In a process of its own, since what is imported here already would say nothing anyway."""
    program = (
        "from pixart_sigma.model import PixArtTransformer, TransformerConfig\n"
        "from pixart_sigma.training.adapters import inject\n"
        "from pixart_sigma.training.recipe.transformer import LoraRecipe\n"
        "import sys\n"
        "assert not {'peft', 'bitsandbytes'} & sys.modules.keys()\n"
        f"model = PixArtTransformer({CONFIG!r})\n"
        "inject(model, LoraRecipe(base='nf4'), 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
