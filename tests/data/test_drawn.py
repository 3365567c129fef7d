from pathlib import Path

import numpy as np
import pytest

from pixart_sigma.data import drawn
from pixart_sigma.data.drawn import draw_scenes, image_pool
from pixart_sigma.world import dense_caption, render, sample_scene, short_caption
from pixart_sigma.world.scene import HELD_OUT_COLOURS


def test_a_pool_holds_the_scenes_of_its_seeds(tmp_path: Path) -> None:
    pool = image_pool(tmp_path, 7, 3, 32, 48)
    assert pool.images.shape == (3, 32, 48, 3)
    for index, record in enumerate(pool.records):
        scene = sample_scene(7 + index)
        assert np.array_equal(pool.images[index], render(scene, 32, 48))
        assert (record.seed, record.short, record.dense) == (
            7 + index,
            short_caption(scene),
            dense_caption(scene),
        )
        assert record.truth["background"] == scene.background


def test_judges_pools_show_held_out_pairs_too() -> None:
    def held_out(all_pairs: bool) -> bool:
        return any(
            (thing["kind"], thing["colour"]) in HELD_OUT_COLOURS
            for _, _, records in draw_scenes(0, 100, 16, 16, all_pairs)
            for record in records
            for thing in record.truth["things"]
        )

    assert held_out(True)
    assert not held_out(False)


def test_a_finished_pool_is_opened_and_not_drawn_again(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    image_pool(tmp_path, 0, 2, 32, 32, lambda done, total: reports.append((done, total)))
    image_pool(tmp_path, 0, 2, 32, 32, lambda done, total: reports.append((done, total)))
    assert reports == [(2, 2)]


@pytest.mark.parametrize("change", [{"num_scenes": 3}, {"height": 48}, {"first_seed": 1}])
def test_another_request_draws_anew(tmp_path: Path, change: dict[str, int]) -> None:
    request = {"first_seed": 0, "num_scenes": 2, "height": 32, "width": 32}
    image_pool(tmp_path, **request)
    request |= change
    pool = image_pool(tmp_path, **request)
    assert pool.images.shape[:2] == (request["num_scenes"], request["height"])
    assert pool.records[0].seed == request["first_seed"]


def test_another_world_draws_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_pool(tmp_path, 0, 1, 32, 32)
    monkeypatch.setattr(drawn, "short_caption", lambda scene: "something else")
    assert image_pool(tmp_path, 0, 1, 32, 32).records[0].short == "something else"


def test_half_a_pool_is_not_a_pool(tmp_path: Path) -> None:
    image_pool(tmp_path, 0, 2, 32, 32)
    (tmp_path / "pool.json").unlink()
    np.save(tmp_path / "images.npy", np.zeros((2, 32, 32, 3), np.uint8))
    assert image_pool(tmp_path, 0, 2, 32, 32).images.any()


def test_nothing_is_drawn_of_no_scenes() -> None:
    assert list(draw_scenes(5, 0, 32, 32)) == []


def test_processes_draw_the_same_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = np.concatenate([images for _, images, _ in draw_scenes(0, 6, 32, 32)])
    monkeypatch.setattr(drawn, "_CHUNK", 2)
    monkeypatch.setattr(drawn.os, "cpu_count", lambda: 2)
    parts = list(draw_scenes(0, 6, 32, 32))
    assert [offset for offset, _, _ in parts] == [0, 2, 4]
    assert np.array_equal(np.concatenate([images for _, images, _ in parts]), alone)
    assert [record.seed for _, _, records in parts for record in records] == list(range(6))
