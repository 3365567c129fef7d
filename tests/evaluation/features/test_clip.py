import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.evaluation.features import ImageTextExtractor, extractor

SIDE = 32
LIMIT = 12
TEXTS = ["a red house", "cat", "a house a cat a house a cat a house a cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of two layers with random weights and a tokenizer of letters, as transformers saves them."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]).save_pretrained(
        folder
    )
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {
        "vocab_size": len(pieces),
        "max_position_embeddings": LIMIT,
        "eos_token_id": len(pieces) - 1,
    }
    vision = tower | {"image_size": SIDE, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    config.initializer_factor = 20.0  # so that different inputs are told apart
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> ImageTextExtractor:
    loaded = extractor(f"clip:{folder}")
    assert isinstance(loaded, ImageTextExtractor)
    return loaded


@pytest.fixture(scope="module")
def reference(folder: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(folder).eval()


def some_images(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


def transformers_embeddings(reference: CLIPModel, folder: Path, images: np.ndarray) -> tuple[Tensor, Tensor]:
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    pixels = processor(images=list(images), return_tensors="pt").pixel_values
    tokens = CLIPTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, max_length=LIMIT, return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = reference(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=pixels
        )
    return outputs.image_embeds, outputs.text_embeds


@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), (50, 50), (40, 61), (61, 40), (20, 16)])
def test_it_is_transformers_clip(
    clip: ImageTextExtractor, reference: CLIPModel, folder: Path, height: int, width: int
) -> None:
    images = some_images(height, width)
    image_embeddings, text_embeddings = transformers_embeddings(reference, folder, images)
    assert torch.allclose(clip.embed_images(images), image_embeddings, atol=1e-5)
    assert torch.allclose(clip.features(images), image_embeddings, atol=1e-5)
    assert torch.allclose(clip.embed_texts(TEXTS), text_embeddings, atol=1e-5)


def test_embeddings_are_unit_vectors_that_tell_inputs_apart(clip: ImageTextExtractor) -> None:
    for embeddings in (clip.embed_images(some_images(40, 40)), clip.embed_texts(TEXTS)):
        assert embeddings.dtype == torch.float32
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(3))
        assert torch.pdist(embeddings).min() > 1e-3


def test_a_text_does_not_depend_on_those_beside_it(clip: ImageTextExtractor) -> None:
    assert torch.allclose(clip.embed_texts(TEXTS)[1], clip.embed_texts(TEXTS[1:2])[0], atol=1e-5)


def test_a_hub_id_is_found_in_the_cache(
    folder: Path, clip: ImageTextExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "models--owner--tiny-clip"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123")
    (kept / "snapshots").mkdir()
    (kept / "snapshots" / "0123").symlink_to(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert extractor("clip:owner/tiny-clip").name == clip.name


@pytest.mark.parametrize("source", ["owner/not-fetched", "no folder and no id"])
def test_what_is_not_here_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidInput, match="neither a folder nor a model in the Hub's cache"):
        extractor(f"clip:{source}")


def test_a_folder_without_a_part_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config\.json"):
        extractor(f"clip:{tmp_path}")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    with pytest.raises(WeightsError, match=r"no tokenizer\.json or vocab\.json"):
        extractor(f"clip:{tmp_path}")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"the tokenizer in .* cannot be loaded"):
        extractor(f"clip:{tmp_path}")


def test_a_tokenizer_that_is_code_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    # Without a type that transformers knows, the class is looked for beside the file.
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": ""}))
    (tmp_path / "tokenizer_config.json").unlink(missing_ok=True)
    own = {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Theirs", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass Theirs: pass\n")
    with pytest.raises(WeightsError, match="is code of its own, which is never run"):
        extractor(f"clip:{tmp_path}")
    assert not (tmp_path / "pwned").exists()
