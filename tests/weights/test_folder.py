import shutil
from pathlib import Path

import pytest

from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.weights.folder import COMPONENTS, base_resolution, find_pipeline


def test_a_pipeline_folder_is_found(tiny_folder: Path) -> None:
    assert find_pipeline(str(tiny_folder)) == tiny_folder
    assert base_resolution(tiny_folder) == 256


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown model 'rocket': neither 'pocket' nor a folder"):
        find_pipeline("rocket")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_folder_that_lacks_a_part_is_refused(tiny_folder: Path, tmp_path: Path, component: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "partial"))
    shutil.rmtree(folder / component)
    with pytest.raises(WeightsError, match=f"partial lacks {component};"):
        find_pipeline(folder)


@pytest.mark.parametrize("value", ["null", '"32"', "0"])
def test_a_base_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(f'{{"sample_size": {value}}}')
    with pytest.raises(WeightsError, match="not a positive integer"):
        base_resolution(tmp_path)
