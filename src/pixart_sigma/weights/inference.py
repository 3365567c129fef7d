"""A transformer's configuration from its tensors, for files that carry none.

Legend: D width, g side of the base grid in tokens. Knows nothing of files.

Shapes tell everything but four things. The heads follow from the width (a head of 72, as in every PixArt). The base
grid and its interpolation stand in the position buffer that official files have; without it another model, or the
catalogue, must say. What compression without weights (average, nearest, discard) does is nowhere to be seen.
"""

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pixart_sigma.encoders.pretrained import abbreviate
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.embeddings import position_embedding
from pixart_sigma.weights.config import MICRO_CONDITIONING_PREFIX

HEAD_DIM = 72
REMEDY = (
    "convert it first, naming the released model, or a folder, that it is like: "
    "pixart-sigma convert FILE DIR --to diffusers --like sigma-512"
)
# Of released models and paper sizes; another scale is taken as it is computed.
USUAL_SCALES = (0.5, 1.0, 2.0, 4.0, 5.625, 8.0)
# Rounding of the buffer as it was stored; sines are at most 1.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}

_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")
_CONVOLUTION = ".attn1.kv_compression.conv.weight"


def infer_config(
    weights: Mapping[str, Tensor], positions: Tensor | None, like: TransformerConfig | None, source: str
) -> TransformerConfig:
    """Weights in our names, the position buffer (1, g², D) or None, and a model to be like → the configuration.

    `like` says what the tensors leave open: heads, and base grid and interpolation where the position buffer is
    missing or fits no model. Sizes that both tell are compared later, when the model is built. Raises WeightsError
    where something is missing, unknown or contradictory.
    """
    embedder = _shaped(weights, "pos_embed.proj.weight", 4, source)
    width, in_channels, patch, across = embedder.shape
    output = _shaped(weights, "proj_out.weight", 2, source)
    captions = _shaped(weights, "caption_projection.linear_1.weight", 2, source)
    if patch != across or patch == 0 or output.shape[0] % patch**2:
        raise WeightsError(
            f"{source} has patches of {patch}x{across} and {output.shape[0]} outputs a token, which no PixArt has; "
            "fetch or export it again"
        )
    num_layers = count_layers(weights, source)
    heads, head_dim = _heads(width, like, source)
    sample_size, scale = _positions(positions, width, patch, like, source)
    try:
        return TransformerConfig(
            num_layers=num_layers,
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            in_channels=in_channels,
            out_channels=output.shape[0] // patch**2,
            patch_size=patch,
            sample_size=sample_size,
            caption_channels=captions.shape[1],
            interpolation_scale=scale,
            micro_conditioning=any(name.startswith(MICRO_CONDITIONING_PREFIX) for name in weights),
            qk_norm="transformer_blocks.0.attn1.q_norm.weight" in weights,
            kv_compression=_compression(weights, like, source),
        )
    except InvalidInput as error:
        raise WeightsError(f"{source} holds no PixArt transformer: {error}") from error


def count_layers(weights: Mapping[str, Tensor], source: str) -> int:
    """How many blocks the weights have. Raises WeightsError if one below the last is missing."""
    numbers = block_numbers(weights)
    wanted = {str(number) for number in range(len(numbers))}
    if not numbers or numbers != wanted:
        strange = abbreviate(sorted(numbers - wanted, key=lambda number: (len(number), number))) or "none"
        raise WeightsError(
            f"{source} has {len(numbers)} blocks, among them {strange}; they must be numbered from 0: "
            "fetch or export it again"
        )
    return len(numbers)


