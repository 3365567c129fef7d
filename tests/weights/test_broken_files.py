"""Broken and hostile files, through the command: one line that names what is wrong, status 2, and nothing written."""

import json
import math
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixart_sigma.cli.app import run
from pixart_sigma.encoders.pretrained import load_tokenizer
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import WeightsError
from pixart_sigma.weights.checkpoint import CONFIG_KEY, INDEX_FILE, WEIGHTS_FILE
from pixart_sigma.weights.convert import write_checkpoint
from pixart_sigma.weights.transformer import build, save_transformer
from tiny_checkpoints import KINDS, PLAIN, make_checkpoint, official_state_dict

Break = Callable[[Path], Any]
"""Makes the broken thing at a path; may return another path that is to be opened."""

CHECKPOINT = make_checkpoint()


class Malicious:
    """Unpickled, it would make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch pwned",))


def folder(path: Path) -> Path:
    return write_checkpoint(CHECKPOINT, path / "model", "diffusers")


def config_with(changes: Any) -> Break:
    def spoil(path: Path) -> Path:
        place = folder(path)
        config = place / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
        return place

    return spoil


def config_text(text: str | bytes) -> Break:
    def spoil(path: Path) -> Path:
        place = folder(path)
        (place / "config.json").write_bytes(text.encode() if isinstance(text, str) else text)
        return place

    return spoil


def official(change: Callable[[dict[str, Any]], Any]) -> Break:
    """A foreign .pth whose state dict was changed."""

    def spoil(path: Path) -> Path:
        state_dict: dict[str, Any] = official_state_dict(CHECKPOINT)
        change(state_dict)
        torch.save({"state_dict": state_dict}, path / "x.pth")
        return path / "x.pth"

    return spoil


def single(change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    """A single .safetensors of ours whose tensors were changed."""

    def spoil(path: Path) -> Path:
        file = write_checkpoint(CHECKPOINT, path / "x.safetensors", "single-file")
        metadata = json.loads(header_of(file.read_bytes()))["__metadata__"]
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, metadata=metadata)
        return file

    return spoil


def header_of(content: bytes) -> bytes:
    return content[8 : 8 + struct.unpack("<Q", content[:8])[0]]


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> Break:
    """Raw bytes: a header, or text in its place, and a body."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()

    def spoil(path: Path) -> Path:
        start = struct.pack("<Q", len(text) if length is None else length)
        (path / "x.safetensors").write_bytes(start + text + body)
        return path / "x.safetensors"

    return spoil


def saved(content: Any) -> Break:
    def spoil(path: Path) -> Path:
        torch.save(content, path / "x.pth")
        return path / "x.pth"

    return spoil


def raw(name: str, content: bytes) -> Break:
    def spoil(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return spoil


def cut(target_format: str, kept: float) -> Break:
    def spoil(path: Path) -> Path:
        name = {"official": "x.pth", "single-file": "x.safetensors"}[target_format]
        file = write_checkpoint(CHECKPOINT, path / name, target_format)  # type: ignore[arg-type]
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * kept)])
        return file

    return spoil


def sharded(spoil_index: Callable[[Path, dict[str, Any]], Any]) -> Break:
    def spoil(path: Path) -> Path:
        save_transformer(build(CHECKPOINT.config, CHECKPOINT.state_dict, "tiny"), path / "m", "200KB")
        index = json.loads((path / "m" / INDEX_FILE).read_text())
        spoil_index(path / "m", index)
        (path / "m" / INDEX_FILE).write_text(json.dumps(index))
        return path / "m"

    return spoil


