from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.metrics.fid import gaussian_statistics
from pixart_sigma.evaluation.metrics.reference import Reference, load_reference, save_reference


def reference(embeddings: torch.Tensor | None = None) -> Reference:
    return Reference("pocket-0123", gaussian_statistics([torch.randn(9, 5)]), embeddings)


@pytest.mark.parametrize("embeddings", [None, torch.randn(9, 3)], ids=["features alone", "embeddings too"])
def test_it_comes_back_as_it_was(tmp_path: Path, embeddings: torch.Tensor | None) -> None:
    saved = reference(embeddings)
    save_reference(saved, tmp_path / "reference.safetensors")
    loaded = load_reference(tmp_path / "reference.safetensors", "pocket-0123")
    assert loaded.extractor == "pocket-0123"
    assert loaded.statistics.num == 9
    assert torch.equal(loaded.statistics.mean, saved.statistics.mean)
    assert torch.equal(loaded.statistics.covariance, saved.statistics.covariance)
    if embeddings is None:
        assert loaded.embeddings is None
    else:
        assert torch.equal(loaded.embeddings, embeddings)


def test_patches_come_back_with_the_size_of_their_pictures(tmp_path: Path) -> None:
    patches = gaussian_statistics([torch.randn(9, 5)])
    save_reference(replace(reference(), patches=patches, size=(32, 48)), tmp_path / "reference.safetensors")
    loaded = load_reference(tmp_path / "reference.safetensors", "pocket-0123")
    assert loaded.size == (32, 48)
    assert loaded.patches is not None
    assert torch.equal(loaded.patches.covariance, patches.covariance)


def test_another_extractors_is_refused(tmp_path: Path) -> None:
    save_reference(reference(), tmp_path / "reference.safetensors")
    with pytest.raises(InvalidInput, match=r"was made with pocket-0123, not with clip-89ab; choose that"):
        load_reference(tmp_path / "reference.safetensors", "clip-89ab")


def test_a_file_that_is_no_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        load_reference(tmp_path / "missing.safetensors", "pocket-0123")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(InvalidInput, match="is no reference"):
        load_reference(tmp_path / "text", "pocket-0123")
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InvalidInput, match="is no reference"):
        load_reference(tmp_path / "weights.safetensors", "pocket-0123")