def block_number(name: str) -> int | None:
    """The block that a parameter belongs to, if any."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


def block_numbers(names: Iterable[str]) -> set[str]:
    """The blocks that these names speak of, as they are written."""
    return {match[1] for name in names if (match := _BLOCK.match(name))}


def _shaped(weights: Mapping[str, Tensor], name: str, num_axes: int, source: str) -> Tensor:
    if name not in weights:
        raise WeightsError(f"{source} lacks {name}; fetch or export it again")
    if weights[name].ndim != num_axes or 0 in weights[name].shape:
        raise WeightsError(
            f"{source} has {name} of shape {list(weights[name].shape)}, which needs {num_axes} axes; "
            "fetch or export it again"
        )
    return weights[name]


def _heads(width: int, like: TransformerConfig | None, source: str) -> tuple[int, int]:
    if like is not None and like.width == width:
        return like.num_attention_heads, like.attention_head_dim
    if width % HEAD_DIM:
        raise WeightsError(
            f"{source} has width {width}, which is not a multiple of {HEAD_DIM}, so its heads cannot be told; {REMEDY}"
        )
    return width // HEAD_DIM, HEAD_DIM


def _positions(
    positions: Tensor | None, width: int, patch: int, like: TransformerConfig | None, source: str
) -> tuple[int, float]:
    """→ (sample_size, interpolation_scale)."""
    if positions is None:
        if like is not None:
            return like.sample_size, like.interpolation_scale
        raise WeightsError(f"{source} does not say for which size it was trained; {REMEDY}")
    embedding = positions.flatten(0, -2) if positions.ndim == 3 else positions
    grid = math.isqrt(embedding.shape[0]) if embedding.ndim == 2 else 0
    square = grid >= 2 and embedding.shape == (grid**2, width)
    if like is not None:
        if square and not (grid == like.base_grid and _fits(embedding, grid, like.interpolation_scale)):
            own = _interpolation_scale(embedding, grid)
            if own is not None:
                raise WeightsError(
                    f"{source} has a pos_embed of {grid}x{grid} tokens, interpolation {own:g}; --like names a model of "
                    f"{like.base_grid}x{like.base_grid}, interpolation {like.interpolation_scale:g}: leave it out, or "
                    "name another"
                )
        return like.sample_size, like.interpolation_scale
    if not square:
        raise WeightsError(
            f"{source} has pos_embed of shape {list(positions.shape)}, which is no square grid of "
            f"width {width}; {REMEDY}"
        )
    scale = _interpolation_scale(embedding, grid)
    if scale is None:
        raise WeightsError(
            f"{source} has a pos_embed that fits no interpolation of {grid}x{grid} tokens; {REMEDY}"
        )
    return grid * patch, scale


def _fits(embedding: Tensor, grid: int, scale: float) -> bool:
    """Whether an embedding (g², D) is that of this interpolation, as well as its dtype tells."""
    computed = position_embedding((grid, grid), embedding.shape[1], grid, scale, embedding.device)
    return (computed - embedding.double()).abs().max().item() <= TOLERANCE[embedding.dtype]


def _interpolation_scale(embedding: Tensor, grid: int) -> float | None:
    """The scale that makes this embedding (g², D), or None.

    The first frequency is 1, so sine and cosine of the second column's position tell the distance of two tokens, which
    is 1 / scale.
    """
    width = embedding.shape[1]
    sine, cosine = embedding[1, 0].double().item(), embedding[1, width // 4].double().item()
    if not (math.isfinite(sine) and math.isfinite(cosine)):
        return None
    distance = math.atan2(sine, cosine) % math.tau
    if distance == 0:
        return None
    usual = [scale for scale in USUAL_SCALES if math.isclose(1 / scale % math.tau, distance, rel_tol=0.02)]
    candidates = (*usual, round(1 / distance, 3))
    return next((scale for scale in candidates if scale and _fits(embedding, grid, scale)), None)


def _compression(
    weights: Mapping[str, Tensor], like: TransformerConfig | None, source: str
) -> KVCompression | None:
    convolutions = {name: tensor for name, tensor in weights.items() if name.endswith(_CONVOLUTION)}
    known = like.kv_compression if like is not None else None
    if not convolutions:
        return known if known is not None and known.operator != "conv" else None
    windows = {tuple(tensor.shape[2:]) for tensor in convolutions.values()}
    if len(windows) != 1 or any(len(window) != 2 for window in windows):
        raise WeightsError(
            f"{source} compresses keys over windows {sorted(windows)}; they must be one of (height, width): "
            "fetch or export it again"
        )
    blocks = tuple(int(match[1]) for name in convolutions if (match := _BLOCK.match(name)))
    norms = {name.replace(".conv.", ".norm.") in weights for name in convolutions}
    from_tokens = known.from_tokens if known is not None else 0
    # Where only some blocks have a norm, the comparison of names will say which.
    return KVCompression(windows.pop(), "conv", blocks, any(norms), from_tokens)
