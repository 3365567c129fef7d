"""Our T5 encoder beside transformers', and its files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from comparison import relative_error
from pixart_sigma.encoders.pretrained import load_strictly
from pixart_sigma.encoders.t5 import T5Config, T5Encoder
from pixart_sigma.encoders.t5_files import load_t5
from pixart_sigma.errors import WeightsError
from pixart_sigma.training.pipeline_folder import write_text_encoder
from tiny_t5 import t5_config, t5_weights, write_t5

# Of the result's largest value: rounding, in places that differ.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def theirs(folder: Path, dtype: torch.dtype) -> Any:
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    return load_strictly(T5EncoderModel, folder, dtype=dtype)


def tokens(*shape: int) -> Tensor:
    return torch.randint(2, 50, shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = t5_config()
    return write_t5(tmp_path_factory.mktemp("t5") / "t5", config, t5_weights(config, torch.float32))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@torch.no_grad()
def test_it_computes_what_transformers_computes(dtype: torch.dtype, folder: Path) -> None:
    """Longer than the greatest distance that positions tell apart, and with padding."""
    ours, expected = load_t5(folder, dtype), theirs(folder, dtype)
    ids = tokens(3, 200)
    mask = (torch.arange(200) < torch.tensor([[200], [7], [1]])).long()
    for given in (None, mask):
        found = ours(ids, given).last_hidden_state
        wanted = expected(ids, given).last_hidden_state
        assert found.dtype == wanted.dtype
        assert relative_error(found, wanted) <= TOLERANCES[dtype]


def test_gradients_are_those_of_transformers(folder: Path) -> None:
    ours, expected = load_t5(folder), theirs(folder, torch.float32)
    for model in (ours, expected):
        model(tokens(2, 30)).last_hidden_state.square().sum().backward()
    wanted = dict(expected.named_parameters())
    for name, parameter in ours.named_parameters():
        assert relative_error(parameter.grad, wanted[name].grad) <= 1e-4, name


def test_transformers_opens_what_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = T5Encoder(T5Config(vocab_size=50, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4))
    model.initialise_weights()
    write_text_encoder(model, tmp_path)
    with torch.no_grad():
        expected = model(tokens(2, 9)).last_hidden_state
        assert (
            relative_error(theirs(tmp_path, torch.float32)(tokens(2, 9)).last_hidden_state, expected) <= 1e-6
        )
        assert torch.equal(load_t5(tmp_path)(tokens(2, 9)).last_hidden_state, expected)


def test_fresh_weights_are_spread_as_those_of_transformers() -> None:
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    sizes = {"vocab_size": 500, "d_model": 256, "d_kv": 32, "d_ff": 384, "num_layers": 1, "num_heads": 4}
    torch.manual_seed(0)
    ours = T5Encoder(T5Config(**sizes))
    ours.initialise_weights()
    wanted = T5EncoderModel(t5_config(**sizes)).state_dict()
    for name, weight in ours.state_dict().items():
        if "norm" in name:
            assert torch.equal(weight, torch.ones_like(weight))
        else:
            assert float(weight.std()) == pytest.approx(float(wanted[name].std()), rel=0.1), name


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"feed_forward_proj": "relu"}, "has feed_forward_proj 'relu'; only gated-gelu is known here"),
        ({"d_model": "wide"}, r"d_model is 'wide'"),
        ({"num_heads": None}, r"num_heads is None"),
        ({"num_layers": 0}, r"num_layers is 0"),
    ],
)
def test_a_configuration_that_makes_no_t5_is_refused(
    changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    config = t5_config()
    folder = write_t5(tmp_path / "t5", config, t5_weights(config, torch.float32))
    content = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=problem):
        load_t5(folder)


def test_neither_transformers_nor_diffusers_is_needed(folder: Path) -> None:
    """Their imports take longer than the work."""
    program = (
        "import sys; from pathlib import Path; from pixart_sigma.encoders.t5_files import load_t5; "
        f"load_t5(Path({str(folder)!r})); "
        "print([name for name in ('transformers', 'diffusers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
