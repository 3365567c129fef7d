"""The PixArt-α/Σ diffusion transformer (PixArt-α section 2.3; PixArt-Σ section 3.2), to train and to use.

Legend: B batch, C latent channels, N image tokens, L caption tokens, T packed caption tokens, D width, S
timestep rows, K blocks.
Knows nothing of files, noise schedules, text encoders, devices or random numbers (but for
`initialise_weights`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixart_sigma.model.blocks import TransformerBlock
from pixart_sigma.model.conditions import Captions, Timesteps
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.kv_compression import CompressionInitialisation, KVCompressor
from pixart_sigma.model.layers import PixArtLayers


class PixArtTransformer(PixArtLayers):
    """Predicts the noise (or velocity) of latents, given captions and timesteps prepared beforehand.

    What does not depend on the latents is computed apart: `prepare_captions` once per prompt,
    `prepare_timesteps` once per schedule. All three methods are differentiable, and training calls all three
    at every step.
    """

    @property
    def config(self) -> TransformerConfig:
        """Sizes and options."""
        return self.architecture

    def prepare_captions(self, caption_embeds: Tensor, caption_mask: Tensor) -> Captions:
        """caption_embeds (B, L, caption channels), caption_mask (B, L) bool, True on real tokens → Captions.

        Only real tokens are projected; the result is as long as the longest caption, rounded up to a
        multiple of 16.
        Raises InvalidInput for shapes that do not fit and for a caption without tokens.
        """
        packed, layout = self.project_captions(caption_embeds, caption_mask)
        projected = torch.stack(
            [torch.stack(block.caption_keys_and_values(packed)) for block in self.transformer_blocks]
        )
        heads = layout.spread(projected).unflatten(-1, (self.config.num_attention_heads, -1))
        keys, values = heads.transpose(3, 4).unbind(1)
        return Captions(keys, values, layout.mask)

    def prepare_timesteps(
        self, timesteps: Tensor, image_size: Tensor | None = None, aspect_ratio: Tensor | None = None
    ) -> Timesteps:
        """timesteps (S,), 0 … 999, fractional ones allowed → Timesteps of S rows.

        With micro-conditioning also image_size (S, 2), (height, width) in pixels, and aspect_ratio (S, 1),
        height / width; one row of either serves all S. Raises InvalidInput where they are missing or would
        be ignored.
        """
        shared_rows, output_rows = self.embed_timesteps(timesteps, image_size, aspect_ratio)
        return Timesteps(
            blocks=torch.stack([block.modulation(shared_rows) for block in self.transformer_blocks]),
            output=output_rows,
        )

    def forward(
        self, latents: Tensor, captions: Captions, timesteps: Timesteps, kept_tokens: Tensor | None = None
    ) -> Tensor:
        """latents (B, C, H, W), scaled and noised → (B, out channels, H, W).

        The output is the prediction, then, where it is learned, the variance (range -1 … 1, not bounded).
        captions: B of them; timesteps: 1 or B rows; kept_tokens: see `KVCompressor.select`, for discard.
        Raises InvalidInput unless H and W are multiples of the patch size.
        """
        tokens, grid = self.embed_latents(latents)
        conditions = zip(
            self.transformer_blocks,
            timesteps.blocks.unbind(0),
            captions.keys.unbind(0),
            captions.values.unbind(0),
            strict=True,
        )
        for block, modulation, keys, values in conditions:
            tokens = block(tokens, modulation, keys, values, captions.mask, grid, kept_tokens)
        return self.read_out(tokens, timesteps.output, grid)

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
