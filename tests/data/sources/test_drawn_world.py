import numpy as np
import pytest

from pixart_sigma.data import drawn
from pixart_sigma.data.images import decode
from pixart_sigma.data.record import Record
from pixart_sigma.data.sources import drawn_world, records
from pixart_sigma.world import Scene, dense_caption, hallucinated_caption, render, sample_scene, short_caption


def test_scenes_become_records() -> None:
    origin = drawn_world(5, 3, 32, 48)
    assert origin.num_candidates == 3
    found = [outcome for outcome in records(origin) if isinstance(outcome, Record)]
    assert [record.key for record in found] == ["scene-5", "scene-6", "scene-7"]
    for seed, record in enumerate(found, 5):
        scene = sample_scene(seed)
        assert np.array_equal(np.asarray(decode(record.image)), render(scene, 32, 48))
        assert decode(record.image).format == "PNG"
        assert (record.height, record.width) == (32, 48)
        assert [(caption.source, caption.text) for caption in record.captions] == [
            ("short", short_caption(scene)),
            ("dense", dense_caption(scene)),
            ("hallucinated", hallucinated_caption(scene)),
        ]


def test_known_scenes_are_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []

    def noted(seed: int, **options: bool) -> Scene:
        rendered.append(seed)
        return sample_scene(seed, **options)

    monkeypatch.setattr(drawn, "sample_scene", noted)
    origin = drawn_world(5, 3, 32, 48)
    rendered.clear()
    assert [outcome.key for outcome in records(origin, {"scene-5", "scene-6"})] == ["scene-7"]
    assert set(rendered) == {7}


@pytest.mark.parametrize("change", [{"first_seed": 1}, {"num_scenes": 3}, {"height": 48}])
def test_the_fingerprint_follows_the_request(change: dict[str, int]) -> None:
    request = {"first_seed": 0, "num_scenes": 2, "height": 32, "width": 32}
    assert drawn_world(**request).fingerprint == drawn_world(**request).fingerprint
    assert drawn_world(**request).fingerprint != drawn_world(**request | change).fingerprint


def test_the_fingerprint_follows_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawn_world(0, 1, 32, 32).fingerprint
    monkeypatch.setattr(drawn, "short_caption", lambda scene: "something else")
    assert drawn_world(0, 1, 32, 32).fingerprint != before
