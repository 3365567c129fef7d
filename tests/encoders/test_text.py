from pathlib import Path

import pytest
import torch

from comparison import relative_error
from pixart_sigma.encoders.text import TextEncoder

PROMPTS = ["a red house", "a small cactus with a happy face in the desert", "", "a red house"]


@pytest.fixture(scope="module")
def encoder(tiny_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_folder)


def test_real_tokens_alone_give_what_padding_to_300_gives(encoder: TextEncoder) -> None:
    padded = encoder.tokenizer(PROMPTS, padding="max_length", max_length=300, return_tensors="pt")
    with torch.no_grad():
        reference = encoder.model(padded.input_ids, padded.attention_mask).last_hidden_state
        embeddings, mask = encoder.encode(PROMPTS)

    assert mask.sum(dim=1).tolist() == [4, 11, 1, 4]
    assert embeddings.shape == (4, 11, 16)
    assert torch.equal(mask, padded.attention_mask[:, :11].bool())
    assert relative_error(embeddings[mask], reference[:, :11][mask]) <= 1e-5
    assert not embeddings[~mask].any()


def test_only_real_tokens_are_computed(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    forward = encoder.model.forward

    def counting_forward(input_ids: torch.Tensor) -> object:
        computed.append(input_ids.numel())
        return forward(input_ids=input_ids)

    monkeypatch.setattr(encoder.model, "forward", counting_forward)
    encoder.encode(PROMPTS)
    assert sum(computed) == 4 + 11 + 1  # the repeated prompt costs nothing


def test_a_prompt_does_not_depend_on_its_batch(encoder: TextEncoder) -> None:
    alone, _ = encoder.encode(PROMPTS[:1])
    together, mask = encoder.encode(PROMPTS)
    assert relative_error(together[0][mask[0]], alone[0]) <= 1e-5


def test_gradients_flow(encoder: TextEncoder) -> None:
    embeddings, _ = encoder.encode(PROMPTS)
    assert embeddings.requires_grad


def test_a_long_prompt_is_cut_with_a_warning_and_keeps_its_end_token(encoder: TextEncoder) -> None:
    with pytest.warns(UserWarning, match="a prompt of 401 tokens is cut to 300; shorten it"):
        (ids,) = encoder.tokenize(["red " * 400])
    assert len(ids) == 300
    assert ids[-1] == encoder.tokenizer.eos_token_id


def test_a_prompt_of_exactly_the_caption_length_is_not_cut(encoder: TextEncoder) -> None:
    (ids,) = encoder.tokenize(["red " * 299])
    assert len(ids) == 300
