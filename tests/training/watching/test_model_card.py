from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from pixart_sigma.errors import InvalidInput
from pixart_sigma.training.recipe import TransformerRecipe
from pixart_sigma.training.recipe.data import CaptionRecipe, DataRecipe, SourceRecipe
from pixart_sigma.training.recipe.process import RateRecipe, RunRecipe
from pixart_sigma.training.recipe.start import StartRecipe
from pixart_sigma.training.recipe.transformer import ObjectiveRecipe
from pixart_sigma.training.watching.model_card import ModelFacts, training_rows, write_model_card

HOME = "/" + "home/ann"
FACTS = ModelFacts(
    name="cats-256",
    resolutions=(256,),
    training=[("Recipe", f"{HOME}/recipes/cats.toml"), ("Steps", "400 of 64 pictures")],
    sources={"cats | dogs": 12_000},
    figures={"validation_loss": 0.206412},
    surgery=["made 8 tensors"],
    limits=["It has seen no night."],
    base_name="the pocket model",
)


def test_a_pipelines_card_can_be_read_by_the_hub(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("left by another library")
    assert write_model_card(tmp_path, FACTS) == tmp_path / "README.md"
    card = ModelCard.load(tmp_path / "README.md")
    head = card.data.to_dict()
    assert head == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "pixart-sigma"],
    }
    for words in (
        "# cats-256",
        "trained further from the pocket model",
        "pixart-sigma generate",
        "PixArtSigmaPipeline.from_pretrained",
        "| Recipe | …/cats.toml |",
        "| cats \\| dogs | 12,000 |",
        "| validation loss | 0.2064 |",
        "- made 8 tensors",
        "around 256²",
        "- It has seen no night.",
        "No license is stated",
    ):
        assert words in card.text, words
    assert "left by another" not in card.content
    assert "\n\n\n" not in card.content
    assert "ann" not in card.content.split("/")


def test_an_alpha_models_card_names_its_class_and_its_captions_length(tmp_path: Path) -> None:
    write_model_card(tmp_path, replace(FACTS, pipeline_class="PixArtAlphaPipeline", caption_length=77))
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "PixArtAlphaPipeline.from_pretrained" in text
    assert "PixArtSigmaPipeline" not in text
    assert "use_resolution_binning=False, max_sequence_length=77" in text


def test_what_is_known_stands_in_the_head(tmp_path: Path) -> None:
    facts = replace(FACTS, base_model="owner/base-1.0", license="apache-2.0")
    write_model_card(tmp_path, facts)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data.license) == ("owner/base-1.0", "apache-2.0")
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert "No license" not in card.text


def test_an_adapters_card_shows_peft(tmp_path: Path) -> None:
    write_model_card(tmp_path, replace(FACTS, adapter="LoRA of rank 16", base_model="owner/base"))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert "lora" in card.data.tags
    assert 'PixArtSigmaPipeline.from_pretrained("owner/base"' in card.text
    assert "PeftModel.from_pretrained(pipeline.transformer" in card.text
    assert "generate" not in card.text


def test_what_diffusers_lacks_is_imported_for_diffusers(tmp_path: Path) -> None:
    write_model_card(tmp_path, replace(FACTS, needs_package="KV compression"))
    text = ModelCard.load(tmp_path / "README.md").text
    assert "whose own class lacks parts of this transformer (KV compression)" in text
    assert text.index("import pixart_sigma.integrations.diffusers") < text.index("from_pretrained")
    assert "pixart-sigma generate" in text


@pytest.mark.parametrize("snippet", ["pipeline", "adapter"])
def test_the_python_of_a_card_is_python(tmp_path: Path, snippet: str) -> None:
    write_model_card(tmp_path, replace(FACTS, adapter="LoRA" if snippet == "adapter" else None))
    code = (tmp_path / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")


def test_a_base_that_is_no_id_of_the_hub_is_refused(tmp_path: Path) -> None:
    for wrong in (f"{HOME}/export", "base", "../base"):
        with pytest.raises(InvalidInput, match="OWNER/NAME"):
            write_model_card(tmp_path, replace(FACTS, base_model=wrong))
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_tells_how_it_trains() -> None:
    recipe = TransformerRecipe(
        kind="transformer",
        run=RunRecipe(steps=4000, batch_size=64),
        rate=RateRecipe(kind="cosine", warmup_steps=100),
        data=DataRecipe(sources=(SourceRecipe(folder=Path("pictures")),)),
        start=StartRecipe(model=Path("base"), resolution=512),
        objective=ObjectiveRecipe(
            prediction_type="v_prediction", timesteps="logit-normal", min_snr_gamma=5.0
        ),
        captions=CaptionRecipe(mix={"dense": 0.6, "short": 0.4}),
    )
    rows = dict(training_rows(recipe, "cats"))
    assert rows["Recipe"] == "cats"
    assert rows["Steps"] == "4,000 of 64 pictures"
    assert rows["Resolution"] == "512², aspect buckets"
    assert rows["Predicts"] == "the velocity (`v_prediction`)"
    assert rows["Timesteps"] == "logit-normal (mean 0, deviation 1)"
    assert rows["Weighting"] == "min-SNR, γ 5"
    assert rows["Captions"] == "dense 0.6, short 0.4"
    assert rows["Learning rate"] == "0.001, cosine after 100 steps of warm-up"
    assert rows["Weights"] == "moving average, decay 0.999"
    assert "Recipe" not in dict(training_rows(recipe))
