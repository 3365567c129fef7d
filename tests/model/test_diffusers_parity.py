"""Equal to diffusers' PixArtTransformer2DModel from the same state dict."""

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from comparison import relative_error
from pixart_sigma.model import PixArtTransformer, TransformerConfig

TINY = {
    "num_layers": 3,
    "num_attention_heads": 3,
    "attention_head_dim": 8,
    "sample_size": 16,
    "caption_channels": 20,
    "interpolation_scale": 2.0,
}


def pair(micro_conditioning=False, **config):
    """Ours and diffusers' model with the same weights, all of them random (diffusers' defaults leave none at
    zero).
    """
    torch.manual_seed(0)
    reference = PixArtTransformer2DModel(
        in_channels=4,
        out_channels=8,
        cross_attention_dim=config["num_attention_heads"] * config["attention_head_dim"],
        use_additional_conditions=micro_conditioning,
        **config,
    ).eval()
    ours = PixArtTransformer(TransformerConfig(micro_conditioning=micro_conditioning, **config))
    ours.load_state_dict(reference.state_dict(), strict=True)
    return ours, reference


def compare(ours, reference, height, width, lengths, image_size=None, aspect_ratio=None):
    generator = torch.Generator().manual_seed(1)
    batch = len(lengths)
    latents = torch.randn(batch, 4, height, width, generator=generator)
    embeds = torch.randn(batch, max(lengths), ours.config.caption_channels, generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    timesteps = torch.linspace(999, 1, batch).round()
    with torch.no_grad():
        expected = reference(
            latents,
            encoder_hidden_states=embeds,
            timestep=timesteps,
            encoder_attention_mask=mask,
            added_cond_kwargs={"resolution": image_size, "aspect_ratio": aspect_ratio},
            return_dict=False,
        )[0]
        output = ours(
            latents,
            ours.prepare_captions(embeds, mask),
            ours.prepare_timesteps(timesteps, image_size, aspect_ratio),
        )
    assert relative_error(output, expected) <= 1e-5


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (8, 24), (26, 10), (2, 2)])
@pytest.mark.parametrize("lengths", [[7], [13, 1, 8]])
def test_shapes_and_masks(height, width, lengths):
    ours, reference = pair(**TINY)
    compare(ours, reference, height, width, lengths)


def test_micro_conditioning():
    ours, reference = pair(micro_conditioning=True, **TINY)
    image_size = torch.tensor([[1024.0, 1024.0], [512.0, 2048.0]])
    compare(ours, reference, 8, 24, [5, 9], image_size, image_size[:, :1] / image_size[:, 1:])


def test_parameter_names_are_those_of_diffusers():
    ours, reference = pair(**TINY)
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: p.shape for name, p in reference.named_parameters()
    }


@pytest.mark.slow
def test_xl_2_at_256():
    ours, reference = pair(
        num_layers=28,
        num_attention_heads=16,
        attention_head_dim=72,
        sample_size=32,
        caption_channels=4096,
        interpolation_scale=0.5,
    )
    compare(ours, reference, 32, 32, [37])
