import json
from pathlib import Path

import pytest

from pixart_sigma.cli.app import run
from pixart_sigma.weights.catalogue import releases


def in_the_cache(cache: Path, repository: str, *files: str) -> None:
    """As the client leaves it."""
    storage = cache / f"models--{repository.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text("0" * 40)
    for file in files:
        path = storage / "snapshots" / ("0" * 40) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sigma = releases()["sigma-512"]
    in_the_cache(
        tmp_path,
        sigma.repository,
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
    )
    in_the_cache(
        tmp_path,
        sigma.components,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",  # without its weights
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
    )
    return tmp_path


def test_models_are_listed_with_what_is_in_the_cache(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() >= set(releases())
    assert "transformer, tokenizer, vae, scheduler" in lines["sigma-512"]
    # Another model's transformer is not its own, the rest it borrows from the same place.
    assert " tokenizer, vae, scheduler" in lines["sigma-256"]
    assert "transformer" not in lines["sigma-256"]
    assert " no " in lines["alpha-512"]
    assert "1 step (DMD)" in lines["alpha-512-dmd"]
    assert "4 steps (LCM)" in lines["alpha-1024-lcm"]
    assert "2.4" in lines["sigma-512"]
    assert "19.4" in lines["sigma-512"]
    assert "21.8" in lines["sigma-1024"]


def test_what_a_model_has_itself_is_not_counted_in_anothers_cache(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """sigma-512's lender has a VAE in the cache; sigma-1024 would fetch its own."""
    assert run(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("sigma-1024 "))
    assert "  no  " in line


def test_a_whole_model_is_in_the_cache(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alpha = releases()["alpha-1024"]
    weighted = ("transformer", "text_encoder", "vae")
    files = [f"{part}/{name}" for part in weighted for name in ("config.json", "model.safetensors")]
    files += ["scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"]
    in_the_cache(cache, alpha.repository, *files)
    assert run(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("alpha-1024 "))
    assert "  yes  " in line


def test_everything_is_there_as_json(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert list(models) == list(releases())
    assert models["sigma-512"]["cached"] == ["transformer", "tokenizer", "vae", "scheduler"]
    assert models["sigma-512"]["num_bytes"] == 4 * 610_856_096
    assert models["alpha-512-dmd"]["steps"] == 1
