import pytest
import torch
from torch import Tensor

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.null_caption import null_caption_change, put_null_captions

LENGTHS = (5, 1, 3)
DROP = torch.tensor([True, False, True])


def batch() -> tuple[Tensor, Tensor]:
    """Three captions of `LENGTHS`, padded to six."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(3, 6, 4, generator=generator), torch.arange(6) < torch.tensor(LENGTHS)[:, None]


def null(rows: int) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(4))


def test_what_was_made_is_said() -> None:
    change = null_caption_change(null(7))
    assert (change.name, change.action) == ("null_caption", "made")
    assert change.detail.startswith("[7, 4] float32")


def test_under_its_own_mask() -> None:
    embeddings, mask = batch()
    inputs = embeddings.clone(), mask.clone()
    replacement = null(2)
    new, new_mask = put_null_captions(embeddings, mask, DROP, replacement, "own")
    assert new_mask.sum(1).tolist() == [2, LENGTHS[1], 2]
    for row in (0, 2):
        assert torch.equal(new[row][new_mask[row]], replacement)
        assert not new[row][~new_mask[row]].any()
    assert torch.equal(new[1], embeddings[1])
    assert torch.equal(new_mask[1], mask[1])
    assert torch.equal(embeddings, inputs[0])
    assert torch.equal(mask, inputs[1])


def test_its_own_tokens_are_the_first_of_a_padded_embedding() -> None:
    embeddings, mask = batch()
    padded = null(300)
    new, new_mask = put_null_captions(embeddings, mask, DROP, padded, "own", null_length=1)
    expected, expected_mask = put_null_captions(embeddings, mask, DROP, padded[:1], "own")
    assert torch.equal(new, expected)
    assert torch.equal(new_mask, expected_mask)


def test_a_null_caption_longer_than_the_batch_makes_room() -> None:
    embeddings, mask = batch()
    new, new_mask = put_null_captions(embeddings, mask, DROP, null(8), "own")
    assert new.shape == (3, 8, 4)
    assert new_mask.sum(1).tolist() == [8, LENGTHS[1], 8]
    assert torch.equal(new[1, :6], embeddings[1])
    assert torch.equal(new[0], null(8))


@pytest.mark.parametrize("rows", [300, 6, 5])
def test_under_the_mask_of_the_caption(rows: int) -> None:
    embeddings, mask = batch()
    replacement = null(rows)
    new, new_mask = put_null_captions(embeddings, mask, DROP, replacement, "caption")
    assert torch.equal(new_mask, mask)
    assert new.shape == embeddings.shape
    for row in (0, 2):
        assert torch.equal(new[row][mask[row]], replacement[: LENGTHS[row]])
    assert torch.equal(new[1], embeddings[1])


@pytest.mark.parametrize("convention", ["own", "caption"])
def test_no_caption_or_every_caption_may_be_dropped(convention: str) -> None:
    embeddings, mask = batch()
    kept, kept_mask = put_null_captions(
        embeddings, mask, torch.zeros(3, dtype=torch.bool), null(6), convention
    )
    assert torch.equal(kept, embeddings)
    assert torch.equal(kept_mask, mask)
    dropped, _ = put_null_captions(embeddings, mask, torch.ones(3, dtype=torch.bool), null(6), convention)
    assert torch.equal(dropped, null(6).expand(3, -1, -1))


@pytest.mark.parametrize("convention", ["own", "caption"])
def test_gradients_reach_what_is_used_and_nothing_else(convention: str) -> None:
    embeddings, mask = batch()
    embeddings.requires_grad_()
    replacement = null(6).bfloat16().requires_grad_()
    new, _ = put_null_captions(embeddings, mask, DROP, replacement, convention)
    assert new.dtype == torch.float32
    new.sum().backward()
    assert embeddings.grad[:, 0, 0].tolist() == [0, 1, 0]
    assert replacement.grad[:, 0].tolist() == [2] * 6


def test_refusals() -> None:
    embeddings, mask = batch()
    with pytest.raises(InvalidInput, match="convention 'none'; one of own, caption"):
        put_null_captions(embeddings, mask, DROP, null(6), "none")
    with pytest.raises(InvalidInput, match="has 5 tokens, the null embedding 4 rows"):
        put_null_captions(embeddings, mask, DROP, null(4), "caption")
    with pytest.raises(InvalidInput, match="null_length 1 would be ignored"):
        put_null_captions(embeddings, mask, DROP, null(6), "caption", null_length=1)
    for null_length in (0, 7):
        with pytest.raises(InvalidInput, match=f"null_length is {null_length}"):
            put_null_captions(embeddings, mask, DROP, null(6), "own", null_length=null_length)
    with pytest.raises(InvalidInput, match="do not fit"):
        put_null_captions(embeddings, mask, DROP[:2], null(6), "own")
    with pytest.raises(InvalidInput, match="do not fit"):
        put_null_captions(embeddings, mask, DROP, null(6)[:, :3], "own")
    # A caption that is kept may be longer than the null embedding.
    put_null_captions(embeddings, mask, torch.tensor([False, True, True]), null(3), "caption")
