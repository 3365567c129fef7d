import torch

from pixart_sigma.training.draws import batch_indices, keyed_generator


def test_a_draw_depends_on_each_of_its_keys() -> None:
    def draw(seed: int, step: int, purpose: str) -> float:
        return float(torch.rand((), generator=keyed_generator(seed, step, purpose)))

    assert draw(1, 2, "noise") == draw(1, 2, "noise")
    assert len({draw(1, 2, "noise"), draw(2, 2, "noise"), draw(1, 3, "noise"), draw(1, 2, "crops")}) == 4
    # Keys are not simply run together.
    assert draw(1, 12, "noise") != draw(11, 2, "noise")


def test_every_epoch_shows_every_sample_once_though_batches_straddle_epochs() -> None:
    shown = torch.cat([batch_indices(0, step, 4, 10) for step in range(5)])
    first, second = shown.split(10)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()


def test_a_batch_larger_than_the_data_repeats_them() -> None:
    counts = torch.bincount(batch_indices(0, 0, 9, 3), minlength=3)
    assert counts.tolist() == [3, 3, 3]
