import shutil
from pathlib import Path

import pytest
import torch

from comparison import relative_error
from padding import padded
from pixart_sigma.encoders import t5, text
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.encoders.text_holds import TextHold
from pixart_sigma.errors import InvalidInput

PROMPTS = ["a red house", "a small cactus with a happy face in the desert", "", "a red house"]


@pytest.fixture(scope="module")
def encoder(tiny_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_folder)


def test_real_tokens_alone_give_what_padding_to_300_gives(encoder: TextEncoder) -> None:
    ids, whole_mask = padded(encoder, PROMPTS, 300)
    with torch.no_grad():
        reference = encoder.model(ids, whole_mask).last_hidden_state
        embeddings, mask = encoder.encode(PROMPTS)

    assert mask.sum(dim=1).tolist() == [4, 11, 1, 4]
    assert embeddings.shape == (4, 11, 16)
    assert torch.equal(mask, whole_mask[:, :11].bool())
    assert relative_error(embeddings[mask], reference[:, :11][mask]) <= 1e-5
    assert not embeddings[~mask].any()


def rows_looked_up(model: torch.nn.Module, calls: list[int]) -> torch.utils.hooks.RemovableHandle:
    """How many tokens each pass has, from now on."""
    return model.shared.register_forward_pre_hook(lambda module, given: calls.append(given[0].numel()))


def test_only_real_tokens_are_computed_and_in_one_pass(encoder: TextEncoder) -> None:
    passes: list[int] = []
    with rows_looked_up(encoder.model, passes):
        encoder.encode(PROMPTS)
    assert passes == [4 + 11 + 1]  # the repeated prompt costs nothing


def test_many_tokens_are_several_passes(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, _ = encoder.encode(PROMPTS)
    monkeypatch.setattr(t5, "PACKED_TOKENS", 12)
    monkeypatch.setattr(text, "PACKED_TOKENS", 12)
    passes: list[int] = []
    with rows_looked_up(encoder.model, passes):
        apart, _ = encoder.encode([*PROMPTS, "a blue lake", "one red cat", "the old sea"])
    assert len(passes) > 1
    assert max(passes) <= 12
    assert relative_error(apart[: len(PROMPTS)], alone) <= 1e-5


def test_a_prompt_does_not_depend_on_its_batch(encoder: TextEncoder) -> None:
    alone, _ = encoder.encode(PROMPTS[:1])
    together, mask = encoder.encode(PROMPTS)
    assert relative_error(together[0][mask[0]], alone[0]) <= 1e-5


GROUPS = [PROMPTS, ["blurry and red"], [""], ["a red house", "a blue lake"]]


@pytest.mark.parametrize("held", ["resident", "streamed"])
def test_groups_are_encoded_as_each_by_itself(
    held: TextHold, encoder: TextEncoder, tiny_folder: Path
) -> None:
    loaded = TextEncoder.from_pretrained(tiny_folder, held=held)
    with torch.no_grad():
        expected = [encoder.encode(group) for group in GROUPS]
        found = loaded.encode_groups(GROUPS)
    assert len(found) == len(GROUPS)
    for (ours, our_mask), (theirs, their_mask) in zip(found, expected, strict=True):
        assert torch.equal(our_mask, their_mask)
        assert relative_error(ours, theirs) <= 1e-5


def test_a_streamed_encoder_reads_its_files_once(
    tiny_folder: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = TextEncoder.from_pretrained(tiny_folder, torch.bfloat16, held="streamed")
    read: list[int] = []
    fetch = loaded.model._fetched
    monkeypatch.setattr(loaded.model, "_fetched", lambda number: (read.append(number), fetch(number))[1])
    ((embeddings, _), *_) = loaded.encode_groups(GROUPS)
    assert read == [0, 1]
    assert embeddings.dtype == torch.bfloat16
    assert loaded.width == encoder.width == 16
    whole = sum(weight.nbytes for weight in encoder.model.parameters())
    assert encoder.weight_bytes == whole
    assert 0 < loaded.weight_bytes < whole / 2 / 2


def test_an_unknown_hold_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unknown hold of the text encoder 'int3'"):
        TextEncoder.from_pretrained(tmp_path, held="int3")  # type: ignore[arg-type]


def test_gradients_flow(encoder: TextEncoder) -> None:
    embeddings, _ = encoder.encode(PROMPTS)
    assert embeddings.requires_grad


def test_a_long_prompt_is_cut_with_a_warning_and_keeps_its_end_token(encoder: TextEncoder) -> None:
    with pytest.warns(
        UserWarning, match="a prompt of 401 tokens is cut to 300; shorten it, or lose 'red red"
    ):
        (ids,) = encoder.tokenize(["red " * 400])
    assert len(ids) == 300
    assert ids[-1] == encoder.tokenizer.eos_token_id


def test_what_is_cut_is_said(encoder: TextEncoder) -> None:
    with pytest.warns(UserWarning, match=r"or lose 'house by a lake'$"):
        encoder.tokenize(["red " * 299 + "house by a lake"])
    with pytest.warns(UserWarning, match=r"or lose 'happy( red)+ … red( red)+ lake'$") as caught:
        encoder.tokenize(["red " * 299 + "happy " + "red " * 99 + "lake"])
    assert len(str(caught[0].message)) < 250


def test_another_caption_length_shares_the_model(encoder: TextEncoder) -> None:
    short = encoder.with_caption_length(120)
    assert short.model is encoder.model
    with pytest.warns(UserWarning, match="a prompt of 201 tokens is cut to 120"):
        (ids,) = short.tokenize(["red " * 200])
    assert len(ids) == 120
    assert encoder.caption_length == 300


def test_the_tokenizer_may_lie_elsewhere(encoder: TextEncoder, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder / "tokenizer", tmp_path / "words" / "tokenizer")
    shutil.copytree(tiny_folder / "text_encoder", tmp_path / "model" / "text_encoder")
    loaded = TextEncoder.from_pretrained(
        tmp_path / "model", tokenizer_folder=tmp_path / "words", caption_length=120
    )
    assert loaded.caption_length == 120
    assert loaded.tokenize(PROMPTS) == encoder.tokenize(PROMPTS)


def test_the_null_embedding_is_the_empty_caption_and_what_its_padding_became(encoder: TextEncoder) -> None:
    embedding = encoder.null_embedding(7)
    assert embedding.shape == (7, 16)
    assert not embedding.requires_grad
    with torch.no_grad():
        alone, mask = encoder.encode([""])
    assert mask.tolist() == [[True]]
    assert relative_error(embedding[:1], alone[0]) <= 1e-5
    # As the official code does it: the tokenizer pads, and the mask goes with the tokens.
    ids, mask = padded(encoder, [""], 7)
    with torch.no_grad():
        expected = encoder.model(ids, attention_mask=mask)
        unmasked = encoder.model(ids).last_hidden_state[0]
    assert relative_error(embedding, expected.last_hidden_state[0]) <= 1e-6
    assert relative_error(embedding[:1], unmasked[:1]) > 1e-3
    assert embedding[1:].abs().amax(1).min() > 0
    assert encoder.null_embedding().shape == (300, 16)


def test_a_null_embedding_without_room_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidInput, match="caption_length is 0; the empty caption alone has 1 tokens"):
        encoder.null_embedding(0)


def test_a_prompt_of_exactly_the_caption_length_is_not_cut(encoder: TextEncoder) -> None:
    (ids,) = encoder.tokenize(["red " * 299])
    assert len(ids) == 300
