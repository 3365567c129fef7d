from pathlib import Path
from typing import Any

import pytest

from fake_judges import FakeExtractor
from pixart_sigma.reproduction import chain, measure
from pixart_sigma.reproduction.chain import LinkResult, chain_page, reproduce_chain
from pixart_sigma.reproduction.links import LINKS, link_overrides, link_recipe, shrunk
from pixart_sigma.reproduction.metric import ADHERENCE, FID
from pixart_sigma.reproduction.results import Cost
from pixart_sigma.reproduction.scale import FAST
from pixart_sigma.training import run as training
from pixart_sigma.training.recipe import TransformerRecipe, load_recipe


def starts(link: str) -> list[str]:
    return link_overrides(load_recipe(link_recipe(link)), Path("out"))


def test_links_start_from_links_before_them() -> None:
    made: set[str] = set()
    for link in LINKS:
        used = {override.split("/")[1] for override in starts(link)}
        assert used <= made, link
        made.add(link)
    # Each one is there for a later one.
    needed = {override.split("/")[1] for link in LINKS for override in starts(link)}
    assert needed == set(LINKS) - {LINKS[-1]}


def test_folders_are_those_of_the_output() -> None:
    assert starts("vae-swap") == [
        'start.model="out/alpha/export"',
        'start.vae="out/autoencoder/export"',
    ]
    assert starts("text-encoder") == []
    assert starts("reader") == ['start="out/mixed/export"']
    assert starts("binding") == ['start.model="out/mixed/export"', 'start.text_encoder="out/reader/export"']


def test_a_folder_that_is_no_link_stays() -> None:
    recipe = load_recipe("pocket-256", ["start.model=models/mine", "start.components=pocket"])
    assert link_overrides(recipe, Path("out")) == []


@pytest.mark.parametrize("link", LINKS)
def test_the_smoke_test_is_small(link: str) -> None:
    recipe = load_recipe(link_recipe(link), shrunk(link, FAST))
    assert recipe.run.steps <= 2
    assert recipe.run.batch_size <= 2
    if isinstance(recipe, TransformerRecipe):
        assert recipe.resolution is not None
        assert recipe.resolution <= 128
        assert sum(source.drawn.num_scenes for source in recipe.data.sources if source.drawn) <= 8


def test_a_row_a_link() -> None:
    page = chain_page(
        [
            LinkResult("autoencoder", Cost(3600, 64), {"psnr": 33.333}, {}),
            LinkResult("256", Cost(1800, 32), {"loss": 0.5}, {FID: 12.3456, ADHERENCE: 0.5}),
        ]
    )
    assert "| autoencoder | 1.00 | 64 | – | – | – | – | psnr 33.33 |" in page
    assert "| 256 | 0.50 | 32 | 12.3456 | – | – | 0.500 | loss 0.5 |" in page


@pytest.mark.slow
@pytest.mark.usefixtures("fake_judges")
def test_the_chain_in_small_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "extractor", lambda choice, device: FakeExtractor(device))
    page = reproduce_chain(tmp_path, FAST, True, "cpu", lambda line: None)
    text = page.read_text("utf-8")
    assert all(f"\n| {link} | " in text for link in LINKS)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(training, "train", fail)
    monkeypatch.setattr(chain, "shared_reference", lambda *_: next(tmp_path.glob("reference-*")))
    assert reproduce_chain(tmp_path, FAST, True, "cpu", lambda line: None).read_text("utf-8") == text
