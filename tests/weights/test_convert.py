import itertools
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from comparison import load_golden, relative_error
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.weights.catalogue import releases
from pixart_sigma.weights.checkpoint import Checkpoint, read_checkpoint
from pixart_sigma.weights.config import released_config
from pixart_sigma.weights.convert import convert, write_checkpoint
from pixart_sigma.weights.formats import Format, check_source_stays, check_target
from pixart_sigma.weights.transformer import build, load_transformer, save_transformer, write_folder
from tiny_checkpoints import (
    KINDS,
    NO_WEIGHTS,
    PLAIN,
    make_checkpoint,
    official_state_dict,
    same,
    write_foreign_pth,
)

# Its own test looks at it; the tiny compressed model has an oblong window.
pytestmark = pytest.mark.filterwarnings("ignore:.*only this package reads that:UserWarning")

FORMATS: tuple[Format, ...] = ("diffusers", "official", "single-file")
NAMES = {"diffusers": "model", "official": "model.pth", "single-file": "model.safetensors"}


def written(checkpoint: Checkpoint, folder: Path, target_format: Format) -> Path:
    folder.mkdir()
    return write_checkpoint(checkpoint, folder / NAMES[target_format], target_format)


def assert_equal(found: Checkpoint, wanted: Checkpoint) -> None:
    assert found.config == wanted.config
    assert same(found.state_dict, wanted.state_dict)
    if wanted.null_caption is None:
        assert found.null_caption is None
    else:
        assert found.null_caption is not None
        assert torch.equal(found.null_caption, wanted.null_caption)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_every_round_trip_is_exact(first: Format, second: Format, kind: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(KINDS[kind])
    one = written(checkpoint, tmp_path / "one", first)
    (tmp_path / "two").mkdir()
    two = convert(one, tmp_path / "two" / NAMES[second], second)
    assert_equal(read_checkpoint(two), checkpoint)
    (tmp_path / "three").mkdir()
    three = convert(two, tmp_path / "three" / NAMES[first], first)
    assert_equal(read_checkpoint(three), checkpoint)


@pytest.mark.parametrize("target_format", FORMATS)
def test_what_no_tensor_tells_comes_back_too(target_format: Format, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(NO_WEIGHTS)
    assert_equal(read_checkpoint(written(checkpoint, tmp_path / "one", target_format)), checkpoint)


@pytest.mark.parametrize("target_format", FORMATS)
def test_other_dtypes_are_exact_too(target_format: Format, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(KINDS["compressed"])
    one = written(checkpoint, tmp_path / "one", "diffusers")
    (tmp_path / "two").mkdir()
    two = read_checkpoint(
        convert(one, tmp_path / "two" / NAMES[target_format], target_format, dtype="bfloat16")
    )
    assert same(two.state_dict, {name: tensor.bfloat16() for name, tensor in checkpoint.state_dict.items()})
    assert two.null_caption is not None
    assert two.null_caption.dtype == torch.float32


@pytest.mark.parametrize("target_format", FORMATS)
def test_a_written_model_loads(target_format: Format, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(KINDS["compressed"])
    path = written(checkpoint, tmp_path / "one", target_format)
    model = load_transformer(path, torch.bfloat16)
    assert model.config == checkpoint.config
    assert not model.training
    assert same(
        model.state_dict(), {name: tensor.bfloat16() for name, tensor in checkpoint.state_dict.items()}
    )
    save_transformer(load_transformer(path), tmp_path / "again")
    assert same(read_checkpoint(tmp_path / "again").state_dict, checkpoint.state_dict)


@pytest.mark.parametrize("kind", ["plain", "micro-conditioning"])
def test_diffusers_opens_a_plain_model_and_computes_the_same(kind: str, tmp_path: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    checkpoint = make_checkpoint(KINDS[kind])
    pth = written(checkpoint, tmp_path / "one", "official")
    convert(pth, tmp_path / "model", "diffusers")
    theirs = PixArtTransformer2DModel.from_pretrained(tmp_path / "model", subfolder="transformer")
    assert same(theirs.state_dict(), checkpoint.state_dict)
    ours = build(checkpoint.config, checkpoint.state_dict, "tiny").eval()
    latents, timesteps = torch.randn(2, 4, 8, 12), torch.tensor([3.0, 700.0])
    embeds, mask = torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    sizes = {"resolution": torch.tensor([[64.0, 96.0]] * 2), "aspect_ratio": torch.tensor([[64 / 96]] * 2)}
    given = sizes if kind == "micro-conditioning" else dict.fromkeys(sizes)
    with torch.no_grad():
        wanted = theirs(
            latents, embeds, timesteps, given, encoder_attention_mask=mask.long(), return_dict=False
        )[0]
        conditions = (given["resolution"], given["aspect_ratio"])
        found = ours(
            latents, ours.prepare_captions(embeds, mask), ours.prepare_timesteps(timesteps, *conditions)
        )
    assert relative_error(found, wanted) <= 1e-5


def test_the_official_layout_is_complete(tmp_path: Path) -> None:
    """Names, shapes and buffers are those of the official code's own state dict."""
    tensors, golden = load_golden("sigma_plain_square")
    state_dict = {
        name.removeprefix("state_dict."): tensor for name, tensor in tensors.items() if "state_dict." in name
    }
    config = TransformerConfig(
        num_layers=golden["depth"],
        num_attention_heads=golden["num_heads"],
        attention_head_dim=golden["hidden_size"] // golden["num_heads"],
        sample_size=golden["input_size"],
        caption_channels=golden["caption_channels"],
        interpolation_scale=golden["pe_interpolation"],
    )
    torch.save({"state_dict": state_dict}, tmp_path / "golden.pth")
    write_folder(config, PixArtTransformer(config).state_dict(), tmp_path / "like")
    convert(tmp_path / "golden.pth", tmp_path / "ours.pth", "official", like=str(tmp_path / "like"))

    content = torch.load(tmp_path / "ours.pth", weights_only=True)
    ours = content["state_dict"]
    assert ours.keys() == state_dict.keys()
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in ours.items() if name != "pos_embed")
    assert ours["pos_embed"].shape == state_dict["pos_embed"].shape
    assert relative_error(ours["pos_embed"], state_dict["pos_embed"]) <= 1e-6


@pytest.mark.parametrize("name", releases())
def test_a_foreign_file_is_known_by_its_tensors(name: str, tmp_path: Path) -> None:
    release = released_config(releases()[name])
    config = replace(
        PLAIN,
        sample_size=release.sample_size,
        interpolation_scale=release.interpolation_scale,
        micro_conditioning=release.micro_conditioning,
        num_layers=1,
    )
    path = write_foreign_pth(make_checkpoint(config), tmp_path / "mine.pth")
    assert read_checkpoint(path).config == config


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_foreign_file_may_be_rounded(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    state_dict = official_state_dict(make_checkpoint(KINDS[kind]))
    save_file({name: tensor.to(dtype) for name, tensor in state_dict.items()}, tmp_path / "x.safetensors")
    checkpoint = read_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.config == KINDS[kind]
    assert checkpoint.null_caption is not None


def test_an_interpolation_nobody_released_is_found(tmp_path: Path) -> None:
    for scale in (1.5, 0.75, 5.625, 8.0):
        config = replace(PLAIN, interpolation_scale=scale)
        path = write_foreign_pth(make_checkpoint(config), tmp_path / "x.pth")
        assert read_checkpoint(path).config.interpolation_scale == scale


def test_without_positions_the_name_or_the_user_says_the_size(tmp_path: Path) -> None:
    state_dict = official_state_dict(make_checkpoint())
    del state_dict["pos_embed"]
    path = tmp_path / "mine.pth"
    torch.save(state_dict, path)
    with pytest.raises(
        WeightsError, match=r"mine\.pth does not say for which size .*convert it first.*--like sigma-512$"
    ):
        read_checkpoint(path)
    released = path.rename(tmp_path / "PixArt-Sigma-XL-2-2K-MS.pth")
    config = read_checkpoint(released).config
    assert (config.sample_size, config.interpolation_scale) == (256, 4)
    like = released_config(releases()["sigma-256"])
    assert read_checkpoint(released, like=like).config == replace(
        PLAIN, sample_size=32, interpolation_scale=0.5
    )


def test_positions_that_fit_nothing_are_refused_unless_somebody_knows(tmp_path: Path) -> None:
    state_dict = official_state_dict(make_checkpoint())
    state_dict["pos_embed"][0, -1, -1] += 0.01
    torch.save({"state_dict": state_dict}, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="pos_embed that fits no interpolation of 4x4 tokens"):
        read_checkpoint(tmp_path / "mine.pth")
    read_checkpoint(tmp_path / "mine.pth", like=PLAIN)


def test_a_width_that_is_no_pixarts_needs_somebody_who_knows(tmp_path: Path) -> None:
    config = replace(PLAIN, num_attention_heads=2, attention_head_dim=24)
    path = write_foreign_pth(make_checkpoint(config), tmp_path / "mine.pth")
    with pytest.raises(
        WeightsError, match=r"width 48, which is not a multiple of 72.*convert it first.*--like"
    ):
        read_checkpoint(path)
    assert read_checkpoint(path, like=config).config == config


def test_the_moving_average_is_chosen(tmp_path: Path) -> None:
    plain, average = make_checkpoint(), make_checkpoint()
    average.state_dict["proj_out.bias"] += 1
    both = write_foreign_pth(
        plain, tmp_path / "both.pth", state_dict_ema=official_state_dict(average), epoch=3
    )
    assert same(read_checkpoint(both).state_dict, plain.state_dict)
    assert same(read_checkpoint(both, ema=True).state_dict, average.state_dict)
    torch.save({"state_dict_ema": official_state_dict(average)}, tmp_path / "one.pth")
    with pytest.raises(WeightsError, match=r"one\.pth has no state_dict; convert it first: .* --ema$"):
        read_checkpoint(tmp_path / "one.pth")
    for path in (
        write_foreign_pth(plain, tmp_path / "other.pth"),
        tmp_path / "missing.safetensors",
        tmp_path,
    ):
        with pytest.raises(WeightsError, match="--no-ema"):
            read_checkpoint(path, ema=True)


def test_a_null_caption_without_a_slot_lies_beside_the_weights(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(null_tokens=3)
    folder = write_checkpoint(checkpoint, tmp_path / "model", "diffusers")
    write_checkpoint(checkpoint, tmp_path / "model.safetensors", "single-file")
    for side in (
        folder / "null_caption.safetensors",
        tmp_path / "model.safetensors.null_caption.safetensors",
    ):
        assert torch.equal(load_file(side)["null_caption"], checkpoint.null_caption)  # type: ignore[arg-type]
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "null_caption.safetensors",
    ]
    write_checkpoint(replace(checkpoint, null_caption=None), tmp_path / "model.safetensors", "single-file")
    assert not (tmp_path / "model.safetensors.null_caption.safetensors").exists()


def test_a_null_caption_belongs_to_one_file(tmp_path: Path) -> None:
    """Another of the same name before its suffix has its own."""
    write_checkpoint(make_checkpoint(), tmp_path / "m.safetensors", "single-file")
    state_dict = official_state_dict(make_checkpoint(null_tokens=None))
    torch.save({"state_dict": state_dict}, tmp_path / "m.pth")
    assert read_checkpoint(tmp_path / "m.safetensors").null_caption is not None
    assert read_checkpoint(tmp_path / "m.pth").null_caption is None
    # Nor do others' weights get it that happen to lie where a side file of theirs would.
    (tmp_path / "m.safetensors.null_caption.safetensors").rename(tmp_path / "m.pth.null_caption.safetensors")
    assert read_checkpoint(tmp_path / "m.pth").null_caption is None


def test_without_a_null_caption_the_official_slot_is_zero_and_somebody_is_told(tmp_path: Path) -> None:
    folder = written(make_checkpoint(null_tokens=None), tmp_path / "one", "diffusers")
    with pytest.warns(UserWarning, match=r"y_embedder\.y_embedding is written as zeros.*--null-caption"):
        convert(folder, tmp_path / "x.pth", "official")
    null = torch.load(tmp_path / "x.pth", weights_only=True)["state_dict"]["y_embedder.y_embedding"]
    assert null.shape == (300, 8)
    assert not null.any()
    assert read_checkpoint(tmp_path / "x.pth").null_caption is None


@pytest.mark.parametrize("giver", ["official", "single-file"])
def test_a_null_caption_is_taken_from_another_file(giver: Format, tmp_path: Path) -> None:
    source = written(make_checkpoint(null_tokens=None), tmp_path / "one", "diffusers")
    given = written(make_checkpoint(), tmp_path / "two", giver)
    if giver == "single-file":
        given = given.with_name("model.safetensors.null_caption.safetensors")
    found = read_checkpoint(convert(source, tmp_path / "x.pth", "official", null_caption=given)).null_caption
    assert found is not None
    assert torch.equal(found, make_checkpoint().null_caption)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="has its own null caption; leave out --null-caption"):
        convert(tmp_path / "x.pth", tmp_path / "y.pth", "official", null_caption=given)
    narrow = written(make_checkpoint(replace(PLAIN, caption_channels=6)), tmp_path / "three", "official")
    with pytest.raises(WeightsError, match="null caption of 6 channels, the model takes 8"):
        convert(source, tmp_path / "y.pth", "official", null_caption=narrow)


def test_what_says_what_it_is_is_like_nothing_else(tmp_path: Path) -> None:
    for target_format in FORMATS:
        source = written(make_checkpoint(), tmp_path / target_format, target_format)
        with pytest.raises(WeightsError, match=r"says what it is.* leave out --like"):
            convert(source, tmp_path / "x.pth", "official", like="sigma-512")
    foreign = write_foreign_pth(make_checkpoint(), tmp_path / "foreign.pth")
    with pytest.raises(InvalidInput, match="no released model 'sigma-513'; one of sigma-256, "):
        convert(foreign, tmp_path / "x.pth", "official", like="sigma-513")


def test_another_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old, new = make_checkpoint(), make_checkpoint(KINDS["qk-norm"], null_tokens=None)
    for target_format in ("diffusers", "single-file"):
        target = tmp_path / NAMES[target_format]
        write_checkpoint(old, target, target_format)  # type: ignore[arg-type]
        assert_equal(read_checkpoint(write_checkpoint(new, target, target_format)), new)  # type: ignore[arg-type]


def test_the_other_parts_of_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "model" / "vae").mkdir(parents=True)
    write_checkpoint(make_checkpoint(), tmp_path / "model", "diffusers")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["transformer", "vae"]


@contextmanager
def nearly_full_disk(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond num_bytes: what a full disk does, by the kernel's own refusal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("target_format", FORMATS)
def test_a_full_disk_changes_nothing(target_format: Format, there_before: bool, tmp_path: Path) -> None:
    target = tmp_path / NAMES[target_format]
    if there_before:
        write_checkpoint(make_checkpoint(), target, target_format)
    before, names = everything_in(tmp_path), sorted(tmp_path.rglob("*"))
    with (
        nearly_full_disk(9_000),
        pytest.raises(WeightsError, match=r"^[^\n]*cannot be written \([^\n]*\)[^\n]*$"),
    ):
        write_checkpoint(make_checkpoint(KINDS["qk-norm"]), target, target_format)
    assert everything_in(tmp_path) == before
    assert sorted(tmp_path.rglob("*")) == names


def test_weights_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    del checkpoint.state_dict["proj_out.bias"]
    with pytest.raises(WeightsError, match=r"missing: proj_out\.bias"):
        write_checkpoint(checkpoint, tmp_path / "x.pth", "official")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "target_format", "message"),
    [
        ("there.pth", "official", r"there\.pth is there already; .*--overwrite"),
        ("new.bin", "official", r"new\.bin is no file's name for --to official; let it end in \.pth or \.pt"),
        ("new.pth", "single-file", r"let it end in \.safetensors"),
        ("new.pth", "diffusers", "is a file's name; --to diffusers writes a folder"),
        ("file", "diffusers", "is a file's name; --to diffusers writes a folder"),
        ("folder", "diffusers", "folder/transformer is there already"),
        ("folder.pth", "official", "is no file's name"),
        ("nowhere/new.pth", "official", "nowhere does not exist; create it first"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    target: str, target_format: Format, message: str, tmp_path: Path
) -> None:
    (tmp_path / "there.pth").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "transformer").mkdir(parents=True)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(InvalidInput, match=message):
        check_target(tmp_path / target, target_format, overwrite=False)


def test_only_overwriting_replaces_and_never_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    check_target(tmp_path / "a.pth", "official", overwrite=True)
    check_source_stays(tmp_path / "a.pth", "official", tmp_path / "b.pth")
    with pytest.raises(InvalidInput, match=r"a\.pth is what is to be converted"):
        check_source_stays(tmp_path / "a.pth", "official", tmp_path / "x" / ".." / "a.pth")
    for source in ("mine.pth", "deeper/mine.pth"):
        with pytest.raises(InvalidInput, match="model/transformer holds what is to be converted"):
            check_source_stays(tmp_path / "model", "diffusers", tmp_path / "model" / "transformer" / source)
    check_source_stays(tmp_path / "model", "diffusers", tmp_path / "model" / "mine.pth")
    check_source_stays(tmp_path / "model" / "mine.pth", "official", tmp_path / "model")


def test_a_side_file_is_as_safe_as_the_file(tmp_path: Path) -> None:
    side = tmp_path / "x.safetensors.null_caption.safetensors"
    side.touch()
    with pytest.raises(
        InvalidInput, match=r"x\.safetensors\.null_caption\.safetensors is there already; .*--overwrite"
    ):
        check_target(tmp_path / "x.safetensors", "single-file", overwrite=False)
    check_target(tmp_path / "x.safetensors", "single-file", overwrite=True)
    side.unlink()
    side.mkdir()
    with pytest.raises(InvalidInput, match="where the null caption belongs, is a folder"):
        check_target(tmp_path / "x.safetensors", "single-file", overwrite=True)


@pytest.mark.parametrize("null_tokens", [None, 4])
def test_weights_that_cannot_be_replaced_keep_their_side_file(
    null_tokens: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.safetensors"
    write_checkpoint(make_checkpoint(), target, "single-file")
    before = everything_in(tmp_path)
    replace_file = Path.replace

    def refuse(self: Path, place: Path) -> Path:
        if place == target:
            raise PermissionError(13, "Permission denied")
        return replace_file(self, place)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(WeightsError, match="nothing was changed"):
        write_checkpoint(make_checkpoint(KINDS["qk-norm"], null_tokens), target, "single-file")
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("config", "given", "length"),
    [
        (PLAIN, {}, 300),
        (PLAIN, {"caption_length": 120}, 120),
        (PLAIN, {"caption_length": 77}, 77),
        (KINDS["micro-conditioning"], {"caption_length": 300}, 120),
        (PLAIN, {"like": "alpha-512"}, 120),
    ],
)
def test_zeros_are_as_many_as_captions_are_long(
    config: TransformerConfig, given: dict[str, Any], length: int, tmp_path: Path
) -> None:
    state_dict = official_state_dict(make_checkpoint(config, null_tokens=None))
    if "like" in given:
        del state_dict["pos_embed"]
    torch.save({"state_dict": state_dict}, tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match="is written as zeros"):
        convert(tmp_path / "mine.pth", tmp_path / "x.pth", "official", **given)
    null = torch.load(tmp_path / "x.pth", weights_only=True)["state_dict"]["y_embedder.y_embedding"]
    assert null.shape == (length, 8)


def test_a_model_to_be_like_that_contradicts_the_positions_is_refused(tmp_path: Path) -> None:
    path = write_foreign_pth(make_checkpoint(), tmp_path / "mine.pth")
    assert read_checkpoint(path, like=PLAIN).config == PLAIN
    for other in (replace(PLAIN, sample_size=16), replace(PLAIN, interpolation_scale=1.0)):
        with pytest.raises(
            WeightsError,
            match=rf"pos_embed of 4x4 tokens, interpolation 2; --like names a model of "
            rf"{other.base_grid}x{other.base_grid}, interpolation {other.interpolation_scale:g}: leave it out",
        ):
            read_checkpoint(path, like=other)


@pytest.mark.parametrize(
    ("compression", "words"),
    [
        (KVCompression((2, 2), "nearest", (0, 1), from_tokens=9), "operator 'nearest', from_tokens 9,"),
        (KVCompression((2, 1), "average", (1,)), "operator 'average', window 2x1,"),
        (KVCompression((2, 2), "conv", (1,), norm=False), "a convolution without norm,"),
    ],
)
def test_what_the_official_code_does_not_have_is_said(
    compression: KVCompression, words: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    checkpoint = make_checkpoint(replace(PLAIN, kv_compression=compression))
    with pytest.warns(
        UserWarning, match=rf"x\.pth has KV compression with {words} .*only this package reads that"
    ):
        write_checkpoint(checkpoint, tmp_path / "x.pth", "official")
    for target_format in ("diffusers", "single-file"):
        write_checkpoint(checkpoint, tmp_path / NAMES[target_format], target_format)  # type: ignore[arg-type]
    square = replace(PLAIN, qk_norm=True, kv_compression=KVCompression((2, 2), "conv", (1,)))
    write_checkpoint(make_checkpoint(square), tmp_path / "y.pth", "official")
    assert not recwarn.list


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_that_a_dtype_cannot_hold_are_refused(dtype: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    checkpoint.state_dict["proj_out.bias"][3] = -3.4e38 if dtype == "bfloat16" else -70_000
    checkpoint.state_dict["proj_out.bias"][4] = math.inf  # was there before
    source = written(checkpoint, tmp_path / "one", "diffusers")
    with pytest.raises(
        WeightsError, match=rf"has -\S+ in proj_out\.bias, too large for {dtype}; choose another"
    ):
        convert(source, tmp_path / "x.safetensors", "single-file", dtype=dtype)
    convert(source, tmp_path / "x.safetensors", "single-file", dtype="float32")
