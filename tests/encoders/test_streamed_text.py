import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comparison import relative_error
from pixart_sigma.encoders.streamed_text import StreamedT5
from pixart_sigma.encoders.t5 import Block
from pixart_sigma.encoders.t5_files import cast, load_t5
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import WeightsError
from tiny_t5 import BOTH_NAMES, t5_config, t5_weights, write_t5

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def tokens(*shape: int) -> Tensor:
    return torch.randint(2, 50, shape, generator=torch.Generator().manual_seed(sum(shape)))


def equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, fp32; read only."""
    config = t5_config()
    return write_t5(tmp_path_factory.mktemp("t5") / "t5", config, t5_weights(config, torch.float32))


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """One to break."""
    config = t5_config()
    return write_t5(tmp_path / "own", config, t5_weights(config, torch.float32))


def change(folder: Path, **changed: Tensor | None) -> None:
    """Other tensors in the one file; None takes one away."""
    path = folder / "model.safetensors"
    weights = load_file(path) | changed
    save_file({name: value for name, value in weights.items() if value is not None}, path, {"format": "pt"})


@pytest.mark.parametrize("num_files", [1, 3])
@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.no_grad()
def test_it_is_the_resident_encoder_bit_for_bit(
    dtype: torch.dtype, stored: torch.dtype, num_files: int, tmp_path: Path
) -> None:
    config = t5_config()
    path = write_t5(tmp_path / "t5", config, t5_weights(config, stored), num_files)
    expected, streamed = load_t5(path, dtype), StreamedT5.open(path, dtype)
    ids = tokens(2, 9)
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    for some, its_mask in ((ids, None), (ids, mask), (tokens(1, 1), None), (tokens(3, 150), None)):
        wanted = expected(some, attention_mask=its_mask).last_hidden_state
        assert wanted.isfinite().all()
        assert equal(streamed(some, attention_mask=its_mask).last_hidden_state, wanted)
    assert streamed.config == expected.config
    assert (streamed.dtype, streamed.device) == (expected.dtype, expected.device)


@torch.no_grad()
def test_the_mask_counts(folder: Path) -> None:
    streamed, ids = StreamedT5.open(folder), tokens(1, 9)
    half = torch.tensor([[1] * 5 + [0] * 4])
    assert not torch.equal(streamed(ids).last_hidden_state, streamed(ids, half).last_hidden_state)


def test_a_text_encoder_holds_it_as_it_holds_the_resident_one(tiny_folder: Path) -> None:
    prompts = ["a red house", "a small cactus with a happy face in the desert", "", "a red house"]
    expected = TextEncoder.from_pretrained(tiny_folder)
    streamed = StreamedT5.open(tiny_folder / "text_encoder")
    encoder = TextEncoder(expected.tokenizer, streamed).to("cpu")
    with torch.no_grad():
        for ours, theirs in zip(encoder.encode(prompts), expected.encode(prompts), strict=True):
            assert equal(ours, theirs)
    assert equal(encoder.null_embedding(), expected.null_embedding())
    assert encoder.model.config.d_model == 16


def test_several_lengths_share_one_pass_through_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = StreamedT5.open(folder)
    batches = [tokens(2, 4), tokens(1, 1), tokens(3, 17)]
    with torch.no_grad():
        resident = load_t5(folder).encode_batches(batches)
    alone = [streamed(ids).last_hidden_state for ids in batches]
    read: list[int] = []
    fetch = streamed._fetched

    def counted(number: int) -> dict[str, Tensor]:
        read.append(number)
        return fetch(number)

    monkeypatch.setattr(streamed, "_fetched", counted)
    together = streamed.encode_batches(batches)
    assert read == [0, 1, 2]
    assert all(map(equal, together, resident))
    assert all(relative_error(*pair) <= 1e-5 for pair in zip(together, alone, strict=True))


def test_no_gradients_and_no_random_numbers(folder: Path) -> None:
    state = torch.get_rng_state()
    assert not StreamedT5.open(folder)(tokens(1, 3)).last_hidden_state.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def block_weights(monkeypatch: pytest.MonkeyPatch, look: Any) -> None:
    """`look` at the weights of each block when it computes."""
    forward = Block.forward

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        look(dict(self.named_parameters()))
        return forward(self, *arguments, **options)

    monkeypatch.setattr(Block, "forward", watched)


def mapping_of(tensor: Tensor) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line
    raise AssertionError("nowhere")


def test_weights_of_the_right_dtype_are_used_where_the_file_is_mapped(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(weights: dict[str, Tensor]) -> None:
        matrices = [mapping_of(weight) for weight in weights.values() if weight.ndim == 2]
        seen.append(sum(str(own_folder) in line for line in matrices) / len(matrices))

    block_weights(monkeypatch, look)
    StreamedT5.open(own_folder)(tokens(1, 3))
    assert seen == [1] * 3
    gc.collect()
    assert str(own_folder) not in Path("/proc/self/maps").read_text()


def test_a_copy_of_one_block_exists_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    streamed = StreamedT5.open(folder, torch.bfloat16)

    def counted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        alive.append(sum(each() is not None for each in last))
        return cast(name, tensor, dtype)

    def look(weights: dict[str, Tensor]) -> None:
        assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
        last[:] = [weakref.ref(weight) for weight in weights.values()]

    monkeypatch.setattr("pixart_sigma.encoders.streamed_text.cast", counted)
    block_weights(monkeypatch, look)
    streamed(tokens(1, 3))
    assert alive == [0] * (3 * 9)  # each tensor of a block
    assert all(each() is None for each in last)


@pytest.mark.parametrize("names", [BOTH_NAMES[:1], BOTH_NAMES], ids=str)
@torch.no_grad()
def test_the_table_has_two_names(names: tuple[str, ...], own_folder: Path) -> None:
    table = load_file(own_folder / "model.safetensors")["shared.weight"]
    change(own_folder, **{"shared.weight": None} | {name: table.clone() for name in names})
    expected = load_t5(own_folder)(tokens(1, 5)).last_hidden_state
    assert equal(StreamedT5.open(own_folder)(tokens(1, 5)).last_hidden_state, expected)


@torch.no_grad()
def test_a_decoder_beside_it_is_passed_over(own_folder: Path) -> None:
    expected = StreamedT5.open(own_folder)(tokens(1, 5)).last_hidden_state
    beside = {"decoder.block.0.layer.0.SelfAttention.q.weight": (64, 64), "lm_head.weight": (50, 64)}
    change(own_folder, **{name: torch.zeros(shape) for name, shape in beside.items()})
    assert equal(StreamedT5.open(own_folder)(tokens(1, 5)).last_hidden_state, expected)


Q = "encoder.block.1.layer.0.SelfAttention.q.weight"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({Q: None}, f"missing {Q}"),
        ({"shared.weight": None}, r"missing shared\.weight"),
        ({"head.weight": torch.zeros(50, 64)}, r"unexpected head\.weight"),
        ({"encoder.decoder.weight": torch.zeros(50, 64)}, r"unexpected encoder\.decoder\.weight"),
        ({Q: torch.zeros(64, 32)}, f"mismatched {Q}"),
        ({Q: torch.zeros(64, 64, dtype=torch.int8)}, f"mismatched {Q}"),
    ],
    ids=["missing", "no table", "unexpected", "not a decoder", "misshapen", "integers"],
)
def test_tensors_that_do_not_fit_are_named(
    changed: dict[str, Tensor | None], problem: str, own_folder: Path
) -> None:
    change(own_folder, **changed)
    with pytest.raises(
        WeightsError, match=rf"does not fit its config\.json: {problem}; fetch or export it again$"
    ):
        StreamedT5.open(own_folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -10])
def test_a_truncated_file_is_refused_in_one_line(kept: int, own_folder: Path) -> None:
    path = own_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"^[^\n]* cannot be loaded \([^\n]*\); fetch or export it again$"):
        StreamedT5.open(own_folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {"a": "../t5/model.safetensors"}}'])
def test_a_bad_index_is_refused_in_one_line(content: str, own_folder: Path) -> None:
    (own_folder / "model.safetensors").rename(own_folder / "other.safetensors")
    (own_folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=r"index\.json cannot be loaded \([^\n]+\)[^\n]*$"):
        StreamedT5.open(own_folder)


def test_missing_files_are_named(own_folder: Path, tmp_path: Path) -> None:
    config = t5_config()
    sharded = write_t5(tmp_path / "sharded", config, t5_weights(config, torch.float32), 3)
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00003\.safetensors cannot be loaded"):
        StreamedT5.open(sharded)
    streamed = StreamedT5.open(own_folder)
    (own_folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be loaded"):
        streamed(tokens(1, 3))
    with pytest.raises(WeightsError, match=r"has neither model\.safetensors nor model\.safetensors\.index"):
        StreamedT5.open(own_folder)
    (own_folder / "config.json").write_text(json.dumps({"d_model": "wide"}))
    with pytest.raises(WeightsError, match="cannot be loaded"):
        StreamedT5.open(own_folder)
    (own_folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        StreamedT5.open(own_folder)


GROWTH = """
import sys, threading, time
from pathlib import Path

