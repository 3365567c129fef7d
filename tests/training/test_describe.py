from pathlib import Path

import pytest

from pixart_sigma.training.recipe import load_recipe
from pixart_sigma.training.recipe.describe import describe, missing


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        (
            "pocket-autoencoder",
            [],
            "an autoencoder, on crops of 64 px from 2,400 scenes at 128 px and 256 px and 512 px",
        ),
        ("pocket-text-encoder", [], "a text encoder, on the captions of 10,000 scenes, 25% masked"),
        ("pocket-reader", [], "the text encoder of runs/mixed/export, to tell what the captions of 60,000"),
        ("pocket-reader", [], "adamw, learning rate 0.002 (0.1 of relative positions), cosine"),
        ("pocket-mixed", [], "muon, learning rate 0.0005 (0.001 of matrices), cosine"),
        ("pocket-binding", [], "text encoder from runs/reader/export"),
        ("pocket-checker", [], "a checker, on 12,000 scenes at each of 128 px and 256 px"),
        (
            "pocket-image-text",
            ["image_sizes=[64]"],
            "an image-text model, on 12,000 scenes at each of 64 px and",
        ),
        ("pocket-alpha", [], "a transformer and its text encoder, at 128 px, square"),
        ("pocket-alpha", [], "begins with fresh weights: 8 blocks of width 256"),
        ("pocket-alpha", [], "embeddings computed at every step"),
        ("pocket-256", [], "12,000 drawn scenes; features cached"),
        ("pocket-lora", [], "a LoRA of rank 32 over a base in bf16"),
        ("pocket-lora", ["lora.dora=true"], "a DoRA of rank 32"),
        ("pocket-lora", [], "the adapter with the averaged weights in fp32"),
        ("pocket-1024", [], "the averaged weights (50% of runs/256/export blended in) in bf16"),
        ("pocket-256", ["export.weights=last"], "the pipeline with the last weights in bf16"),
        ("sigma-512-dreambooth", [], 'folder instance 20 times and 100 class images of "a photo of a dog"'),
        ("sigma-256-vae-swap", [], "positions for 16 x 16 tokens, scale 0.5; autoencoder from sigma-1024"),
        ("sigma-256-vae-swap", [], "latents scaled as its config.json says; captions of up to 300 tokens"),
        ("sigma-4k", [], "40 buckets from 1408x5760 to 5760x1408"),
        ("sigma-4k", [], "keys and values compressed 2x2 (conv, blocks deep)"),
        ("sigma-4k", ["start.kv_compression.blocks=[3, 4]"], "(conv, blocks [3, 4])"),
        ("sigma-512", ["start.qk_norm=true"], "QK norm on"),
        ("sigma-512", ["run.accumulate=4"], "100,000 steps of 1,536 in 4 parts"),
        ("sigma-512", ["run.keep_every=5000"], "the last 2 and every 5,000th kept"),
        ("sigma-512", ["run.batch_size=1024"], "learning rate 4e-05 (2e-05 at a batch of 256), constant"),
    ],
)
def test_describe(name: str, overrides: list[str], told: str) -> None:
    assert told in "\n".join(describe(load_recipe(name, overrides)))


def test_a_model_without_changes_is_called_that() -> None:
    recipe = (
        'kind = "transformer"\n[run]\nsteps = 1\nbatch_size = 1\n[start]\nmodel = "m"\n[data]\nsources = '
    )
    from pixart_sigma.training.recipe import parse_recipe

    lines = describe(parse_recipe(recipe + '[{table = "t"}]', "mine"))
    assert lines[:3] == [
        "a transformer, at the starting model's resolution",
        "begins with m, unchanged",
        "learns from table t; features cached",
    ]


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert missing(load_recipe("pocket-lora")) == ["data.sources.0.folder images"]
    (tmp_path / "images").mkdir()
    assert missing(load_recipe("pocket-lora")) == []
    assert missing(load_recipe("pocket-lora", ["data.validation.table=held.lance"])) == [
        "data.validation.table held.lance"
    ]
    assert missing(load_recipe("sigma-256-vae-swap")) == [
        "data.sources.0.pixart data/sigma",
    ]
    assert missing(load_recipe("pocket-alpha")) == [
        "scratch.autoencoder runs/alpha-autoencoder/export",
        "scratch.text_encoder runs/text-encoder/export",
    ]
    assert missing(load_recipe("pocket-autoencoder")) == []
