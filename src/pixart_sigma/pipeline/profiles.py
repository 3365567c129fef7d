"""Parity profiles: the conventions in which diffusers and the official code make different pictures of one prompt.

| | `diffusers` | `official` |
|---|---|---|
| caption | lower-cased and stripped | stripped, its case kept |
| null branch | the negative prompt with its own mask | T5("") padded, with the caption's mask; no negative prompt |
| timesteps of dpm++-2m | whole; the last step goes to no noise | fractional; it goes to the noise of timestep 0 |
| aspect ratio, as a micro-condition | height / width | the training bucket's nominal ratio |

`diffusers` is its pipelines without their optional cleaning (clean_caption=False) and without resizing to a bucket
(use_resolution_binning=False). `official` is what `scripts/inference.py` of PixArt-Σ computes in fp32, with other
random numbers: it draws from a GPU's global generator, we from one generator per picture. Timesteps are official with
dpm++-2m alone; the other samplers are diffusers', in both profiles, and so they are in the official demos of LCM and
DMD. In neither profile is the timestep rounded to the model's dtype, as the official code does in half precision
(fp16; in bf16 it would merge about half of the 1000 timesteps): the sinusoid is in fp32 whatever the dtype, so in
bf16 `official` is nearer to the official fp32 than the official code itself.

Knows nothing of tensors.
"""

from dataclasses import dataclass
from typing import Literal

from pixart_sigma.errors import InvalidInput
from pixart_sigma.resolution import aspect_buckets


@dataclass(frozen=True)
class Profile:
    """What the table above has in a column."""

    name: Literal["diffusers", "official"]
    lower_case: bool
    null_mask: Literal["own", "caption"]
    fractional_timesteps: bool
    nominal_aspect: bool

    def caption(self, prompt: str) -> str:
        """The prompt as the text encoder sees it."""
        return prompt.lower().strip() if self.lower_case else prompt.strip()

    def check_negative_prompt(self, negative_prompt: str) -> None:
        """Raises InvalidInput for a negative prompt where there is no place for one."""
        if self.null_mask == "caption" and negative_prompt.strip():
            raise InvalidInput(
                "profile 'official' takes no negative prompt, as the official samplers do; "
                "use --profile diffusers or leave --negative-prompt out"
            )

    def aspect_ratio(self, height: int, width: int, base: int) -> float:
        """The micro-condition of a picture of height x width pixels, by a model of the base in pixels."""
        aspect = height / width
        if not self.nominal_aspect:
            return aspect
        return min(aspect_buckets(base), key=lambda nominal: abs(nominal - aspect))


DIFFUSERS = Profile(
    "diffusers", lower_case=True, null_mask="own", fractional_timesteps=False, nominal_aspect=False
)
OFFICIAL = Profile(
    "official", lower_case=False, null_mask="caption", fractional_timesteps=True, nominal_aspect=True
)
PROFILES = {profile.name: profile for profile in (DIFFUSERS, OFFICIAL)}
DEFAULT_PROFILE = DIFFUSERS.name


def find_profile(name: str) -> Profile:
    """A name from `PROFILES` → the profile. Raises InvalidInput."""
    for profile in PROFILES.values():
        if profile.name == name:
            return profile
    raise InvalidInput(f"unknown profile {name!r}; one of {', '.join(PROFILES)}")
