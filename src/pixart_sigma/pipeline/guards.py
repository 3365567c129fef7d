"""Combinations that load without an error and make bad pictures: each is refused, or warned of, with its remedy.

Warnings (UserWarning) are for what might be meant. What is known of sizes and positions is known of released models
and of XL/2, their shape; other shapes, the pocket model's among them, have no rules to break.
Knows nothing of how pictures are made.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from pixart_sigma.diffusion.sampling import Step
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.pipeline.captions import EncodedPrompts
from pixart_sigma.pipeline.parts import Parts
from pixart_sigma.pipeline.request import Request
from pixart_sigma.pipeline.samplers import check_sampler
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.weights.catalogue import Family, Release, SamplingKind, releases

ALPHA_CAPTION_LENGTH = 120
NAMES: Mapping[Family, str] = {"alpha": "PixArt-α", "sigma": "PixArt-Σ"}
AUTOENCODERS: Mapping[Family, tuple[str, float]] = {"alpha": ("SD", 0.18215), "sigma": ("SDXL", 0.13025)}
"""Whose autoencoder each family has, and its scaling factor."""
INTERPOLATION_BASE = 64  # latents along a side at which positions are whole numbers: 512 px
FARTHEST = math.sqrt(2)  # half the pixels of the model's own size, or twice as many
BLACK = 2  # of 255, the brightest that is still black


def family_of(release: Release | None, caption_length: int) -> Family:
    """α or Σ: as released, else by the caption length, which differs."""
    if release is not None:
        return release.family
    return "alpha" if caption_length <= ALPHA_CAPTION_LENGTH else "sigma"


def check_parts(parts: Parts) -> None:
    """What can be said of parts before anything is asked of them."""
    family = family_of(parts.release, parts.caption_length)
    config = parts.transformer.config if parts.transformer is not None else None
    known = parts.release is not None or (config is not None and _is_xl(config))
    # What lies in one folder was trained together, whatever it is, unless it is known as released.
    if parts.autoencoder is not None and known and (parts.release or parts.borrowed_autoencoder):
        check_autoencoder(parts.autoencoder.scaling_factor, family, parts.name)
    if config is not None and known:
        check_positions(config, family)


def check_request(parts: Parts, request: Request, encoded: EncodedPrompts) -> None:
    """What can be said before the first step."""
    check_sampler(request.sampler, parts.kinds, parts.name)
    check_caption_length(encoded.mask, parts.caption_length, parts.name)
    if parts.transformer is None or request.height is None or request.width is None:
        return
    config = parts.transformer.config
    if config.kv_compression is not None and config.kv_compression.from_tokens:
        return  # trained on small sizes too
    if parts.release is not None or _is_xl(config):
        family = family_of(parts.release, parts.caption_length)
        kind = parts.release.sampling.kind if parts.release is not None else "many-step"
        check_size(request.height, request.width, config.sample_size, family, kind, parts.name)


def check_autoencoder(scaling_factor: float, family: Family, model: str) -> None:
    """Warns if the autoencoder is the other family's."""
    for other, (whose, scale) in AUTOENCODERS.items():
        if other != family and math.isclose(scaling_factor, scale, rel_tol=1e-6):
            own, own_scale = AUTOENCODERS[family]
            lender = next(release.components for release in releases().values() if release.family == family)
            warnings.warn(
                f"the autoencoder (scaling factor {scaling_factor:g}) is {whose}'s, of {NAMES[other]}; model {model} "
                f"is of {NAMES[family]} and was trained with {own}'s ({own_scale:g}): the picture will be wrong; "
                f"use that one (--components {lender})",
                stacklevel=4,
            )


def check_positions(config: TransformerConfig, family: Family) -> None:
    """Warns if position interpolation does not fit the size that the model is based on."""
    fitting = config.sample_size / INTERPOLATION_BASE
    if family == "alpha":
        fitting = max(fitting, 1.0)  # α was interpolated for larger pictures only
    if not math.isclose(config.interpolation_scale, fitting):
        warnings.warn(
            f"interpolation_scale {config.interpolation_scale:g} does not fit sample_size {config.sample_size}, where "
            f"{NAMES[family]} has {fitting:g}: the picture's parts will be too large or too small; "
            f'write "interpolation_scale": {fitting:g} in transformer/config.json',
            stacklevel=4,
        )


def check_size(
    height: int, width: int, sample_size: int, family: Family, kind: SamplingKind, model: str
) -> None:
    """Warns if a picture has less than half or more than twice the pixels of the model's own size.

    Names the released model of the family, sampled in the same way, that fits.
    """
    side, own = math.sqrt(height * width), sample_size * LATENT_SCALE
    if own / FARTHEST <= side <= own * FARTHEST:
        return
    # The last of equals: of two models for 256 pixels the first has seen photographs of one collection only.
    others = [other for other in releases().values() if (other.family, other.sampling.kind) == (family, kind)]
    best = min(reversed(others), key=lambda other: abs(math.log(side / other.resolution)), default=None)
    remedy = f"--size {own}x{own} or near it"
    if best is not None and best.resolution != own:
        remedy = f"--model {best.name}, or {remedy}"
    warnings.warn(
        f"model {model} was trained on about {own}x{own} pixels and makes poor pictures of {width}x{height}; "
        f"use {remedy}",
        stacklevel=4,
    )


def check_caption_length(mask: Tensor, caption_length: int, model: str) -> None:
    """mask (B, L), True on real tokens. Raises InvalidInput for captions longer than the model was trained with."""
    longest = int(mask.sum(1).max())
    if longest > caption_length:
        raise InvalidInput(
            f"a caption of {longest} tokens was encoded for another model; {model} takes {caption_length}: "
            "encode it with this model's own encode"
        )


def check_finite(step: Step, dtype: torch.dtype) -> None:
    """Raises WeightsError if latents are not finite after a step."""
    if bool(step.latents.isfinite().all()):
        return
    remedy = "use --dtype float32"
    if dtype == torch.float32:
        remedy = "the weights or the embeddings are broken: fetch or convert them again"
    raise WeightsError(
        f"the latents are not finite after step {step.done} of {step.total} (timestep {step.timestep:g}, "
        f"{str(dtype).removeprefix('torch.')}); {remedy}"
    )


def check_pixels(pixels: Tensor, dtype: torch.dtype) -> None:
    """Raises WeightsError if what the autoencoder made is not finite."""
    # Both are NaN if a pixel is; to ask each of them would take more memory than they do.
    if not all(bool(extreme.isfinite()) for extreme in pixels.aminmax()):
        raise WeightsError(
            f"the autoencoder's pixels are not finite ({str(dtype).removeprefix('torch.')}), the picture would be "
            "black; use --dtype float32, or fetch the autoencoder again if it is that already"
        )


def check_not_black(image: Image, index: int) -> None:
    """Warns of a picture that is black all over; index is its place in the call, from 0."""
    if int(np.asarray(image).max()) <= BLACK:
        warnings.warn(
            f"picture {index + 1} is black all over; unless it should be, the autoencoder does not fit the model or "
            "has overflowed: try --dtype float32, or another seed",
            stacklevel=4,
        )


def _is_xl(config: TransformerConfig) -> bool:
    return (config.num_layers, config.width) == (28, 1152)
