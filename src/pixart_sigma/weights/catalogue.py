"""The released models by short name, as the package's `released_models.json` tells of them.

Knows nothing of tensors, of the network, or of what is on this machine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Literal

from pixart_sigma.errors import InvalidInput
from pixart_sigma.resolution import LATENT_SCALE

Family = Literal["alpha", "sigma"]
SamplingKind = Literal["many-step", "lcm", "dmd"]
BYTES_PER_PARAMETER = 4  # what is on the Hub is fp32


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled: `many-step` by any of the usual solvers, `lcm` and `dmd` by their own.

    scheduler: the content of a scheduler_config.json. timestep: the one that a one-step model starts from.
    """

    kind: SamplingKind
    steps: int
    guidance_scale: float
    scheduler: Mapping[str, Any]
    timestep: int | None = None


@dataclass(frozen=True)
class Release:
    """A released model. Facts only; sizes are those of the files on the Hub.

    repository: the Hub repository in diffusers' layout. parts: which parts it is believed to hold; the others come
    from the Hub repository `components`. official_repository, official_file: where its .pth is, or None. sample_size:
    latents along a side of the square that it was trained on. bucket_base: the base in pixels of its training sizes.
    """

    name: str
    family: Family
    repository: str
    parts: tuple[str, ...]
    components: str
    official_repository: str | None
    official_file: str | None
    sample_size: int
    interpolation_scale: float
    micro_conditioning: bool
    caption_length: int
    vae_scaling_factor: float
    bucket_base: int
    sampling: Sampling

    @property
    def resolution(self) -> int:
        """Pixels along a side of the square that it was trained on."""
        return self.sample_size * LATENT_SCALE

    def num_parameters(self, part: str) -> int:
        """Of a part of its pipeline; 0 for those without weights."""
        counts = _content()["num_parameters"]
        extra = counts["micro_conditioning"] if part == "transformer" and self.micro_conditioning else 0
        return int(counts.get(part, 0)) + int(extra)

    def num_bytes(self, part: str) -> int:
        """About what a part takes on the Hub and in the cache."""
        return BYTES_PER_PARAMETER * self.num_parameters(part)


@cache
def releases() -> Mapping[str, Release]:
    """Short name → release, smaller models first within a family."""
    content = _content()
    samplings = {kind: Sampling(kind, **settings) for kind, settings in content["samplings"].items()}
    return MappingProxyType(
        {
            name: Release(
                name=name,
                **{
                    **entry,
                    "parts": tuple(entry["parts"]),
                    "sampling": samplings[entry["sampling"]],
                },
            )
            for name, entry in content["models"].items()
        }
    )


def find_release(model: str | PurePath) -> Release | None:
    """A short name, a Hub id, or the path of a folder or .pth that is still called as on the Hub → its release."""
    text = str(model)
    own_name = PurePath(text).name
    for release in releases().values():
        if text in (release.name, release.repository):
            return release
        if own_name in (PurePath(release.repository).name, release.official_file):
            return release
    return None


def release_named(name: str) -> Release:
    """As `find_release`, but raises InvalidInput if there is none."""
    release = find_release(name)
    if release is None:
        raise InvalidInput(f"no released model {name!r}; one of {', '.join(releases())}")
    return release


@cache
def _content() -> dict[str, Any]:
    path = files("pixart_sigma").joinpath("weights", "released_models.json")
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content
