import torch

from pixart_sigma.diffusion import draw_kept_tokens


def test_keeps_one_token_per_window_of_the_replicated_grid():
    kept = draw_kept_tokens((5, 6), (2, 4), torch.Generator().manual_seed(0))
    assert kept.shape == (3 * 2,)
    assert len(kept.unique()) == 6
    assert kept.min() >= 0
    assert kept.max() < 6 * 8
    assert torch.equal(kept, kept.sort().values)


def test_each_sample_has_its_own_draw():
    both = draw_kept_tokens((8, 8), (2, 2), [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    alone = draw_kept_tokens((8, 8), (2, 2), torch.Generator().manual_seed(1))
    assert both.shape == (2, 16)
    assert torch.equal(both[1], alone)
    assert not torch.equal(both[0], both[1])


def test_every_token_is_kept_now_and_then():
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([draw_kept_tokens((4, 4), (2, 2), generator) for _ in range(100)])
    assert len(seen.unique()) == 16
