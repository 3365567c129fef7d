import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixart_sigma.errors import InvalidInput
from pixart_sigma.resolution import (
    BASES,
    aspect_buckets,
    check_size,
    nearest_bucket,
    num_image_tokens,
    parse_aspect,
    parse_base,
    parse_size,
)

SIDES = (256, 512, 1024, 2048, 2880, 4096)


def test_users_write_the_width_first() -> None:
    assert parse_size("1024x576") == (576, 1024)
    assert parse_aspect("16:9") == pytest.approx(9 / 16)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (1000, 1024, "height 1000 is not a multiple of 16; nearest: 992 or 1008 (--size 1024x1008)"),
        (1024, 1000, "width 1000 is not a multiple of 16; nearest: 992 or 1008 (--size 1008x1024)"),
        (0, 256, "height 0 is outside 16 to 8192; nearest: 16 (--size 256x16)"),
        (256, 100_000, "width 100000 is outside 16 to 8192; nearest: 8192 (--size 8192x256)"),
    ],
)
def test_a_wrong_size_is_refused_with_the_remedy(height: int, width: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        check_size(height, width)


@given(st.integers(-10, 20_000), st.integers(-10, 20_000))
def test_the_remedy_for_a_wrong_size_is_a_right_one(height: int, width: int) -> None:
    try:
        check_size(height, width)
    except InvalidInput as error:
        remedy = re.search(r"--size (\S+)\)", str(error))
        assert remedy is not None
        parse_size(remedy[1])
    else:
        assert num_image_tokens(height, width) * 256 == height * width


@pytest.mark.parametrize("text", ["", "512", "512*512", "-16x16", "16x16x16", "axb", "16.0x16"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not WIDTHxHEIGHT"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "16", "16x9", "0:1", "1:0", "-1:1", "nan:1"])
def test_what_is_no_aspect_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not WIDTH:HEIGHT"):
        parse_aspect(text)


@pytest.mark.parametrize("text", ["5:1", "1:5", "1000:1"])
def test_an_aspect_beyond_the_buckets_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="beyond 4:1 or 1:4"):
        parse_aspect(text)


@pytest.mark.parametrize("base", SIDES)
def test_every_bucket_is_a_size_and_near_its_nominal_ratio(base: int) -> None:
    for ratio, (height, width) in aspect_buckets(base).items():
        check_size(height, width)
        assert height / width == pytest.approx(ratio, rel=0.04)
        assert height * width == pytest.approx(base**2, rel=0.15)


@pytest.mark.parametrize("base", SIDES)
def test_every_bucket_snaps_to_itself(base: int) -> None:
    buckets = aspect_buckets(base)
    assert [nearest_bucket(ratio, base) for ratio in buckets] == list(buckets.values())


def test_aspects_snap_to_the_bucket_of_the_base() -> None:
    assert nearest_bucket(9 / 16, 256) == (192, 336)
    assert nearest_bucket(16 / 9, 256) == (336, 192)
    assert nearest_bucket(1.0, 512) == (512, 512)
    assert nearest_bucket(9 / 16, 1024) == (768, 1344)


def test_4k_snaps_to_the_tables_of_its_bases() -> None:
    assert nearest_bucket(9 / 16, parse_base("4k")) == (3072, 5376)
    assert nearest_bucket(9 / 16, parse_base("UHD")) == (2112, 3840)
    assert nearest_bucket(9 / 16, parse_base("2k")) == (1536, 2688)
    assert parse_size("3840x2160") == (2160, 3840)  # as given, whatever the tables say


def test_every_name_of_a_base_has_buckets() -> None:
    assert {parse_base(name) for name in BASES} == set(SIDES)
    with pytest.raises(InvalidInput, match="unknown base '8k'; one of 256, 512, 1k, 1024"):
        parse_base("8k")


def test_a_base_without_buckets_is_refused() -> None:
    with pytest.raises(InvalidInput, match="base 64 has no aspect-ratio buckets"):
        nearest_bucket(1.0, 64)
