"""Text encoder, transformer and autoencoder one after another, each alone in memory; and parts that are shared."""

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from comparison import relative_error
from pixart_sigma import EncodedPrompts, Request, TextToImage
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.pipeline.captions import encode_prompts
from pixart_sigma.pipeline.profiles import OFFICIAL
from pixart_sigma.pipeline.request import Lora
from tiny_lora import write_lora_file

PROMPTS = ("A red house", "a small cactus with a happy face")
REQUEST = Request(PROMPTS, height=64, width=48, num_steps=3, seed=4, num_images=2)


def loaded(folder: Path, *parts: str, **options: Any) -> TextToImage:
    """A pipeline with these parts alone."""
    left_out = {name: None for name in ("text_encoder", "transformer", "autoencoder") if name not in parts}
    return TextToImage.from_pretrained(folder, **left_out, **options)


@pytest.mark.parametrize("profile", ["diffusers", "official"])
def test_the_walk_makes_the_picture_of_the_one_call_bit_for_bit(tiny_folder: Path, profile: str) -> None:
    at_once = TextToImage.from_pretrained(tiny_folder, profile=profile).generate(REQUEST)

    writer = loaded(tiny_folder, "text_encoder", profile=profile)
    encoded = writer.encode(PROMPTS)
    forgotten = weakref.ref(writer.text_encoder.model)
    del writer
    gc.collect()
    assert forgotten() is None

    denoiser = loaded(tiny_folder, "transformer", profile=profile)
    latents = denoiser.denoise(encoded, REQUEST)
    forgotten = weakref.ref(denoiser.transformer)
    del denoiser
    gc.collect()
    assert forgotten() is None
    assert torch.equal(latents, at_once.latents)

    images = loaded(tiny_folder, "autoencoder", profile=profile).decode(latents)
    assert [image.tobytes() for image in images] == [image.tobytes() for image in at_once.images]
    assert len(images) == 4


def test_only_what_is_loaded_must_be_there(tiny_folder: Path, tmp_path: Path) -> None:
    for part in ("text_encoder", "transformer", "vae"):
        folder = tmp_path / part
        others = {"text_encoder": ["tokenizer"], "transformer": ["scheduler"], "vae": []}[part]
        for name in [part, *others]:
            shutil.copytree(tiny_folder / name, folder / name)
        loaded(folder, "autoencoder" if part == "vae" else part)


def test_a_part_that_was_left_out_is_named_with_its_remedy(tiny_folder: Path) -> None:
    writer = loaded(tiny_folder, "text_encoder")
    encoded = writer.encode(PROMPTS)
    with pytest.raises(InvalidInput, match="the transformer was left out; load it"):
        writer.generate(REQUEST)
    denoiser = loaded(tiny_folder, "transformer")
    with pytest.raises(InvalidInput, match=r"the text_encoder was left out; load it, or give .*encoded"):
        denoiser.generate(REQUEST)
    with pytest.raises(InvalidInput, match=r'the autoencoder was left out; .*output="latents"'):
        denoiser.generate(REQUEST, encoded=encoded)
    assert denoiser.generate(REQUEST, encoded=encoded, output="latents").images == []


def test_embeddings_and_masks_can_be_taken_out_and_given(tiny_folder: Path) -> None:
    """Padded as far as one likes, saved, and the null branch for each or for all."""
    model = TextToImage.from_pretrained(tiny_folder)
    encoded = model.encode(PROMPTS, "blurry")
    assert (encoded.embeds.shape, encoded.mask.shape) == ((2, 8, 16), (2, 8))
    assert encoded.mask.sum(1).tolist() == [4, 8]
    assert encoded.negative_embeds is not None
    assert encoded.negative_mask is not None
    assert encoded.negative_embeds.shape == (1, 2, 16)
    assert not any(value.requires_grad for value in (encoded.embeds, encoded.negative_embeds))
    by_hand = EncodedPrompts(
        torch.nn.functional.pad(encoded.embeds, (0, 0, 0, 5)),
        torch.nn.functional.pad(encoded.mask, (0, 5)),
        encoded.negative_embeds.repeat(2, 1, 1),
        encoded.negative_mask.repeat(2, 1),
    )
    expected = model.denoise(encoded, REQUEST)
    assert relative_error(model.denoise(by_hand, REQUEST), expected) <= 1e-5
    assert torch.equal(model(PROMPTS, "blurry", 64, 48, 3, seed=4, num_images=2).latents, expected)


def test_without_guidance_nothing_is_encoded_for_it(tiny_folder: Path) -> None:
    encoded = loaded(tiny_folder, "text_encoder").encode(PROMPTS, guided=False)
    assert encoded.negative_embeds is None
    model = loaded(tiny_folder, "transformer")
    with pytest.raises(InvalidInput, match="needs negative captions"):
        model.denoise(encoded, REQUEST)
    model.denoise(encoded, Request(PROMPTS, height=64, width=48, num_steps=1, guidance_scale=1.0))


