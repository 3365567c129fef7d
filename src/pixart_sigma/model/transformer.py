"""The PixArt-α/Σ diffusion transformer (PixArt-α section 2.3; PixArt-Σ section 3.2), to train and to use.

Legend: B batch, C latent channels, N image tokens, L caption tokens, T packed caption tokens, D width, S
timestep rows, K blocks, P patch size.
Knows nothing of files, noise schedules, text encoders, devices or random numbers (but for
`initialise_weights`).
Parameter names are those of diffusers' `PixArtTransformer2DModel`, with `attn1.kv_compression.{conv,norm}`
and `attn1.{q_norm,k_norm}` added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.blocks import TransformerBlock, modulated_norm
from pixart_sigma.model.conditions import Captions, Timesteps
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.embeddings import (
    AdaLayerNormSingle,
    CaptionProjection,
    PatchEmbedding,
    position_embedding,
)
from pixart_sigma.model.kv_compression import CompressionInitialisation, KVCompressor

CAPTION_LENGTH_MULTIPLE = 16  # few distinct padded lengths: few recompilations, aligned rows


class PixArtTransformer(nn.Module):
    """Predicts the noise (or velocity) of latents, given captions and timesteps prepared beforehand.

    What does not depend on the latents is computed apart: `prepare_captions` once per prompt,
    `prepare_timesteps` once per schedule. All three methods are differentiable, and training calls all three
    at every step.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        compressed = config.kv_compression.blocks if config.kv_compression else ()
        self.pos_embed = PatchEmbedding(config.in_channels, config.width, config.patch_size)
        self.adaln_single = AdaLayerNormSingle(config.width, config.micro_conditioning)
        self.caption_projection = CaptionProjection(config.caption_channels, config.width)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(config, compressed=index in compressed) for index in range(config.num_layers)
        )
        self.scale_shift_table = nn.Parameter(torch.randn(2, config.width) / config.width**0.5)
        self.proj_out = nn.Linear(config.width, config.patch_size**2 * config.out_channels)

    def prepare_captions(self, caption_embeds: Tensor, caption_mask: Tensor) -> Captions:
        """caption_embeds (B, L, caption channels), caption_mask (B, L) bool, True on real tokens → Captions.

        Only real tokens are projected; the result is as long as the longest caption, rounded up to a
        multiple of 16.
        Raises InvalidInput for shapes that do not fit and for a caption without tokens.
        """
        mask = caption_mask.bool()
        if caption_embeds.ndim != 3 or mask.shape != caption_embeds.shape[:2]:
            raise InvalidInput(
                f"caption_embeds {tuple(caption_embeds.shape)} and caption_mask {tuple(mask.shape)} "
                "do not fit; they must be (B, L, C) and (B, L)"
            )
        if caption_embeds.shape[2] != self.config.caption_channels:
            raise InvalidInput(
                f"caption_embeds have {caption_embeds.shape[2]} channels, the model takes "
                f"{self.config.caption_channels}; use the text encoder it was trained with"
            )
        lengths = mask.sum(dim=1)
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest == 0:
            raise InvalidInput("a caption has no tokens; encode an empty prompt to its end token at least")
        batch = mask.shape[0]
        padded = -(-longest // CAPTION_LENGTH_MULTIPLE) * CAPTION_LENGTH_MULTIPLE
        # A real token goes to its caption's row of (B * padded), at its rank among the row's real tokens.
        ranks = mask.cumsum(dim=1) - 1 + torch.arange(batch, device=mask.device)[:, None] * padded
        destinations = ranks[mask]

        packed = self.caption_projection(caption_embeds[mask].to(self.proj_out.weight.dtype))
        projected = torch.stack(
            [torch.stack(block.caption_keys_and_values(packed)) for block in self.transformer_blocks]
        )
        layout = projected.new_zeros(*projected.shape[:2], batch * padded, projected.shape[-1])
        layout = layout.index_copy(2, destinations, projected)
        layout = layout.unflatten(3, (self.config.num_attention_heads, -1)).unflatten(2, (batch, padded))
        keys, values = layout.transpose(3, 4).unbind(1)
        if shortest == padded:
            return Captions(keys, values, mask=None)
        real = torch.arange(padded, device=mask.device) < lengths[:, None]
        return Captions(keys, values, mask=real[:, None, None])

    def prepare_timesteps(
        self, timesteps: Tensor, image_size: Tensor | None = None, aspect_ratio: Tensor | None = None
    ) -> Timesteps:
        """timesteps (S,), 0 … 999, fractional ones allowed → Timesteps of S rows.

        With micro-conditioning also image_size (S, 2), (height, width) in pixels, and aspect_ratio (S, 1),
        height / width; one row of either serves all S. Raises InvalidInput where they are missing or would
        be ignored.
        """
        given = image_size is not None, aspect_ratio is not None
        if given != (self.config.micro_conditioning,) * 2:
            rule = "needs" if self.config.micro_conditioning else "takes no"
            raise InvalidInput(
                f"a model with micro_conditioning={self.config.micro_conditioning} {rule} "
                "image_size and aspect_ratio"
            )
        if image_size is not None and aspect_ratio is not None:
            image_size = image_size.expand(len(timesteps), 2)
            aspect_ratio = aspect_ratio.expand(len(timesteps), 1)
        shared_rows, embedding = self.adaln_single(timesteps, image_size, aspect_ratio)
        return Timesteps(
            blocks=torch.stack([block.modulation(shared_rows) for block in self.transformer_blocks]),
            output=self.scale_shift_table + embedding[:, None],
        )

    def forward(
        self, latents: Tensor, captions: Captions, timesteps: Timesteps, kept_tokens: Tensor | None = None
    ) -> Tensor:
        """latents (B, C, H, W), scaled and noised → (B, out channels, H, W).

        The output is the prediction, then, where it is learned, the variance (range -1 … 1, not bounded).
        captions: B of them; timesteps: 1 or B rows; kept_tokens: see `KVCompressor.select`, for discard.
        Raises InvalidInput unless H and W are multiples of the patch size.
        """
        patch = self.config.patch_size
        height, width = latents.shape[-2:]
        if height % patch or width % patch:
            raise InvalidInput(
                f"latents of {height}x{width} are not a multiple of the patch size {patch}; crop them"
            )
        grid = (height // patch, width // patch)
        tokens = self.pos_embed(latents.to(self.pos_embed.proj.weight.dtype))
        positions = position_embedding(
            grid, self.config.width, self.config.base_grid, self.config.interpolation_scale, latents.device
        )
        tokens = tokens + positions.to(tokens.dtype)

        conditions = zip(
            self.transformer_blocks,
            timesteps.blocks.unbind(0),
            captions.keys.unbind(0),
            captions.values.unbind(0),
            strict=True,
        )
        for block, modulation, keys, values in conditions:
            tokens = block(tokens, modulation, keys, values, captions.mask, grid, kept_tokens)

        shift, scale = timesteps.output.unsqueeze(2).unbind(1)
        patches = self.proj_out(modulated_norm(tokens, shift, scale))
        patches = patches.unflatten(2, (patch, patch, self.config.out_channels)).unflatten(1, grid)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.config.out_channels, height, width)

    @torch.no_grad()
    def initialise_weights(
        self, compression: CompressionInitialisation = "average", generator: torch.Generator | None = None
    ) -> None:
        """Fresh weights for training from scratch, as DiT and PixArt-α start: every block's caption branch
        and the output begin at zero. `compression` says how a compressing convolution starts."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, KVCompressor):
                module.initialise_weights(compression, generator)
            elif isinstance(module, TransformerBlock):
                nn.init.normal_(module.scale_shift_table, std=self.config.width**-0.5, generator=generator)
        nn.init.normal_(self.scale_shift_table, std=self.config.width**-0.5, generator=generator)
        # As one linear layer per patch, not per pixel.
        nn.init.xavier_uniform_(self.pos_embed.proj.weight.flatten(1), generator=generator)
        nn.init.zeros_(self.pos_embed.proj.bias)
        for embedding in (self.adaln_single, self.caption_projection):
            for module in embedding.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02, generator=generator)
        for block in self.transformer_blocks:
            nn.init.zeros_(block.attn2.to_out[0].weight)
        nn.init.zeros_(self.proj_out.weight)
