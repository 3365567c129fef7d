from pathlib import Path

import torch
from PIL import Image

from pixart_sigma.training.watching.pictures import save_grid


def test_a_grid_is_filled_by_rows_and_its_last_row_may_be_short(tmp_path: Path) -> None:
    levels = (-1.0, 0.0, 1.0, -1.0, 1.0)
    save_grid(torch.stack([torch.full((3, 4, 6), level) for level in levels]), 3, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (18, 8)
        seen = [grid.getpixel((6 * column + 3, 4 * row + 2))[0] for row in (0, 1) for column in (0, 1, 2)]
    assert (seen[0], seen[2:]) == (0, [255, 0, 255, 255])
    assert abs(seen[1] - 127.5) <= 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
