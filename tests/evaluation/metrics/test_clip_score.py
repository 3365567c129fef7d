import pytest
import torch

from pixart_sigma.evaluation.metrics.clip_score import clip_scores


def test_each_picture_is_compared_with_its_own_text() -> None:
    images = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    texts = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    scores = clip_scores(images, texts)
    assert scores.tolist() == pytest.approx([100, 0, 0, 100 / 2**0.5])
    assert scores.dtype == torch.float64
