"""LoRA and DoRA in a transformer that is to be trained, through peft: a frozen base, adapters in fp32.

peft wraps an adapted layer: `to_q.weight` becomes `to_q.base_layer.weight`, beside it stand
`to_q.lora_A.default.weight` (r, I), `to_q.lora_B.default.weight` (O, r) and with DoRA
`to_q.lora_magnitude_vector.default.weight` (O,). In files they lose `default`. Layers that are not adapted keep
their names. Knows nothing of steps, optimisers or recipes' files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pixart_sigma.encoders.pretrained import abbreviate
from pixart_sigma.errors import RecipeError, WeightsError
from pixart_sigma.model import PixArtTransformer
from pixart_sigma.products import PLAIN_LINEARS
from pixart_sigma.training.draws import keyed_generator
from pixart_sigma.training.frozen_linear import FrozenLinear, freeze_linears, quiet_bitsandbytes
from pixart_sigma.training.recipe.transformer import LoraRecipe
from pixart_sigma.weights.lora import Adapter, AdapterSettings, apply_lora, save_adapter, updates_from
from pixart_sigma.weights.transformer import build

ADAPTER_NAME = "default"  # peft's own

# The transformer may be part of a larger module.
_TRAINED = re.compile(
    rf"^(?:transformer\.)?(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)\.{ADAPTER_NAME}\.weight$"
)


def inject(transformer: PixArtTransformer, recipe: LoraRecipe, seed: int) -> None:
    """Freeze the transformer, store its blocks as `recipe.base` says, and put fresh adapters into it, in place.

    The model computes what it did before (up to the rounding of the base), since B begins at zero; A depends on the
    seed alone. The base may be quantised on the CPU and moved afterwards. Raises RecipeError for targets that are not
    linear layers, MissingDependency for a quantised base without bitsandbytes.
    """
    check_adapters(transformer, recipe)
    transformer.requires_grad_(False)
    quiet_bitsandbytes()  # which peft imports
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=alpha_of(recipe),  # type: ignore[arg-type, unused-ignore]  # a fraction will do
        use_dora=recipe.dora,
        target_modules=list(recipe.targets),
    )
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
        torch.manual_seed(keyed_generator(seed, 0, "adapters").initial_seed())
        inject_adapter_in_model(config, transformer, ADAPTER_NAME)
    # Afterwards, since peft looks at a base layer's weight many times.
    freeze_linears(transformer, recipe.base)
    transformer.train(transformer.training)
    if recipe.dora:
        _begin_magnitudes(transformer)


def alpha_of(recipe: LoraRecipe) -> float:
    """The recipe's alpha, or its rank: the update is alpha / rank · B A."""
    return float(recipe.rank if recipe.alpha is None else recipe.alpha)


def adapter_state_dict(source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model with adapters, or its weights by name (an average of them, say) → the adapters by their names in files.

    The transformer may be the module itself or its submodule `transformer`. Raises WeightsError if there are none.
    """
    weights = source.state_dict() if isinstance(source, nn.Module) else source
    named = {_name_in_file(name): tensor.detach() for name, tensor in weights.items() if _TRAINED.match(name)}
    if not named:
        raise WeightsError("there are no adapters among these weights; inject them first")
    return named


def load_adapter_state_dict(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors, named as in files, into a model's adapters. Raises WeightsError unless they are the very same."""
    live = {_name_in_file(name): weight for name, weight in model.named_parameters() if _TRAINED.match(name)}
    shapes = {name: weight.shape for name, weight in live.items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        differing = sorted(live.keys() ^ tensors.keys()) or ["other shapes"]
        raise WeightsError(
            f"adapters do not fit the model: {abbreviate(differing)}; use the same lora section of the recipe"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            live[name].copy_(tensor)


def write_adapter(
    folder: Path | str,
    source: nn.Module | Mapping[str, Tensor],
    recipe: LoraRecipe,
    base_model: str | None = None,
) -> None:
    """A model with adapters, or its weights by name → a folder that peft loads, whose .safetensors suffices alone.

    base_model: what the adapters were trained on, for the reader.
    """
    settings = AdapterSettings(recipe.rank, alpha_of(recipe), recipe.dora, recipe.targets, base_model)
    save_adapter(folder, adapter_state_dict(source), settings)


def plain_state_dict(transformer: PixArtTransformer) -> dict[str, Tensor]:
    """The base's weights under the names of a transformer without adapters; what is quantised, in fp32."""
    plain = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in transformer.state_dict().items()
        if not _TRAINED.match(name)
    }
    for name, module in transformer.named_modules():
        if isinstance(module, FrozenLinear):
            plain[f"{name.removesuffix('.base_layer')}.weight"] = module.weight
    return plain


def merged(transformer: PixArtTransformer, recipe: LoraRecipe) -> PixArtTransformer:
    """A copy without adapters that computes the same, but for rounding; its weights are merged."""
    copies = {name: tensor.detach().clone() for name, tensor in plain_state_dict(transformer).items()}
    plain = build(transformer.config, copies, "the trained model")
    updates = updates_from(adapter_state_dict(transformer), alpha_of(recipe), "the trained model")
    apply_lora(plain, Adapter(updates, "the trained model"))
    return plain.train(transformer.training)


@torch.no_grad()
def _begin_magnitudes(transformer: PixArtTransformer) -> None:
    """DoRA's magnitudes begin as the row norms of the base, which is now rounded."""
    for module in transformer.modules():
        if hasattr(module, "lora_magnitude_vector"):
            magnitude = module.lora_magnitude_vector[ADAPTER_NAME].weight
            magnitude.copy_(module.base_layer.weight.norm(dim=1))


def _name_in_file(name: str) -> str:
    match = _TRAINED.match(name)
    assert match is not None  # the callers have looked
    ending = "" if match["part"] == "lora_magnitude_vector" else ".weight"
    return f"{match['layer']}.{match['part']}{ending}"


def check_adapters(transformer: PixArtTransformer, recipe: LoraRecipe) -> None:
    """Raises RecipeError unless targets are linear layers: a layer's name or, as peft has it, the end of one."""
    for target in recipe.targets:
        found = {
            name: module
            for name, module in transformer.named_modules()
            if name == target or name.endswith(f".{target}")
        }
        if not found:
            raise RecipeError(
                f"lora.targets names {target!r}, which the model does not have; name layers such as to_q"
            )
        for name, module in found.items():
            if type(module) not in PLAIN_LINEARS:
                raise RecipeError(
                    f"lora.targets {target!r} hits {name}, which is not a linear layer; name it more closely"
                )
            if recipe.dora and not module.weight.norm(dim=1).all():
                raise RecipeError(
                    f"lora.dora cannot scale {name}, some of whose rows are zero; train the model first, or use lora"
                )
