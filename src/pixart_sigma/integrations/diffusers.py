"""This package's transformer as a diffusers model, for diffusers' own pipelines, offloading and quantisation.

Legend: B batch, C latent channels, N image tokens, L caption tokens, D width, S timestep rows (1 or B).
Knows nothing of prompts or schedulers, and computes nothing itself: the layers are `model/`'s, under their names.

diffusers passes everything anew at each step, and its hooks (offloading, checkpointing) are on `forward`. So nothing
is prepared beforehand here: each block prepares its own conditions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.attention import split_heads
from pixart_sigma.model.blocks import TransformerBlock
from pixart_sigma.model.layers import PixArtLayers
from pixart_sigma.weights.checkpoint import DROPPED
from pixart_sigma.weights.config import config_content, transformer_config
from pixart_sigma.weights.folder import ADAPTER_FILE
from pixart_sigma.weights.lora import Adapter, load_lora

# Where diffusers assumes micro-conditioning, if the configuration leaves it open.
ALPHA_1024_SAMPLE_SIZE = 128

NO_PROCESSORS = (
    "this transformer has no attention processors: it computes attention itself; where that is torch's own function, "
    "choose a kernel with torch.nn.attention.sdpa_kernel"
)


class SelfPreparingBlock(TransformerBlock):
    """A block whose every parameter is used in one call of `forward`."""

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        shared_rows: Tensor,
        caption_tokens: Tensor,
        caption_mask: Tensor | None,
        grid: tuple[int, int],
    ) -> Tensor:
        """tokens (B, N, D), shared_rows (S, 6, D), projected captions (B, L, D), their mask (B, 1, 1, L) bool or
        None → (B, N, D).
        """
        keys, values = self.caption_keys_and_values(caption_tokens)
        num_heads = self.attn2.num_heads
        return super().forward(
            tokens,
            self.modulation(shared_rows),
            split_heads(keys, num_heads),
            split_heads(values, num_heads),
            caption_mask,
            grid,
        )


class PixArtSigmaTransformer2DModel(PixArtLayers, ModelMixin, ConfigMixin, PeftAdapterMixin):
    """diffusers' `PixArtTransformer2DModel` with key/value compression and QK norm.

    For `PixArtSigmaPipeline(transformer=…)` and `PixArtAlphaPipeline`. Opens the folders of both, and what it saves
    opens in both, unless the model has what diffusers' class has not. Random discard is not available: a pipeline of
    diffusers has no place for its draws.
    """

    block_class = SelfPreparingBlock
    _supports_gradient_checkpointing = True
    _no_split_modules = ["SelfPreparingBlock", "PatchEmbedding"]
    _repeated_blocks = ["SelfPreparingBlock"]
    _skip_layerwise_casting_patterns = ["pos_embed", "norm", "adaln_single"]
    _keys_to_ignore_on_load_unexpected = [f"^{re.escape(name)}$" for name in DROPPED]

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = 8,
        num_layers: int = 28,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        cross_attention_dim: int | None = 1152,
        attention_bias: bool = True,
        sample_size: int = 128,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int | None = 1000,
        upcast_attention: bool = False,
        norm_type: str = "ada_norm_single",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        interpolation_scale: float | None = None,
        use_additional_conditions: bool | None = None,
        caption_channels: int | None = None,
        attention_type: str | None = "default",
        qk_norm: bool = False,
        kv_compression: Mapping[str, Any] | None = None,
    ) -> None:
        """The parameters are config.json's: diffusers' own, `qk_norm`, and `kv_compression` {window, operator, blocks,
        norm, from_tokens}.

        Raises WeightsError for what no PixArt model is, InvalidInput for random discard.
        """
        content = dict(self.config)
        if out_channels is None:
            content["out_channels"] = in_channels
        if use_additional_conditions is None:
            content["use_additional_conditions"] = sample_size == ALPHA_1024_SAMPLE_SIZE
        config = transformer_config(content, parameter_names=())
        if config.kv_compression is not None and config.kv_compression.operator == "discard":
            raise InvalidInput(
                "kv_compression operator 'discard' draws tokens at every step, for which diffusers' pipelines have no "
                "place; use pixart-sigma generate, or another operator"
            )
        super().__init__(config)
        self.gradient_checkpointing = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As diffusers' own → the model, or with output_loading_info also diffusers' report.

        Raises WeightsError if a name is missing or unexpected; for a wrong shape diffusers has a ValueError.
        """
        with_report = kwargs.pop("output_loading_info", False)
        model, report = super().from_pretrained(
            pretrained_model_name_or_path, output_loading_info=True, **kwargs
        )
        for problem in ("missing", "unexpected"):
            names = report.get(f"{problem}_keys")
            if names:
                raise WeightsError(
                    f"{pretrained_model_name_or_path} does not fit its config.json; {problem}: "
                    f"{abbreviate(sorted(names))}; fetch or export it again"
                )
        return (model, report) if with_report else model

    def to_json_string(self) -> str:
        """What `save_pretrained` writes to config.json; it names diffusers' class if that can open the model."""
        content = json.loads(super().to_json_string())
        for key in ("qk_norm", "kv_compression"):
            content.pop(key, None)
        content |= config_content(self.architecture)
        return json.dumps(content, indent=2, sort_keys=True) + "\n"

    def load_lora_adapter(
        self,
        pretrained_model_name_or_path_or_dict: Any,
        prefix: str | None = "transformer",
        hotswap: bool = False,
        **kwargs: Any,
    ) -> None:
        """As diffusers' own, and also peft's folders, as training exports them, and .safetensors files in any of the
        layouts that `load_lora` knows.

        Raises WeightsError for such a folder or file that is corrupt or holds anything else.
        """
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, str | Path) and _is_adapter(Path(source)):
            source, kwargs["metadata"] = _peft_adapter(load_lora(source))
            prefix = None
        super().load_lora_adapter(source, prefix=prefix, hotswap=hotswap, **kwargs)

    @property
    def attn_processors(self) -> dict[str, Any]:
        """Raises InvalidInput."""
        raise InvalidInput(NO_PROCESSORS)

    def set_attn_processor(self, processor: Any) -> None:
        """Raises InvalidInput."""
        raise InvalidInput(NO_PROCESSORS)

    def set_attention_backend(self, backend: str) -> None:
        """Raises InvalidInput."""
        raise InvalidInput(NO_PROCESSORS)

    def fuse_qkv_projections(self) -> None:
        """Raises InvalidInput."""
        raise InvalidInput(NO_PROCESSORS)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        added_cond_kwargs: Mapping[str, Tensor | None] | None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Latents (B, C, H, W), caption embeddings (B, L, caption channels), timestep () or (S,), caption mask (B, L),
        1 on real tokens, or None if all are → the prediction (B, out channels, H, W).

        added_cond_kwargs: resolution (S, 2) in pixels and aspect_ratio (S, 1), for micro-conditioning; a model without
        takes no notice, since PixArtAlphaPipeline passes them to every model of sample size 128. Raises InvalidInput
        for shapes that do not fit, for what is missing and for what would be ignored.
        """
        if encoder_hidden_states is None or timestep is None:
            raise InvalidInput("encoder_hidden_states and timestep are needed; pass both")
        if attention_mask is not None or cross_attention_kwargs:
            raise InvalidInput(
                "attention_mask and cross_attention_kwargs have no effect on this transformer; leave them out "
                "(an adapter's strength: set_adapters)"
            )
        if encoder_attention_mask is None:
            encoder_attention_mask = encoder_hidden_states.new_ones(encoder_hidden_states.shape[:2])
        micro_conditions = (added_cond_kwargs or {}) if self.architecture.micro_conditioning else {}

        packed, layout = self.project_captions(encoder_hidden_states, encoder_attention_mask)
        captions = layout.spread(packed)
        shared_rows, output_rows = self.embed_timesteps(
            timestep.reshape(-1), micro_conditions.get("resolution"), micro_conditions.get("aspect_ratio")
        )
        tokens, grid = self.embed_latents(hidden_states)
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(
                    block, tokens, shared_rows, captions, layout.mask, grid
                )
            else:
                tokens = block(tokens, shared_rows, captions, layout.mask, grid)
        # With a device_map the last block may be on another device than the table of the output's rows.
        prediction = self.read_out(tokens.to(output_rows.device), output_rows, grid)
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)


def _is_adapter(path: Path) -> bool:
    return (path / ADAPTER_FILE).is_file() or (path.is_file() and path.suffix == ".safetensors")


def _peft_adapter(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter → its tensors under peft's names, and what peft's LoraConfig must say of them."""
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, update in adapter.updates.items():
        tensors[f"{name}.lora_A.weight"] = update.down
        tensors[f"{name}.lora_B.weight"] = update.up
        if update.magnitude is not None:
            tensors[f"{name}.lora_magnitude_vector"] = update.magnitude.flatten()
        # From the beginning of the name: proj_out is also the end of other models' layers.
        pattern = f"^{re.escape(name)}"
        ranks[pattern] = update.down.shape[0]
        alphas[pattern] = update.scale * update.down.shape[0]
    return tensors, {
        "r": max(ranks.values()),
        "lora_alpha": max(alphas.values()),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": list(adapter.updates),
        "use_dora": any(update.magnitude is not None for update in adapter.updates.values()),
    }
