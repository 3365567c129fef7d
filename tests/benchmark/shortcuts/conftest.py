import pytest

from fake_judges import FakeExtractor, fake_judges  # noqa: F401
from tiny_pipeline import tiny_folder  # noqa: F401


@pytest.fixture
def fake_jury(fake_judges: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    module = "pixart_sigma.benchmark.shortcuts.quality"
    monkeypatch.setattr(f"{module}.extractor", lambda choice, device: FakeExtractor())
    monkeypatch.setattr(f"{module}.load_checker", lambda device: object())
