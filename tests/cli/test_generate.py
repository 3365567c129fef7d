import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
from PIL import Image

import pixart_sigma
from pixart_sigma.cli.app import app, run
from pixart_sigma.pipeline.request import Request
from pixart_sigma.weights.folder import find_pipeline
from tiny_lora import write_lora_file

PROMPT = "a small cactus with a happy face in the desert"


def test_a_picture_is_made_and_says_how(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "cactus.png"
    options = [
        "--model",
        str(tiny_folder),
        "--size",
        "64x48",
        "--steps",
        "2",
        "--seed",
        "9",
        "--sampler",
        "ddim",
    ]
    options += ["--negative-prompt", "blurry", "--guidance-scale", "3", "--kv-compression", "1x2"]
    assert run(["generate", PROMPT, "-o", str(output), *options]) == 0

    printed, errors = capsys.readouterr()
    assert errors == ""  # the progress bar is for terminals
    assert printed.startswith(f"{output}  seed 9\n")
    assert printed.endswith(" s\n")
    with Image.open(output) as image:
        assert image.size == (64, 48)
        assert image.text == {
            "prompt": PROMPT,
            "negative_prompt": "blurry",
            "seed": "9",
            "steps": "2",
            "guidance_scale": "3.0",
            "sampler": "ddim",
            "profile": "diffusers",
            "size": "64x48",
            "model": "tiny",
            "dtype": "float32",
            "version": pixart_sigma.__version__,
            "kv_compression": "1x2 average, blocks deep",
        }
    assert [path.name for path in tmp_path.iterdir()] == ["cactus.png"]


def test_several_pictures_are_numbered_and_have_their_own_seeds(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--model",
        str(tiny_folder),
        "--size",
        "32x32",
        "--steps",
        "1",
        "--num-images",
        "2",
        "--seed",
        "4",
    ]
    assert run(["generate", PROMPT, "-o", str(tmp_path / "a.png"), *options]) == 0
    for number, seed in ((1, 4), (2, 5)):
        with Image.open(tmp_path / f"a-{number}.png") as image:
            assert image.text["seed"] == str(seed)
    assert capsys.readouterr().out.count("  seed ") == 2


def test_the_default_size_is_the_models_and_an_aspect_snaps_to_its_bucket(
    tiny_folder: Path, tmp_path: Path
) -> None:
    common = ["--model", str(tiny_folder), "--steps", "1"]
    assert run(["generate", PROMPT, "-o", str(tmp_path / "square.png"), *common]) == 0
    assert run(["generate", PROMPT, "-o", str(tmp_path / "wide.png"), "--aspect", "16:9", *common]) == 0
    with Image.open(tmp_path / "square.png") as square, Image.open(tmp_path / "wide.png") as wide:
        assert square.size == (256, 256)
        assert wide.size == (336, 192)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "-o", "x.png"], "the prompt is empty; describe a picture"),
        (
            ["a", "-o", "x.png", "--model", "rocket"],
            "unknown model 'rocket': neither 'pocket', nor a folder or file, nor a released model",
        ),
        (
            ["a", "-o", "x.png", "--size", "0x256"],
            "width 0 is outside 16 to 8192; nearest: 16 (--size 16x256)",
        ),
        (
            ["a", "-o", "x.png", "--size", "100000x100000"],
            "height 100000 is outside 16 to 8192; nearest: 8192",
        ),
        (["a", "-o", "x.png", "--size", "250x256"], "width 250 is not a multiple of 16; nearest: 240 or 256"),
        (["a", "-o", "x.png", "--size", "64x64", "--aspect", "1:1"], "--size 64x64 and --aspect 1:1 exclude"),
        (
            ["a", "-o", "x.png", "--size", "64x64", "--base", "4k"],
            "--size 64x64 and --base 4k exclude each other",
        ),
        (["a", "-o", "x.png", "--base", "8k"], "unknown base '8k'; one of 256, 512, 1k"),
        (["a"], "Missing option '--output' / '-o'; see pixart-sigma --help"),
        (
            ["a", "-o", "x.png", "--memory-limit", "6"],
            "memory limit '6' is neither auto nor a size such as 6GB",
        ),
        (["a", "-o", "x.png", "--memory-limit", "1MB"], "memory limit 1 MiB is too little, the least is "),
        (
            ["a", "-o", "x.png", "--text-encoder", "int2"],
            "unknown hold of the text encoder 'int2'; one of resid",
        ),
        (["a", "-o", "x.png", "--vae-tiling", "slow"], "unknown tiling 'slow'; one of exact, fast"),
        (
            ["a", "-o", "x.png", "--kv-compression-blocks", "all"],
            "--kv-compression-blocks all needs a window; give --kv-compression 2x2 too",
        ),
        (
            ["a", "-o", "x.png", "--kv-compression", "2x2", "--kv-compression-blocks", "4"],
            "kv_compression names blocks [4]; the model has 0 to 3",
        ),
        (
            ["a", "-o", "x.png", "--kv-compression", "2x2", "--kv-compression-operator", "conv"],
            "operator 'conv' needs weights that this model was not trained with; use average",
        ),
        (["a", "-o", "x.png", "--aspect", "9:1"], "aspect 9:1 is beyond 4:1 or 1:4"),
        (["a", "-o", "x.png", "--steps", "0"], "steps 0 is outside 1 to 999; 20 is a good choice"),
        (
            ["a", "-o", "x.png", "--guidance-scale", "nan"],
            "guidance scale nan is not a number of at least 1; 1 turns",
        ),
        (["a", "-o", "x.png", "--num-images", "0"], "num_images 0 is outside 1 to 64"),
        (["a", "-o", "x.png", "--seed", "-1"], "seed -1 is outside 0 to"),
        (
            ["a", "-o", "x.png", "--sampler", "magic"],
            "unknown sampler 'magic'; one of dpm++-2m, dpm++-2m-karras",
        ),
        (
            ["a", "-o", "x.png", "--sampler", "lcm"],
            "sampler 'lcm' is for models distilled for it, and model tiny",
        ),
        (
            ["a", "-o", "x.png", "--sampler", "lcm", "--guidance-scale", "4.5"],
            "sampler 'lcm' takes no guidance, which is distilled",
        ),
        (["a", "-o", "x.png", "--sampler", "dmd", "--steps", "20"], "steps 20 is outside 1 to 1"),
        (["a", "-o", "x.png", "--profile", "mine"], "unknown profile 'mine'; one of diffusers, official"),
        (
            ["a", "-o", "x.png", "--profile", "official", "--negative-prompt", "blurry"],
            "profile 'official' takes no negative prompt",
        ),
        (["a", "-o", "x.png", "--revision", "main"], "revision 'main' belongs to Hub repositories"),
        (["a", "-o", "x.png", "--dtype", "int8"], "unknown dtype 'int8'; one of auto, float32, bfloat16"),
        (
            ["a", "-o", "x.png", "--device", "toaster"],
            "device 'toaster' is not available here; use --device cpu",
        ),
        (
            ["a", "-o", "x.png", "--kv-compression", "2"],
            "compression window '2' is not HEIGHTxWIDTH in tokens",
        ),
        (
            ["a", "-o", "x.jpg"],
            "output x.jpg does not end in .png, the only format that is written; name it x.png",
        ),
        (["a", "-o", "nowhere/x.png"], "output folder nowhere does not exist; create it first"),
        (["a", "-o", "x.png", "--lora", "no.safetensors:1"], "LoRA no.safetensors does not exist; give a"),
        (
            ["a", "-o", "x.png", "--lora", "no.safetensors:x"],
            "LoRA strength 'x' of no.safetensors is not a number",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in arguments else ["--model", str(tiny_folder)]
    assert run(["generate", *arguments, *model]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "file",
    [
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "vae/config.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_missing_or_corrupt_file_is_named_in_one_line(
    file: str, damage: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    if damage == "missing":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(b"\x07garbage" * 50)
    output = tmp_path / "x.png"
    assert (
        run(["generate", "a", "-o", str(output), "--model", str(folder), "--size", "32x32", "--steps", "1"])
        == 2
    )
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert Path(file).parts[0] in errors
    assert "again" in errors or "fetch" in errors
    assert not output.exists()


def test_the_output_is_checked_before_the_work_starts(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(*_: object) -> None:
        raise AssertionError("the work has started")

    monkeypatch.setattr("pixart_sigma.cli.generate._generate_with_progress", start)
    assert run(["generate", "a", "-o", "nowhere/x.png", "--model", str(tiny_folder)]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_profile_changes_the_picture_and_is_written_in_it(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", str(tiny_folder), "--size", "32x32", "--steps", "2"]
    pixels = {}
    for profile in ("diffusers", "official"):
        output = tmp_path / f"{profile}.png"
        assert run(["generate", PROMPT, "-o", str(output), "--profile", profile, *common]) == 0
        with Image.open(output) as image:
            assert image.text["profile"] == profile
            pixels[profile] = image.tobytes()
    assert pixels["diffusers"] != pixels["official"]
    assert capsys.readouterr().err == ""


def test_the_plan_alone_is_printed_and_nothing_made(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", str(tiny_folder), "--aspect", "16:9", "--base", "512", "--device", "cpu"]
    assert run(["generate", PROMPT, "--plan", "--memory-limit", "4GiB", *options]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    lines = printed.splitlines()
    assert lines[0] == "memory plan (cpu, float32): everything resident"
    assert lines[1].split() == ["stage", "in", "memory", "how", "peak", "mapped"]
    assert [line.split()[0] for line in lines[2:5]] == ["text", "denoise", "decode"]
    assert lines[5].startswith("predicted peak ")
    assert "of 4.00 GiB" in lines[5]
    assert not list(tmp_path.iterdir())


def test_within_a_limit_the_plan_is_printed_and_the_picture_the_same(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["generate", PROMPT, "--model", str(tiny_folder), "--size", "64x48", "--steps", "2"]
    assert run([*common, "-o", str(tmp_path / "free.png")]) == 0
    assert "memory plan" not in capsys.readouterr().out
    assert run([*common, "-o", str(tmp_path / "tight.png"), "--memory-limit", "8GiB"]) == 0
    assert capsys.readouterr().out.startswith("memory plan (cpu, float32)")
    with Image.open(tmp_path / "free.png") as free, Image.open(tmp_path / "tight.png") as tight:
        assert free.tobytes() == tight.tobytes()
        assert free.text == tight.text


def test_what_is_not_exact_is_written_in_the_picture(tiny_folder: Path, tmp_path: Path) -> None:
    common = ["generate", PROMPT, "--model", str(tiny_folder), "--steps", "1"]
    found = {}
    for name, options in {
        "exact": ["--size", "64x48", "--text-encoder", "streamed", "--vae-tiling", "exact"],
        "one tile": ["--size", "64x48", "--vae-tiling", "fast"],
        "fast": ["--size", "1040x32", "--vae-tiling", "fast", "--prompt-cache", str(tmp_path / "cache")],
    }.items():
        assert run([*common, "-o", str(tmp_path / f"{name}.png"), *options]) == 0
        with Image.open(tmp_path / f"{name}.png") as image:
            found[name] = {key: image.text.get(key) for key in ("text_encoder", "vae_tiling")}
    assert found["exact"] == found["one tile"] == {"text_encoder": None, "vae_tiling": None}
    assert found["fast"] == {"text_encoder": None, "vae_tiling": "fast"}
    assert list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_help_of_the_plan_says_what_it_fetches() -> None:
    command = typer.main.get_command(app).commands["generate"]  # type: ignore[attr-defined]
    (plan,) = (parameter for parameter in command.params if parameter.name == "plan")
    assert "a model on the Hub this fetches the files" in plan.help


def test_a_base_alone_is_its_square(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def note(_: object, request: Request, *__: object, **___: object) -> None:
        sizes.append((request.height, request.width))

    monkeypatch.setattr("pixart_sigma.cli.generate._generate_with_progress", note)
    for options in (["--base", "4k"], ["--base", "uhd", "--aspect", "16:9"], ["--size", "3840x2160"]):
        assert run(["generate", "a", "--plan", "--model", str(tiny_folder), *options]) == 0
    assert sizes == [(4096, 4096), (2112, 3840), (2160, 3840)]


def test_a_distilled_model_is_sampled_in_its_own_way(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "distilled"))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "LCMScheduler"}))
    common = ["--model", str(folder), "--size", "32x32"]
    assert run(["generate", PROMPT, "-o", str(tmp_path / "a.png"), *common]) == 0
    with Image.open(tmp_path / "a.png") as image:
        made = {name: image.text[name] for name in ("sampler", "steps", "guidance_scale")}
    assert made == {"sampler": "lcm", "steps": "4", "guidance_scale": "1.0"}
    capsys.readouterr()
    assert run(["generate", PROMPT, "-o", str(tmp_path / "b.png"), "--sampler", "euler", *common]) == 2
    assert capsys.readouterr().err.startswith(
        "error: model distilled was distilled for sampler 'lcm' and makes no pictures with 'euler'; use --sampler lcm"
    )


def test_parts_are_taken_from_components(tiny_folder: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_folder / "transformer", tmp_path / "mine"))
    common = ["--size", "32x32", "--steps", "1"]
    pixels = []
    for name, options in {
        "whole": ["--model", str(tiny_folder)],
        "parts": ["--model", str(bare), "--components", str(tiny_folder)],
    }.items():
        output = tmp_path / f"{name}.png"
        assert run(["generate", PROMPT, "-o", str(output), *options, *common]) == 0
        with Image.open(output) as image:
            pixels.append(image.tobytes())
            assert image.text["model"] == {"whole": "tiny", "parts": "mine"}[name]
            assert image.text.get("components") == {"whole": None, "parts": "tiny"}[name]
    assert pixels[0] == pixels[1]


def test_a_picture_names_the_revision_of_its_model(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(find_pipeline(tiny_folder), revision="v2")
    monkeypatch.setattr("pixart_sigma.cli.generate.find_pipeline", lambda *_: found)
    output = tmp_path / "x.png"
    options = ["--model", "owner/name", "--size", "32x32", "--steps", "1"]
    assert run(["generate", PROMPT, "-o", str(output), *options]) == 0
    with Image.open(output) as image:
        assert image.text["revision"] == "v2"


def test_everything_is_checked_before_a_model_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError("a model is fetched")

    monkeypatch.setattr("pixart_sigma.cli.generate.find_pipeline", fetch)
    picture = str(tmp_path / "x.png")
    for arguments in (
        ["a", "-o", "nowhere/x.png"],
        ["a", "-o", picture, "--steps", "0"],
        ["a", "-o", picture, "--size", "1x1"],
        ["a", "-o", picture, "--aspect", "9:1"],
        ["a", "-o", picture, "--lora", "nothing.safetensors"],
        ["a", "-o", picture, "--sampler", "dmd", "--guidance-scale", "3"],
    ):
        assert run(["generate", *arguments, "--model", "sigma-1024"]) == 2
    assert capsys.readouterr().err.count("error: ") == 6


def test_a_cut_prompt_is_a_warning_line(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "red " * 400, "-o", str(tmp_path / "x.png"), "--model", str(tiny_folder)]
    assert run([*arguments, "--size", "32x32", "--steps", "1"]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith("warning: a prompt of 401 tokens is cut to 300")
    assert errors.count("\n") == 1


def test_loras_change_the_picture_and_are_written_in_it(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_lora_file(tmp_path / f"style-{seed}.safetensors", seed) for seed in (0, 1))
    common = ["--model", str(tiny_folder), "--size", "32x32", "--steps", "2"]
    pixels = {}
    for name, options in {
        "plain": [],
        "off": ["--lora", f"{first}:0"],
        "one": ["--lora", str(first)],
        "two": ["--lora", str(first), "--lora", f"{second}:0.5"],
    }.items():
        output = tmp_path / f"{name}.png"
        assert run(["generate", PROMPT, "-o", str(output), *common, *options]) == 0
        with Image.open(output) as image:
            pixels[name] = (image.tobytes(), image.text.get("lora"))
    assert capsys.readouterr().err == ""
    assert pixels["off"] == (pixels["plain"][0], "style-0.safetensors:0")
    assert len({data for data, _ in pixels.values()}) == 3
    assert pixels["plain"][1] is None
    assert pixels["one"][1] == "style-0.safetensors:1"
    assert pixels["two"][1] == "style-0.safetensors:1, style-1.safetensors:0.5"


def test_a_lora_of_another_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = write_lora_file(tmp_path / "style.safetensors")
    assert run(["generate", PROMPT, "-o", str(tmp_path / "x.png"), "--lora", str(lora)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(
        f"error: LoRA {lora} does not fit the model; wrong shape: proj_out [32, 24] instead of"
    )
    assert errors.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "sigma-512", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["--model", "sigma-512", "--device", "toaster"], "device 'toaster' is not available here"),
        (
            ["--model", "alpha-512-dmd", "--sampler", "ddim"],
            "model alpha-512-dmd was distilled for sampler 'dmd'",
        ),
        (["--model", "sigma-512", "--sampler", "lcm"], "sampler 'lcm' is for models distilled for it"),
        (["--model", "alpha-512-dmd", "--steps", "20"], "steps 20 is outside 1 to 1"),
        (["--model", "alpha-1024-lcm", "--guidance-scale", "4.5"], "sampler 'lcm' takes no guidance"),
    ],
)
def test_what_the_catalogue_can_tell_is_told_before_the_download(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("the model is fetched")

    monkeypatch.setattr("pixart_sigma.cli.generate.find_pipeline", fetch)
    assert run(["generate", "a", "-o", str(tmp_path / "x.png"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_several_processes_get_the_same_command(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Any] = []

    def launch(*arguments: object) -> int:
        received.extend(arguments)
        return 7

    monkeypatch.setattr("pixart_sigma.pipeline.placement.launch.launch", launch)
    output = str(tmp_path / "a.png")
    given = ["--model", str(tiny_folder), "--steps", "2", "--num-images", "2", "-o", output]
    assert run(["generate", "a house", *given, "--nproc-per-node", "3"]) == 7
    nproc, command = received
    assert nproc == 3
    assert command[0] == "generate"
    assert command[-2:] == ["--", "a house"]
    options = [f"--output={output}", f"--model={tiny_folder}", "--num-images=2", "--steps=2"]
    assert sorted(command[1:-2]) == sorted(options)


@pytest.mark.parametrize(("more", "message"), [(["0"], "is less than 1"), (["2", "--plan"], "is ignored")])
def test_processes_that_cannot_be_are_one_line(
    more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "a", "-o", "a.png", "--nproc-per-node", *more]) == 2
    assert message in capsys.readouterr().err
