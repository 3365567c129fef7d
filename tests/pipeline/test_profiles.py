import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.profiles import DIFFUSERS, OFFICIAL, PROFILES, find_profile

PROMPT = "  A Red\tHouse. \n"


def test_the_profiles_are_these() -> None:
    assert list(PROFILES) == ["diffusers", "official"]
    assert find_profile("diffusers") is DIFFUSERS
    assert find_profile("official") is OFFICIAL
    with pytest.raises(InvalidInput, match="unknown profile 'magic'; one of diffusers, official"):
        find_profile("magic")


def test_official_captions_keep_their_case() -> None:
    assert OFFICIAL.caption(PROMPT) == "A Red\tHouse."


def test_diffusers_captions_are_those_of_diffusers() -> None:
    from diffusers import PixArtSigmaPipeline

    (theirs,) = PixArtSigmaPipeline._text_preprocessing(None, [PROMPT], clean_caption=False)
    assert DIFFUSERS.caption(PROMPT) == theirs == "a red\thouse."


def test_official_has_no_place_for_a_negative_prompt() -> None:
    OFFICIAL.check_negative_prompt(" ")
    DIFFUSERS.check_negative_prompt("blurry")
    with pytest.raises(InvalidInput, match=r"takes no negative prompt.*use --profile diffusers"):
        OFFICIAL.check_negative_prompt("blurry")


def test_the_official_aspect_ratio_is_the_buckets_nominal_one() -> None:
    assert OFFICIAL.aspect_ratio(768, 1344, 1024) == 0.57
    assert DIFFUSERS.aspect_ratio(768, 1344, 1024) == 768 / 1344
    assert OFFICIAL.aspect_ratio(1024, 1024, 1024) == 1.0