def compressed_zip(path: Path) -> Path:
    """What torch wrote, its records deflated; they could be of any size."""
    torch.save({"state_dict": official_state_dict(CHECKPOINT)}, path / "whole.pth")
    with (
        zipfile.ZipFile(path / "whole.pth") as whole,
        zipfile.ZipFile(path / "x.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    (path / "whole.pth").unlink()
    return path / "x.pth"


def flipped(path: Path) -> Path:
    """The pickle inside the zip is damaged."""
    file = write_checkpoint(CHECKPOINT, path / "x.pth", "official")
    content = bytearray(file.read_bytes())
    place = content.index(b"state_dict")
    content[place - 20 : place] = bytes(range(236, 256))
    file.write_bytes(content)
    return file


def side_file(tensors: dict[str, torch.Tensor] | bytes) -> Break:
    def spoil(path: Path) -> Path:
        place = folder(path)
        side = place / "null_caption.safetensors"
        if isinstance(tensors, bytes):
            side.write_bytes(tensors)
        else:
            save_file(tensors, side)
        return place

    return spoil


def with_metadata(text: str) -> Break:
    def spoil(path: Path) -> Path:
        save_file(CHECKPOINT.state_dict, path / "x.safetensors", metadata={CONFIG_KEY: text})
        return path / "x.safetensors"

    return spoil


def linked(path: Path) -> Path:
    (path / "x.pth").symlink_to(path / "nowhere.pth")
    return path / "x.pth"


def without(name: str) -> Break:
    def spoil(path: Path) -> Path:
        place = folder(path)
        (place / name).unlink()
        return place

    return spoil


def replaced(name: str) -> Break:
    """A folder stands where a file should."""

    def spoil(path: Path) -> Path:
        place = folder(path)
        (place / name).unlink()
        (place / name).mkdir()
        return place

    return spoil


ONE = torch.ones(1)
EMPTY_ENTRY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
COMPRESSION = {"window": [2, 2], "operator": "conv", "blocks": [1]}
CASES: dict[str, tuple[Break, str]] = {
    # Files that are no files of weights.
    "empty .pth": (raw("x.pth", b""), r"x\.pth is corrupt"),
    "empty .safetensors": (raw("x.safetensors", b""), r"x\.safetensors is corrupt"),
    "text as .pth": (raw("x.pth", b"hello world, I am no pickle\n" * 9), r"x\.pth is corrupt"),
    "HTML as .safetensors": (raw("x.safetensors", b"<!doctype html>" * 9), r"x\.safetensors is corrupt"),
    "a Git LFS pointer": (
        raw("x.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "is corrupt",
    ),
    "zip without a pickle": (
        lambda path: zipfile.ZipFile(path / "x.pth", "w").close() or path / "x.pth",
        "is corrupt",
    ),
    "truncated .pth": (cut("official", 0.5), r"x\.pth is corrupt"),
    "all but the end of a .pth": (cut("official", 0.999), r"x\.pth is corrupt"),
    "truncated .safetensors": (cut("single-file", 0.5), r"x\.safetensors is corrupt"),
    "a header alone": (cut("single-file", 0.05), r"x\.safetensors is corrupt"),
    "damaged pickle": (flipped, r"x\.pth is corrupt"),
    "dangling link": (linked, "unknown model|is missing"),
    "unknown suffix": (raw("x.ckpt2", b"\0"), r"x\.ckpt2 is none of \.pth, \.pt, \.safetensors"),
    # Pickles.
    "pickle that runs a command": (
        saved({"state_dict": {"a": Malicious()}}),
        r"names \S*system, which is no tensor",
    ),
    "bare pickle that runs a command": (
        lambda path: raw("x.pth", pickle.dumps(Malicious()))(path),
        r"x\.pth (names \S*system|is corrupt)",
    ),
    "pickled module": (
        saved(torch.nn.Linear(1, 1)),
        r"names torch\.nn\.modules\.linear\.Linear, which is no tensor",
    ),
    "pickled function": (saved({"state_dict": {"a": print}}), r"names \S*print, which is no tensor"),
    "pickled list": (saved([1, 2]), r"x\.pth holds a list, not a state dict"),
    "pickled number": (saved(3), r"x\.pth holds a int, not a state dict"),
    "bare tensor": (saved(ONE), r"x\.pth holds a Tensor, not a state dict"),
    "state dict that is a list": (saved({"state_dict": [ONE]}), "holds state_dict as list"),
    "number as a weight": (
        official(lambda s: s.update({"t_block.1.bias": 3})),
        r"holds t_block\.1\.bias as int",
    ),
    "nested dict as a weight": (official(lambda s: s.update(t_block={"x": ONE})), "holds t_block as dict"),
    "number as a name": (saved({"state_dict": {7: ONE}}), "names a tensor 7, which is no text"),
    "compressed zip": (compressed_zip, "has a compressed record"),
    "sparse tensor": (
        official(lambda s: s.update({"t_block.1.bias": torch.eye(3).to_sparse()})),
        r"holds t_block\.1\.bias as no plain tensor",
    ),
    "expanded tensor of a million million numbers": (
        official(lambda s: s.update({"t_block.1.bias": ONE.expand(10**12)})),
        r"wrong shape: adaln_single\.linear\.bias \[1000000000000\]",
    ),
    # Names.
    "empty state dict": (saved({"state_dict": {}}), "holds no PixArt transformer: .* but nothing"),
    "another model": (saved({"conv_in.weight": ONE}), r"holds no PixArt transformer: .* but conv_in\.weight"),
    "a name that ends its line": (
        official(lambda s: s.update({"x_embedder.proj.bias\n": torch.ones(72)})),
        r"holds what no PixArt has: 'x_embedder\.proj\.bias\\n'",
    ),
    "a name of two lines": (
        official(lambda s: s.update({"blocks.0\n.attn.proj.bias": torch.ones(72)})),
        r"holds what no PixArt has: 'blocks\.0\\n\.attn\.proj\.bias'",
    ),
    "extra official key": (
        official(lambda s: s.update({"blocks.0.attn.rel_pos_h": ONE})),
        r"holds what no PixArt has: blocks\.0\.attn\.rel_pos_h",
    ),
    "missing official key": (
        official(lambda s: s.pop("blocks.1.mlp.fc1.bias")),
        r"missing: transformer_blocks\.1\.ff\.net\.0\.proj\.bias",
    ),
    "missing block": (
        official(lambda s: [s.pop(name) for name in list(s) if name.startswith("blocks.0.")]),
        "has 1 blocks, among them 1; they must be numbered from 0",
    ),
    "block with a huge number": (
        official(lambda s: s.update({"blocks.99999999999.attn.proj.bias": torch.ones(72)})),
        "among them 99999999999; they must be numbered from 0",
    ),
    "names that move the cursor": (
        saved({"state_dict": {"\x1b[2J\r\nroot": ONE}}),
        r"but '\\x1b\[2J\\r\\nroot'",
    ),
    "a name of a megabyte": (saved({"state_dict": {"x" * 10**6: ONE}}), "but x{200}…"),
    "twenty thousand names": (
        saved({"state_dict": {f"n{i:06}": ONE for i in range(20_000)}}),
        "but n000000, n000001, n000002 and 19997 more",
    ),
    "extra key in ours": (single(lambda t: t.update(stray=torch.ones(1))), "unexpected: stray"),
    "missing key in ours": (single(lambda t: t.pop("proj_out.bias")), r"missing: proj_out\.bias"),
    "missing patch embedding": (
        single(lambda t: t.pop("pos_embed.proj.weight")),
        "holds no PixArt transformer",
    ),
    # Shapes, dtypes.
    "rows that are no q, k and v": (
        official(lambda s: s.update({"blocks.0.attn.qkv.bias": torch.ones(217)})),
        r"blocks\.0\.attn\.qkv\.bias has shape \[217\], whose rows are not 3 equal parts",
    ),
    "q, k and v without rows": (
        official(lambda s: s.update({"blocks.0.attn.qkv.bias": torch.tensor(1.0)})),
        r"blocks\.0\.attn\.qkv\.bias has shape \[\]",
    ),
    "wrong shape": (
        official(lambda s: s.update({"final_layer.linear.weight": torch.ones(32, 71)})),
        r"wrong shape: proj_out\.weight \[32, 71\] instead of \[32, 72\]",
    ),
    "flat patch embedding": (
        official(lambda s: s.update({"x_embedder.proj.weight": torch.ones(72)})),
        r"has pos_embed\.proj\.weight of shape \[72\], which needs 4 axes",
    ),
    "oblong patches": (
        official(lambda s: s.update({"x_embedder.proj.weight": torch.ones(72, 4, 2, 1)})),
        "patches of 2x1",
    ),
    "no rows at all": (
        official(lambda s: s.update({"x_embedder.proj.weight": torch.ones(0, 4, 2, 2)})),
        r"shape \[0, 4, 2, 2\]",
    ),
    "whole numbers as weights": (
        official(lambda s: s.update({"t_block.1.bias": torch.ones(432, dtype=torch.int64)})),
        r"holds t_block\.1\.bias in int64",
    ),
    "truth values as weights": (
        single(lambda t: t.update({"proj_out.bias": torch.ones(32, dtype=torch.bool)})),
        r"holds proj_out\.bias in bool",
    ),
    "8-bit floats": (
        single(lambda t: t.update({"proj_out.bias": torch.ones(32).to(torch.float8_e4m3fn)})),
        r"holds proj_out\.bias in float8_e4m3fn",
    ),
    "complex weights": (
        official(lambda s: s.update({"t_block.1.bias": torch.ones(432, dtype=torch.complex64)})),
        r"holds t_block\.1\.bias in complex64",
    ),
    "positions of no square": (
        official(lambda s: s.update(pos_embed=torch.ones(1, 15, 72))),
        r"pos_embed of shape \[1, 15, 72\], which is no square grid",
    ),
    "positions that are not numbers": (
        official(lambda s: s.update(pos_embed=torch.full((1, 16, 72), math.nan))),
        "fits no interpolation of 4x4 tokens",
    ),
    "null caption of another encoder": (
        official(lambda s: s.update({"y_embedder.y_embedding": torch.ones(300, 9)})),
        r"y_embedder\.y_embedding of shape \[300, 9\]; it must be \(caption tokens, 8\)",
    ),
    "two windows": (
        lambda path: official_compressed(path, torch.ones(72, 1, 3, 3)),
        r"compresses keys over windows \[\(2, 1\), \(3, 3\)\]",
    ),
    # Headers of .safetensors.
    "header longer than the file": (safetensors({}, length=10**6), r"x\.safetensors is corrupt"),
    "header of 2^63 bytes": (safetensors({}, length=2**63), r"x\.safetensors is corrupt"),
    "header that is no JSON": (safetensors(b"{{{{"), r"x\.safetensors is corrupt"),
    "header that is a list": (safetensors([]), r"x\.safetensors is corrupt"),
    "header that is no text": (safetensors(b"\xff\xfe\xfd\xfc"), r"x\.safetensors is corrupt"),
    "empty header": (safetensors({}), r"x\.safetensors holds no PixArt transformer: .* but nothing"),
    "unknown dtype in the header": (
        safetensors({"a": EMPTY_ENTRY | {"dtype": "F33"}}),
        r"x\.safetensors is corrupt",
    ),
    "negative shape": (safetensors({"a": EMPTY_ENTRY | {"shape": [-1]}}), r"x\.safetensors is corrupt"),
    "shape beyond the data": (safetensors({"a": EMPTY_ENTRY | {"shape": [9]}}), r"x\.safetensors is corrupt"),
    "offsets beyond the file": (
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
        r"x\.safetensors is corrupt",
    ),
    "offsets that overflow": (
        safetensors({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, b"\0" * 8),
        r"x\.safetensors is corrupt",
    ),
    "overlapping tensors": (
        safetensors(
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            },
            b"\0" * 4,
        ),
        r"x\.safetensors is corrupt",
    ),
    "a hole in the data": (
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        r"x\.safetensors is corrupt",
    ),
    "data after the end": (safetensors({"a": EMPTY_ENTRY}, b"\0" * 4), r"x\.safetensors is corrupt"),
    "embedded configuration that is no JSON": (with_metadata("{"), rf"{CONFIG_KEY} that is no JSON"),
    "embedded list": (with_metadata("[]"), rf"{CONFIG_KEY} that is no JSON object"),
    "embedded abyss": (with_metadata("[" * 10**6), rf"{CONFIG_KEY} that is no JSON"),
    "embedded nothing": (with_metadata("{}"), r"x\.safetensors has no caption_channels"),
    "embedded number in a .pth": (
        saved({"state_dict": official_state_dict(CHECKPOINT), CONFIG_KEY: 3}),
        rf"{CONFIG_KEY} that is no JSON",
    ),
    # config.json.
    "no config": (without("config.json"), r"config\.json cannot be read"),
    "empty config": (config_text(""), r"config\.json is not JSON"),
    "half a config": (config_text('{"num_layers": '), r"config\.json is not JSON"),
    "config that is a list": (config_text("[]"), r"config\.json holds no JSON object"),
    "config that is no text": (config_text(b"\xff\xfe{}"), r"config\.json is not JSON"),
    "config without end": (config_text("[" * 10**6), r"config\.json is not JSON"),
    "config that is a folder": (replaced("config.json"), r"config\.json cannot be read"),
    "negative layers": (config_with({"num_layers": -1}), "num_layers -1; it must be positive"),
    "a thousand million layers": (config_with({"num_layers": 10**9}), "num_layers 1000000000; it must be"),
    "many layers": (config_with({"num_layers": 10**5}), "has 2 blocks, its configuration says 100000"),
    "one layer more": (config_with({"num_layers": 3}), r"missing: transformer_blocks\.2\."),
    "half a head": (
        config_with({"num_attention_heads": 0.5}),
        r"num_attention_heads 0\.5, not a whole number",
    ),
    "heads as text": (
        config_with({"num_attention_heads": "16"}),
        "num_attention_heads '16', not a whole number",
    ),
    "true as a number": (config_with({"patch_size": True}), "patch_size True, not a whole number"),
    "list as a number": (config_with({"in_channels": [4]}), r"in_channels \[4\], not a whole number"),
    "a number of a megabyte": (config_with({"in_channels": "4" * 10**6}), "in_channels '4{59}…"),
    "width that is not the weights'": (config_with({"attention_head_dim": 76}), "wrong shape: "),
    "width whose product overflows": (
        config_with({"attention_head_dim": 10**6, "num_attention_heads": 10**6}),
        "wrong shape: |makes no model",
    ),
    "width that positions cannot have": (
        config_with({"attention_head_dim": 71}),
        "width 71 .* not a multiple of 4",
    ),
    "scale that is not a number": (
        config_with({"interpolation_scale": math.nan}),
        "interpolation_scale nan; it must",
    ),
    "infinite scale": (config_with({"interpolation_scale": math.inf}), "interpolation_scale inf; it must"),
    "no scale at all": (config_with({"interpolation_scale": 0}), "interpolation_scale 0; it must"),
    "patches of nothing": (config_with({"patch_size": 0}), "patch_size 0; it must"),
    "text where true or false belongs": (config_with({"qk_norm": "yes"}), "qk_norm 'yes', not true or false"),
    "micro-conditioning that is a number": (
        config_with({"use_additional_conditions": 1}),
        "use_additional_conditions 1, not true or false",
    ),
    "micro-conditioning without weights": (
        config_with({"use_additional_conditions": True}),
        r"missing: adaln_single\.emb\.aspect_ratio_embedder",
    ),
    "another architecture": (
        config_with({"norm_type": "ada_norm_zero"}),
        "norm_type 'ada_norm_zero', which is not PixArt's",
    ),
    "compression that is text": (
        config_with({"kv_compression": "conv"}),
        "kv_compression 'conv', not an object",
    ),
    "compression by magic": (config_with({"kv_compression": COMPRESSION | {"operator": "magic"}}), "'magic'"),
    "compression in a list": (
        config_with({"kv_compression": COMPRESSION | {"operator": ["conv"]}}),
        r"operator \['conv'\]",
    ),
    "one-sided window": (config_with({"kv_compression": COMPRESSION | {"window": [2]}}), r"window \[2\]"),
    "window that is text": (config_with({"kv_compression": COMPRESSION | {"window": "22"}}), "window '22'"),
    "window of nothing": (config_with({"kv_compression": COMPRESSION | {"window": [0, 2]}}), "window 0x2"),
    "blocks that are not there": (
        config_with({"kv_compression": COMPRESSION | {"blocks": [9]}}),
        r"blocks \[9\]",
    ),
    "blocks that are text": (
        config_with({"kv_compression": COMPRESSION | {"blocks": ["1"]}}),
        r"blocks \['1'\]",
    ),
    "compression without weights": (
        config_with({"kv_compression": COMPRESSION}),
        r"missing: transformer_blocks\.1\.attn1\.kv_compression\.conv",
    ),
    "unknown key of compression": (
        config_with({"kv_compression": COMPRESSION | {"__init__": 1}}),
        "kv_compression '__init__', which is unknown",
    ),
    # Folders.
    "no weights": (without(WEIGHTS_FILE), rf"{WEIGHTS_FILE} is missing"),
    "weights that are a folder": (replaced(WEIGHTS_FILE), rf"{WEIGHTS_FILE} is a folder"),
    "empty folder": (lambda path: path, "lacks transformer"),
    "index that is a list": (
        lambda path: (folder(path) / INDEX_FILE).write_text("[]") and path / "model" / "transformer",
        "holds no JSON object",
    ),
    "index that maps nothing": (sharded(lambda _, index: index.pop("weight_map")), "maps no tensors"),
    "index that points outside": (
        sharded(lambda _, index: index["weight_map"].update(x="../../secret.safetensors")),
        "maps no tensors to files beside it",
    ),
    "index that points to the root": (
        sharded(lambda _, index: index["weight_map"].update(x="/etc/passwd")),
        "maps no tensors to files beside it",
    ),
    "index that points to numbers": (
        sharded(lambda _, index: index["weight_map"].update(x=3)),
        "maps no tensors",
    ),
    "index that points to itself": (
        sharded(lambda _, index: index["weight_map"].update(x=INDEX_FILE)),
        rf"{INDEX_FILE} is corrupt",
    ),
    "index that points to the parent": (
        sharded(lambda _, i: i["weight_map"].update(x="..")),
        r"maps no|is a folder",
    ),
    "index that names too much": (
        sharded(lambda _, i: i["weight_map"].update(x=next(iter(i["weight_map"].values())))),
        "does not fit its files: x",
    ),
    "missing shard": (
        sharded(lambda place, _: next(iter(place.glob("*-00002-*"))).unlink()),
        "-00002-of-.* is missing",
    ),
    "tensor in two shards": (
        sharded(lambda place, _: duplicate(place)),
        "has files that share",
    ),
    # The side file.
    "corrupt side file": (side_file(b"\x07garbage" * 9), r"null_caption\.safetensors is corrupt"),
    "side file of something else": (
        side_file({"caption": torch.ones(3, 8)}),
        "holds caption, not null_caption",
    ),
    "side file of another encoder": (
        side_file({"null_caption": torch.ones(3, 9)}),
        r"null_caption of shape \[3, 9\]",
    ),
    "side file in whole numbers": (
        side_file({"null_caption": torch.ones(3, 8, dtype=torch.int32)}),
        "holds null_caption in int32",
    ),
    "empty side file": (side_file({"null_caption": torch.ones(0, 8)}), r"null_caption of shape \[0, 8\]"),
}


def official_compressed(path: Path, other_window: torch.Tensor) -> Path:
    state_dict = official_state_dict(make_checkpoint(KINDS["compressed"]))
    state_dict["blocks.0.attn.sr.weight"] = other_window
    torch.save(state_dict, path / "x.pth")
    return path / "x.pth"


def duplicate(place: Path) -> None:
    first, second = sorted(place.glob("*.safetensors"))[:2]
    tensors = load_file(second)
    tensors |= dict(list(load_file(first).items())[:1])
    save_file(tensors, second)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, message = CASES[case]
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    source = spoil(tmp_path / "in")
    capsys.readouterr()
    assert run(["convert", str(source), str(tmp_path / "out" / "x.safetensors"), "--to", "single-file"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 1000
    assert re.search(message, printed.err), printed.err
    assert not list((tmp_path / "out").iterdir())
    assert not printed.out


def test_what_is_broken_was_whole_before(tmp_path: Path) -> None:
    """Without the damage all of this converts."""
    assert CHECKPOINT.config == PLAIN
    for spoil in (
        official(lambda _: None),
        single(lambda _: None),
        config_with({}),
        sharded(lambda *_: None),
    ):
        (tmp_path / "in").mkdir()
        source = str(spoil(tmp_path / "in"))
        assert run(["convert", source, str(tmp_path / "x.pth"), "--to", "official", "--overwrite"]) == 0
        shutil.rmtree(tmp_path / "in")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "config.json"])
def test_a_file_that_may_not_be_read_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    # The tests may run as root, whom no file refuses.
    if name == "x.pth":
        source = official(lambda _: None)(tmp_path)
        monkeypatch.setattr("torch.load", refuse)
    elif name == "x.safetensors":
        source = single(lambda _: None)(tmp_path)
        monkeypatch.setattr("pixart_sigma.weights.tensor_files.safe_open", refuse)
    else:
        source = folder(tmp_path)
        monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert run(["convert", str(source), str(tmp_path / "y.safetensors"), "--to", "single-file"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"{name} cannot be read (Permission denied)" in printed


@pytest.mark.parametrize(
    "loader", [TextEncoder.from_pretrained, lambda folder: load_tokenizer(folder / "tokenizer")]
)
def test_a_tokenizer_that_is_code_is_refused_and_nobody_is_asked(
    loader: Callable[[Path], Any], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def consent(question: object) -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", consent)
    model = Path(shutil.copytree(tiny_folder, tmp_path / "hostile"))
    place = model / "tokenizer"
    config = json.loads((place / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": ["theirs.Theirs", None]}}
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    (place / "theirs.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\nclass Theirs: pass\n")
    with pytest.raises(
        WeightsError, match=r"^the tokenizer in \S* is code of its own, which is never run; [^\n]*$"
    ):
        loader(model)
    assert not asked
    assert not (tmp_path / "pwned").exists()
