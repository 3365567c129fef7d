import torch

from pixart_sigma.pipeline.noise import picture_generators, seeded_noise


def noise(*seeds: int) -> torch.Tensor:
    return seeded_noise(picture_generators(seeds), (4, 8, 6))


def test_noise_is_bit_equal_whatever_the_batch() -> None:
    assert torch.equal(noise(5, 6)[1], noise(6)[0])
    assert not torch.equal(noise(5), noise(6))


def test_noise_is_what_diffusers_draws_from_a_list_of_generators() -> None:
    from diffusers.utils.torch_utils import randn_tensor

    for seeds in ((7,), (5, 6, 9)):
        assert torch.equal(noise(*seeds), randn_tensor((len(seeds), 4, 8, 6), picture_generators(seeds)))