import torch

from pixart_sigma.encoders.streamed_text import StreamedT5
from pixart_sigma.encoders.t5_files import load_t5


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.002)


folder, dtype, done = Path(sys.argv[1]), torch.bfloat16, False
peak = before = anonymous()
watcher = threading.Thread(target=watch)
watcher.start()
with torch.no_grad():
    if sys.argv[2] == "streamed":
        encoder = StreamedT5.open(folder, dtype)
    else:
        encoder = load_t5(folder, dtype)
    encoder(torch.arange(40)[None])
done = True
watcher.join()
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "blocks"), [(torch.bfloat16, 0), (torch.float32, 1)], ids=str)
def test_memory_is_at_most_one_block(stored: torch.dtype, blocks: int, tmp_path: Path) -> None:
    """In processes of their own. The whole encoder has 121 MB in bf16, a block 5 MB; 8 MB are for everything else."""
    config = t5_config(vocab_size=16_000, d_model=512, d_kv=64, d_ff=1024, num_layers=20, num_heads=8)
    weights = t5_weights(config, stored, scale=0.05)
    block = 2 * sum(value.numel() for name, value in weights.items() if ".block.1." in name)
    whole = 2 * sum(value.numel() for value in weights.values())
    folder = write_t5(tmp_path / "t5", config, weights)

    def growth(how: str) -> int:
        command = [sys.executable, "-c", GROWTH, str(folder), how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert growth("streamed") < blocks * block + 8e6 < 0.12 * whole
    if blocks:  # else the resident one is mapped too
        assert growth("resident") > 0.9 * whole
