"""The transformer's layers under their names, and what comes before and after its blocks.

Legend: B batch, C latent channels, N image tokens, L caption tokens, T packed caption tokens, D width, S
timestep rows, P patch size.
Knows nothing of when a block's conditions are prepared: `model/transformer.py` does that beforehand,
`integrations/diffusers.py` in each block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.blocks import TransformerBlock, modulated_norm, modulation_table
from pixart_sigma.model.conditions import CaptionLayout
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.embeddings import (
    AdaLayerNormSingle,
    CaptionProjection,
    PatchEmbedding,
    position_embedding,
)
from pixart_sigma.products import Linear


class PixArtLayers(nn.Module):
    """All parameters of a PixArt transformer; `architecture` is their configuration.

    Parameter names are those of diffusers' `PixArtTransformer2DModel`, with `attn1.kv_compression.{conv,norm}`
    and `attn1.{q_norm,k_norm}` added.
    """

    block_class: type[TransformerBlock] = TransformerBlock

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.architecture = config
        compressed = config.kv_compression.blocks if config.kv_compression else ()
        self.pos_embed = PatchEmbedding(config.in_channels, config.width, config.patch_size)
        self.adaln_single = AdaLayerNormSingle(config.width, config.micro_conditioning)
        self.caption_projection = CaptionProjection(config.caption_channels, config.width)
        self.transformer_blocks = nn.ModuleList(
            self.block_class(config, compressed=index in compressed) for index in range(config.num_layers)
        )
        self.scale_shift_table = modulation_table(2, config.width)
        self.proj_out = Linear(config.width, config.patch_size**2 * config.out_channels)

    @property
    def compute_dtype(self) -> torch.dtype:
        """What latents and captions are cast to: the dtype of a convolution, which nobody quantises."""
        return self.pos_embed.proj.weight.dtype

    def project_captions(self, caption_embeds: Tensor, caption_mask: Tensor) -> tuple[Tensor, CaptionLayout]:
        """caption_embeds (B, L, caption channels), caption_mask (B, L), true on real tokens → the real tokens
        alone, projected (T, D), and where they belong.

        Raises InvalidInput for shapes that do not fit and for a caption without tokens.
        """
        mask = caption_mask.bool()
        if caption_embeds.ndim != 3 or mask.shape != caption_embeds.shape[:2]:
            raise InvalidInput(
                f"caption_embeds {tuple(caption_embeds.shape)} and caption_mask {tuple(mask.shape)} "
                "do not fit; they must be (B, L, C) and (B, L)"
            )
        if caption_embeds.shape[2] != self.architecture.caption_channels:
            raise InvalidInput(
                f"caption_embeds have {caption_embeds.shape[2]} channels, the model takes "
                f"{self.architecture.caption_channels}; use the text encoder it was trained with"
            )
        layout = CaptionLayout.of(mask)
        return self.caption_projection(caption_embeds[mask].to(self.compute_dtype)), layout

    def embed_timesteps(
        self, timesteps: Tensor, image_size: Tensor | None, aspect_ratio: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Inputs as for `PixArtTransformer.prepare_timesteps` → the rows that all blocks share (S, 6, D), and
        those of the output (S, 2, D).
        """
        given = image_size is not None, aspect_ratio is not None
        wanted = self.architecture.micro_conditioning
        if given != (wanted, wanted):
            raise InvalidInput(
                f"a model with micro_conditioning={wanted} {'needs' if wanted else 'takes no'} "
                f"image_size and aspect_ratio; {'give both' if wanted else 'leave them out'}"
            )
        if image_size is not None and aspect_ratio is not None:
            image_size = image_size.expand(len(timesteps), 2)
            aspect_ratio = aspect_ratio.expand(len(timesteps), 1)
        shared_rows, embedding = self.adaln_single(timesteps, image_size, aspect_ratio)
        return shared_rows, self.scale_shift_table + embedding[:, None]

    def token_grid(self, latents: Tensor) -> tuple[int, int]:
        """latents (B, C, H, W) → the (height, width) of their grid of tokens.

        Raises InvalidInput unless H and W are multiples of the patch size.
        """
        patch = self.architecture.patch_size
        height, width = latents.shape[-2:]
        if height % patch or width % patch:
            raise InvalidInput(
                f"latents of {height}x{width} are not a multiple of the patch size {patch}; crop them"
            )
        return (height // patch, width // patch)

    def positions(self, grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """The position embedding of a (height, width) grid → (N, D) in dtype.

        Whoever shares a picture out over devices puts another in its place, where the grid is a band of a larger one.
        """
        config = self.architecture
        return position_embedding(
            grid, config.width, config.base_grid, config.interpolation_scale, device, dtype
        )

    def embed_latents(self, latents: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """latents (B, C, H, W) → tokens with their positions (B, N, D), and their (height, width) grid.

        Raises InvalidInput unless H and W are multiples of the patch size.
        """
        grid = self.token_grid(latents)
        tokens = self.pos_embed(latents.to(self.compute_dtype))
        return tokens + self.positions(grid, latents.device, tokens.dtype), grid

    def read_out(self, tokens: Tensor, output_rows: Tensor, grid: tuple[int, int]) -> Tensor:
        """tokens (B, N, D) on their grid, output_rows (1 or B, 2, D) → (B, out channels, H, W)."""
        patch, channels = self.architecture.patch_size, self.architecture.out_channels
        shift, scale = output_rows.unsqueeze(2).unbind(1)
        patches = self.proj_out(modulated_norm(tokens, shift, scale))
        patches = patches.unflatten(2, (patch, patch, channels)).unflatten(1, grid)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, grid[0] * patch, grid[1] * patch)
