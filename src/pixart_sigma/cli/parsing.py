"""Options of `generate` that mean something together: what was written → values, checked. Knows nothing of models."""

from pixart_sigma.encoders.text_holds import TEXT_HOLDS, TextHold, check_text_hold
from pixart_sigma.encoders.tiling import Tiling, TilingMethod
from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest, parse_kv_compression
from pixart_sigma.resolution import parse_aspect, parse_base, parse_size


def parse_frame(
    size: str | None, aspect: str | None, base: str | None
) -> tuple[int | None, int | None, float | None, int | None]:
    """(height, width) in pixels; or height / width and the base to snap to, if it is not the model's; or nothing for
    the model's own size.
    """
    for name, given in (("--aspect", aspect), ("--base", base)):
        if size is not None and given is not None:
            raise InvalidInput(f"--size {size} and {name} {given} exclude each other; give one of them")
    if size is not None:
        return *parse_size(size), None, None
    ratio = parse_aspect(aspect) if aspect is not None else None
    if base is None:
        return None, None, ratio, None
    return None, None, 1.0 if ratio is None else ratio, parse_base(base)


def parse_compression(
    window: str | None, operator: str | None, blocks: str | None
) -> KVCompressionRequest | None:
    """The three options of key/value compression, of which the window says whether there is any."""
    if window is not None:
        return parse_kv_compression(window, operator, blocks)
    for name, given in (("operator", operator), ("blocks", blocks)):
        if given is not None:
            raise InvalidInput(
                f"--kv-compression-{name} {given} needs a window; give --kv-compression 2x2 too, or leave it out"
            )
    return None


def check_ways(
    text_encoder: str | None, vae_tiling: str | None
) -> tuple[TextHold | None, TilingMethod | None]:
    """What the user decided of how parts run, seen to exist."""
    if text_encoder is not None:
        check_text_hold(text_encoder)
    hold = next((hold for hold in TEXT_HOLDS if hold == text_encoder), None)
    return hold, Tiling(vae_tiling).method if vae_tiling is not None else None  # type: ignore[arg-type]
