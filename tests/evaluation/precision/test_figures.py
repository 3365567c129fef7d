import math

import numpy as np
import pytest
import torch

from pixart_sigma.evaluation.precision.figures import PictureFigures, embedding_figures, picture_figures


def test_what_is_equal_is_equal() -> None:
    embeddings = [torch.randn(3, 8), torch.randn(1, 8)]
    found = embedding_figures(embeddings, embeddings)
    assert found.cosine_mean == pytest.approx(1)
    assert found.cosine_min == pytest.approx(1)
    assert found.relative_error == 0
    pictures = [np.full((2, 3, 3), 7, np.uint8)]
    assert picture_figures(pictures, pictures) == PictureFigures(None, None, 0)


def test_embeddings_over_all_tokens_of_all_prompts() -> None:
    wanted = [torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    found = [torch.tensor([[6.0, 8.0], [0.0, 1.0]]), torch.tensor([[2.0, 2.0]])]
    figures = embedding_figures(found, wanted)
    assert figures.cosine_mean == pytest.approx((1 + 0 + math.sqrt(0.5)) / 3)
    assert figures.cosine_min == 0
    assert figures.relative_error == pytest.approx(math.sqrt((25 + 2 + 4) / (25 + 1 + 4)))


def test_another_dtype_is_compared_in_full() -> None:
    wanted = torch.randn(5, 64)
    figures = embedding_figures([wanted.bfloat16()], [wanted])
    assert 1e-4 < figures.relative_error < 2**-8
    assert 1 - 1e-5 < figures.cosine_min < 1


def test_pictures() -> None:
    wanted = [np.zeros((4, 4, 3), np.uint8)] * 3
    found = [np.full((4, 4, 3), value, np.uint8) for value in (0, 255, 51)]
    figures = picture_figures(found, wanted)
    assert figures.psnr == pytest.approx(20 * math.log10(5))
    assert figures.psnr_min == 0
    assert figures.mean_difference == pytest.approx(102)
    # The difference is a number and not a byte that wraps round.
    assert picture_figures(wanted, found) == figures
