"""The stages that several studies share, so that each is trained once. Functions of the scale alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.study import Stage, Trained
from pixart_sigma.resolution import LATENT_SCALE

Level = Literal[0, 1, 2]
LOW: Level = 0
MIDDLE: Level = 1
HIGH: Level = 2
_SPAN = 512
"""Pixels a unit of interpolation_scale, so that every grid spans the positions 0 … 32 as in the released models."""


def base(scale: Scale) -> Stage:
    """From scratch at the low resolution, on the pocket model's encoders; most studies start here."""
    return _scratch(scale, LOW, "base", (*scale.curve, scale.half, scale.base))


def alone(scale: Scale) -> Stage:
    """From scratch at the middle resolution."""
    return _scratch(scale, MIDDLE, "alone", (*scale.curve, scale.alone))


def with_captions(scale: Scale, name: str, *overrides: str) -> Stage:
    """The base on other captions, for half of its steps."""
    stage = replace(base(scale), name=f"captions-{name}", lengths=(scale.half,))
    return _changed(stage, *overrides)


def old_autoencoder(scale: Scale) -> Stage:
    """The role of Stable Diffusion's autoencoder; the pocket model's own has that of SDXL's."""
    name = "pocket-alpha-autoencoder"
    return Stage("autoencoder", name, (scale.autoencoder,), scale.shrink.get("autoencoder", ()), seeded=False)


def old_base(scale: Scale) -> Stage:
    """The base on the old autoencoder."""
    fresh = base(scale)
    inputs = (("scratch.autoencoder", old_autoencoder(scale).last), ("scratch.text_encoder", None))
    return replace(fresh, name="old-base", lengths=(scale.base,), inputs=inputs)


def swapped(scale: Scale) -> Stage:
    """The base on the old autoencoder, trained on with the new one."""
    tuned = _tuned(scale, LOW, "swap", old_base(scale).last, scale.curve)
    return replace(tuned, inputs=(*tuned.inputs, ("start.vae", None)))


def raised(scale: Scale, name: str = "raised", *overrides: str) -> Stage:
    """The base at the middle resolution, followed over the curve's steps."""
    return _tuned(scale, MIDDLE, name, base(scale).last, scale.curve, *overrides)


def raised_again(scale: Scale, name: str = "fine", *overrides: str) -> Stage:
    """From the middle to the high resolution."""
    return _tuned(scale, HIGH, name, raised(scale).last, (scale.fine,), *overrides)


def uninterpolated(scale: Scale) -> Stage:
    """The base at the middle resolution, where its positions go on beyond those that it knows."""
    return raised(scale, "uninterpolated", f"start.interpolation_scale={scale.low / _SPAN}")


def compression(window: tuple[int, int] = (2, 2), **settings: str | bool) -> str:
    """The override that compresses keys and values; without settings as in the paper: deep, conv, average."""
    named = {
        name: f'"{value}"' if isinstance(value, str) else str(value).lower()
        for name, value in settings.items()
    }
    listed = ", ".join([f"window = {list(window)}", *(f"{name} = {value}" for name, value in named.items())])
    return f"start.kv_compression={{ {listed} }}"


def compressed(scale: Scale, window: tuple[int, int] = (2, 2), **settings: str | bool) -> Stage:
    """The base at the middle resolution, compressed from the first step on."""
    return raised(scale, _compressed_name("compressed", window, settings), compression(window, **settings))


def compressed_again(scale: Scale, window: tuple[int, int]) -> Stage:
    """From the middle to the high resolution, compressed from the first step on."""
    return raised_again(scale, _compressed_name("fine", window, {}), compression(window))


def _compressed_name(first: str, window: tuple[int, int], settings: dict[str, str | bool]) -> str:
    words = [value if isinstance(value, str) else f"{name}-{value}" for name, value in settings.items()]
    return "-".join([first, f"{window[0]}x{window[1]}", *words]).lower()


def _side(scale: Scale, level: Level) -> int:
    return (scale.low, scale.middle, scale.high)[level]


def _scratch(scale: Scale, level: Level, name: str, lengths: tuple[int, ...]) -> Stage:
    side = _side(scale, level)
    fresh = Stage(
        name,
        "study-base",
        lengths,
        (f"scratch.sample_size={side // LATENT_SCALE}", f"scratch.interpolation_scale={side / _SPAN}"),
        (("scratch.autoencoder", None), ("scratch.text_encoder", None)),
        side=side,
    )
    return _changed(_sized(scale, level, fresh), *scale.shrink.get("scratch", ()))


def _tuned(
    scale: Scale, level: Level, name: str, start: Trained, lengths: tuple[int, ...], *overrides: str
) -> Stage:
    overrides = (f"start.resolution={_side(scale, level)}", *overrides)
    inputs = (("start.model", start),)
    return _sized(
        scale, level, Stage(name, "study-tune", lengths, overrides, inputs, side=_side(scale, level))
    )


def _sized(scale: Scale, level: Level, stage: Stage) -> Stage:
    sizes = (
        f"run.batch_size={scale.batches[level]}",
        f"data.sources.0.drawn.num_scenes={scale.scenes[level]}",
    )
    return _changed(stage, *sizes, *scale.shrink.get("transformer", ()))


def _changed(stage: Stage, *overrides: str) -> Stage:
    return replace(stage, overrides=(*stage.overrides, *overrides))
