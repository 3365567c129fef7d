from pathlib import PurePath

import pytest

from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.config import TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.resolution import aspect_buckets
from pixart_sigma.weights.catalogue import find_release, release_named, releases
from pixart_sigma.weights.config import released_config
from pixart_sigma.weights.folder import COMPONENTS


def test_these_models_were_released() -> None:
    assert list(releases()) == [
        "sigma-256",
        "sigma-512",
        "sigma-1024",
        "sigma-2k",
        "alpha-256-sam",
        "alpha-256",
        "alpha-512",
        "alpha-1024",
        "alpha-1024-lcm",
        "alpha-512-dmd",
    ]


@pytest.mark.parametrize("name", releases())
def test_an_entry_is_consistent(name: str) -> None:
    release = releases()[name]
    alpha = release.family == "alpha"
    assert name.startswith(release.family)
    assert release.caption_length == (120 if alpha else 300)
    assert release.vae_scaling_factor == (0.18215 if alpha else 0.13025)
    assert release.micro_conditioning == (alpha and release.resolution == 1024)
    assert release.bucket_base == release.resolution
    assert aspect_buckets(release.bucket_base)
    # Every square grid spans about 32, but for alpha at 256.
    span = release.sample_size / 2 / release.interpolation_scale
    assert span == (16 if alpha and release.resolution == 256 else 32)
    assert set(release.parts) <= set(COMPONENTS)
    assert "transformer" in release.parts
    assert (release.official_file is None) == (release.official_repository is None)
    assert release.sampling.kind == {"alpha-1024-lcm": "lcm", "alpha-512-dmd": "dmd"}.get(name, "many-step")
    assert (release.sampling.timestep == 400) == (release.sampling.kind == "dmd")
    assert release.sampling.scheduler["beta_end"] == 0.02
    assert hash(release.name)


def test_the_smaller_sigmas_borrow() -> None:
    borrowing = [name for name, release in releases().items() if release.parts == ("transformer",)]
    assert borrowing == ["sigma-256", "sigma-512", "sigma-2k", "alpha-512-dmd"]
    assert releases()["sigma-512"].components == "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers"


@pytest.mark.parametrize("name", ["sigma-1024", "alpha-1024"])
def test_the_parameters_are_counted_right(name: str) -> None:
    import torch

    with torch.device("meta"):
        model = PixArtTransformer(released_config(releases()[name]))
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert releases()[name].num_parameters("transformer") == counted
    assert releases()[name].num_bytes("transformer") == 4 * counted
    assert releases()[name].num_bytes("scheduler") == 0


def test_the_default_configuration_is_sigma_1024() -> None:
    assert released_config(releases()["sigma-1024"]) == TransformerConfig()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("sigma-2k", "sigma-2k"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-2K-MS", "sigma-2k"),
        ("models/PixArt-Sigma-XL-2-2K-MS", "sigma-2k"),
        (PurePath("/weights/PixArt-XL-2-1024-MS.pth"), "alpha-1024"),
        ("somebody/PixArt-LCM-XL-2-1024-MS", "alpha-1024-lcm"),
        ("pocket", None),
        ("/weights/None", None),
        ("sigma", None),
        ("", None),
    ],
)
def test_a_release_is_found_by_what_it_is_called(model: str, name: str | None) -> None:
    release = find_release(model)
    assert (release.name if release else None) == name


def test_an_unknown_name_is_told_the_known_ones() -> None:
    assert release_named("sigma-512") is releases()["sigma-512"]
    with pytest.raises(
        InvalidInput, match=r"no released model 'sigma-4k'; one of sigma-256, .*alpha-512-dmd"
    ):
        release_named("sigma-4k")