def test_parts_are_shared_and_not_loaded_again(tiny_folder: Path, tmp_path: Path) -> None:
    first = TextToImage.from_pretrained(tiny_folder)
    alone = tmp_path / "alone"
    for name in ("transformer", "scheduler"):
        shutil.copytree(tiny_folder / name, alone / name)
    second = TextToImage.from_pretrained(
        alone, text_encoder=first.text_encoder, autoencoder=first.autoencoder, profile="official"
    )
    assert second.text_encoder is first.text_encoder
    assert second.autoencoder is first.autoencoder
    assert second.transformer is not first.transformer
    third = TextToImage.from_pretrained(tiny_folder, transformer=first.transformer)
    assert third.transformer is first.transformer
    assert torch.equal(third.generate(REQUEST).latents, first.generate(REQUEST).latents)


def test_a_shared_text_encoder_takes_the_models_caption_length(tiny_folder: Path, tmp_path: Path) -> None:
    first = TextToImage.from_pretrained(tiny_folder)
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "alpha"))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("PixArtSigmaPipeline", "PixArtAlphaPipeline"))
    second = TextToImage.from_pretrained(folder, text_encoder=first.text_encoder)
    assert (first.text_encoder.caption_length, second.text_encoder.caption_length) == (300, 120)
    assert second.text_encoder.model is first.text_encoder.model


def test_loras_are_for_a_transformer_that_is_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    loras = [Lora(write_lora_file(tmp_path / "style.safetensors"))]
    with pytest.raises(InvalidInput, match="loras are merged into a transformer that is loaded"):
        loaded(tiny_folder, "text_encoder", loras=loras)


def test_a_null_caption_of_the_checkpoint_is_the_official_null_branch(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "converted"))
    null = torch.randn(300, 16)
    file = folder / "transformer" / "null_caption.safetensors"
    save_file({"null_caption": null}, file)
    for parts in (("text_encoder",), ("text_encoder", "transformer")):
        encoded = loaded(folder, *parts, profile="official").encode(PROMPTS)
        assert encoded.negative_embeds is not None
        assert torch.equal(encoded.negative_embeds, null[:8].expand(2, 8, 16))
        assert encoded.negative_mask is encoded.mask
        encoded = loaded(folder, *parts).encode(PROMPTS)
        assert encoded.negative_embeds is not None
        assert encoded.negative_embeds.shape == (1, 1, 16)
    with pytest.raises(WeightsError, match=r"the null caption \(5, 16\) .* does not fit captions \(8, 16\)"):
        encode_prompts(loaded(folder, "text_encoder").text_encoder, PROMPTS, "", True, OFFICIAL, null[:5])


def test_a_null_caption_tells_the_caption_length(tiny_folder: Path, tmp_path: Path) -> None:
    """Of an α transformer beside Σ's components, say."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "converted"))
    save_file({"null_caption": torch.randn(120, 16)}, folder / "transformer" / "null_caption.safetensors")
    model = TextToImage.from_pretrained(folder)
    assert model.text_encoder.caption_length == model._parts.caption_length == 120


def test_official_takes_no_negative_prompt(tiny_folder: Path) -> None:
    model = loaded(tiny_folder, "text_encoder", profile="official")
    with pytest.raises(InvalidInput, match="takes no negative prompt"):
        model.encode(PROMPTS, "blurry")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.ones(2, 4)}, r"embeds \(2, 3, 16\) and mask \(2, 4\) do not fit"),
        ({"embeds": torch.ones(2, 3)}, r"embeds \(2, 3\) and mask \(2, 3\) do not fit"),
        ({"negative_mask": None}, "negative_embeds and negative_mask go together"),
        ({"negative_mask": torch.ones(1, 2)}, r"negative_embeds \(1, 1, 16\) and negative_mask \(1, 2\)"),
        (
            {"negative_embeds": torch.ones(3, 1, 16), "negative_mask": torch.ones(3, 1)},
            "3 negative_embeds for 2 embeds; give one, or one for each",
        ),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    given = {
        "embeds": torch.ones(2, 3, 16),
        "mask": torch.ones(2, 3),
        "negative_embeds": torch.ones(1, 1, 16),
        "negative_mask": torch.ones(1, 1),
    }
    with pytest.raises(InvalidInput, match=message):
        EncodedPrompts(**(given | change))


def test_as_many_prompts_are_encoded_as_asked_for(tiny_folder: Path) -> None:
    encoded = loaded(tiny_folder, "text_encoder").encode(PROMPTS[:1])
    with pytest.raises(InvalidInput, match="1 encoded prompts for 2 in the request; give as many"):
        loaded(tiny_folder, "transformer").denoise(encoded, REQUEST)


def test_one_prompt_may_be_given_as_text(tiny_folder: Path) -> None:
    model = loaded(tiny_folder, "text_encoder")
    one, listed = model.encode("a red house"), model.encode(["a red house"])
    assert torch.equal(one.embeds, listed.embeds)
    with pytest.raises(InvalidInput, match="nothing to encode"):
        model.encode([])
    with pytest.raises(InvalidInput, match="negative_prompt is a list; it is one text"):
        model.encode("a red house", ["blurry"])


def test_a_negative_prompt_beside_encoded_ones_is_refused(tiny_folder: Path) -> None:
    model = TextToImage.from_pretrained(tiny_folder)
    encoded = model.encode("a red house", "blurry")
    with pytest.raises(InvalidInput, match="would be ignored; give it to encode"):
        model("a red house", "blurry", encoded=encoded)
    assert len(model("a red house", height=64, width=48, num_steps=1, encoded=encoded).images) == 1
