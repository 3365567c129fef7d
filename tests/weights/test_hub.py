"""Downloads by the real huggingface_hub client, in processes of its own, from a stand-in on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_stand_in import Hub, Repository, serve_hub
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.weights.catalogue import releases
from pixart_sigma.weights.hub import fetch, is_hub_id, is_whole
from pixart_sigma.weights.transformer import load_transformer

SIGMA = releases()["sigma-512"]
# Calls with their arguments → what each returns or raises.
CLIENT = """
import json, sys
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1024  # the test's files are smaller than the usual 10 MiB
from pixart_sigma.errors import PixArtSigmaError
from pixart_sigma.weights.folder import find_pipeline
for arguments in json.loads(sys.argv[1]):
    try:
        found = find_pipeline(**arguments)
        folders = {part: str(found[part]) for part in sorted(found.parts)}
        release = found.release.name if found.release else None
        answer = {"name": found.name, "folders": folders, "release": release}
    except PixArtSigmaError as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
"""


def environment(hub: Hub | str, cache: Path, **changes: str) -> dict[str, str]:
    url = hub if isinstance(hub, str) else hub.url
    own = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    without = ("HF_HUB_CACHE", "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    return {key: value for key, value in os.environ.items() if key not in without} | own | changes


def ask(hub: Hub | str, cache: Path, *calls: dict[str, Any], **changes: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env=environment(hub, cache, **changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    # Nothing but errors of ours belongs on a terminal; progress bars need one.
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path) -> Iterator[Hub]:
    """The shared pipeline, and sigma-512 in two states, a transformer alone; with what nobody wants beside them."""
    shared = Path(shutil.copytree(tiny_folder, tmp_path / "shared"))
    (shared / "text_encoder" / "pytorch_model.bin").write_bytes(b"a pickle")
    (shared / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    (shared / "README.md").write_text("# Not needed")
    shutil.rmtree(shared / "transformer")
    for state in ("new", "old"):
        shutil.copytree(tiny_folder / "transformer", tmp_path / state / "transformer")
        config = tmp_path / state / "transformer" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": state}))
    repositories = {
        SIGMA.components: Repository({"main": shared}),
        SIGMA.repository: Repository({"main": tmp_path / "new", "v1": tmp_path / "old"}),
    }
    with serve_hub(repositories) as hub:
        yield hub


def state_of(answer: dict[str, Any]) -> str:
    config = Path(answer["folders"]["transformer"], "transformer", "config.json")
    return str(json.loads(config.read_text())["_name_or_path"])


def test_a_transformer_borrows_the_other_parts_once_and_for_all(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    answer = ask(hub, cache, {"model": "sigma-512"})[0]
    assert answer["name"] == answer["release"] == "sigma-512"
    own, lent = answer["folders"].pop("transformer"), set(answer["folders"].values())
    assert answer["folders"].keys() == {"text_encoder", "tokenizer", "vae", "scheduler"}
    assert len(lent) == 1
    assert own not in lent
    load_transformer(Path(own, "transformer"))
    fetched = {path for path, _ in hub.transfers()}
    assert "text_encoder/model.safetensors" in fetched
    assert not [path for path in fetched if path.endswith((".bin", ".md")) or "fp16" in path]

    hub.requests.clear()
    again, by_id, part = ask(
        hub,
        cache,
        {"model": "sigma-512"},
        {"model": SIGMA.repository},
        {"model": "sigma-512", "parts": ["vae"]},
    )
    assert again["folders"]["transformer"] == own
    assert by_id == again
    assert part["folders"] == again["folders"]  # others are told of if they happen to be there
    assert not hub.transfers()

    hub.requests.clear()
    offline, unknown = ask(hub, cache, {"model": "sigma-512"}, {"model": "somebody/else"}, HF_HUB_OFFLINE="1")
    assert offline == again
    assert unknown["error"].startswith(
        "WeightsError: somebody/else is no folder here and not in the Hub cache, and HF_HUB_OFFLINE is set;"
    )
    assert not hub.requests


def test_only_the_parts_that_are_wanted_are_fetched(hub: Hub, tmp_path: Path, tiny_folder: Path) -> None:
    answers = ask(
        hub,
        tmp_path / "cache",
        {"model": "sigma-512", "parts": ["transformer"]},
        {"model": "sigma-512", "components": str(tiny_folder)},
        {"model": "sigma-512", "parts": []},
    )
    assert {path.split("/")[0] for path, _ in hub.transfers()} == {"transformer"}
    assert answers[1]["folders"]["vae"] == str(tiny_folder)
    assert answers[2]["folders"].keys() == {"transformer"}


def test_a_revision_is_pinned(hub: Hub, tmp_path: Path) -> None:
    commit = hub.repositories[SIGMA.repository].commit("v1")
    calls = [
        {"model": "sigma-512", "parts": ["transformer"], "revision": name}
        for name in ("v1", commit, None, "v2")
    ]
    by_tag, by_commit, newest, unknown = ask(hub, tmp_path / "cache", *calls)
    assert [state_of(answer) for answer in (by_tag, by_commit, newest)] == ["old", "old", "new"]
    assert f"InvalidInput: Hub repository {SIGMA.repository} has no revision 'v2';" in unknown["error"]
    hub.requests.clear()
    assert state_of(ask(hub, tmp_path / "cache", calls[0], HF_HUB_OFFLINE="1")[0]) == "old"
    assert not hub.requests


WEIGHTS = "diffusion_pytorch_model.safetensors"
CALL = {"model": "sigma-512", "parts": ["transformer"]}


def assert_weights_arrived(folder: str, tmp_path: Path) -> None:
    fetched = Path(folder, "transformer", WEIGHTS).read_bytes()
    assert fetched == (tmp_path / "new" / "transformer" / WEIGHTS).read_bytes()


def test_a_transfer_that_breaks_off_goes_on_by_itself(hub: Hub, tmp_path: Path) -> None:
    hub.breaks_off[WEIGHTS] = 10_000
    answer = ask(hub, tmp_path / "cache", CALL)[0]
    # The client writes whole chunks, and asks for what comes after the last of them.
    assert [span for path, span in hub.transfers() if path.endswith(WEIGHTS)] == ["", "bytes=9216-"]
    assert_weights_arrived(answer["folders"]["transformer"], tmp_path)


def test_after_a_killed_download_only_what_was_not_whole_is_fetched(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    hub.stalls[WEIGHTS] = 60_000
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, json.dumps([CALL])],
        env=environment(hub, cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert hub.stalled.wait(60)
    deadline = time.monotonic() + 60
    while not list(cache.rglob("snapshots/*/transformer/config.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    client.terminate()
    client.wait()
    hub.released.set()

    offline = ask(hub, cache, CALL, HF_HUB_OFFLINE="1")[0]
    assert (
        f"{SIGMA.repository} is only partly in the Hub cache, and HF_HUB_OFFLINE is set" in offline["error"]
    )
    hub.requests.clear()
    answer = ask(hub, cache, CALL)[0]
    assert hub.transfers() == [(f"transformer/{WEIGHTS}", "")]
    assert_weights_arrived(answer["folders"]["transformer"], tmp_path)


def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["owner/gated"] = Repository({"main": tmp_path / "new"}, gated=True)
    pickled = tmp_path / "pickled"
    shutil.copytree(tmp_path / "new", pickled)
    (pickled / "transformer" / WEIGHTS).rename(pickled / "transformer" / "diffusion_pytorch_model.bin")
    hub.repositories["owner/pickled"] = Repository({"main": pickled})
    hub.repositories["owner/alone"] = Repository({"main": tmp_path / "new"})
    models = ("owner/missing", "owner/gated", "owner/pickled", "owner/alone", "own--er/alone")
    answers = ask(hub, tmp_path / "cache", *({"model": model} for model in models))
    wanted = (
        "InvalidInput: no Hub repository owner/missing that is open to you",
        "WeightsError: Hub repository owner/gated is gated; accept its terms",
        "WeightsError: transformer of owner/pickled is only partly in the cache, or has no .safetensors;",
        "WeightsError: model owner/alone lacks text_encoder, tokenizer, vae, scheduler;",
        "InvalidInput: unknown model 'own--er/alone'",
    )
    for answer, message in zip(answers, wanted, strict=True):
        assert answer["error"].startswith(message)
        assert "\n" not in answer["error"]


def test_without_a_connection_the_cache_serves(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = ask(hub, cache, CALL)[0]
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        cached, unknown = ask(url, cache, CALL, {"model": "owner/name"})
    assert cached == before
    assert unknown["error"].startswith(
        "WeightsError: owner/name is no folder here and not in the Hub cache, and the Hub does not answer;"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError("Consistency check failed: size 3\nmore"),
            r"broke off \(Consistency check failed: size 3\)",
        ),
        (OSError("Distant resource does not seem to be a Hub."), r"broke off \(Distant resource .* a Hub\)"),
    ],
)
def test_what_else_goes_wrong_is_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(WeightsError, match=rf"^the download of owner/name at revision 'v1' {message}[^\n]*$"):
        fetch("owner/name", ["vae"], "v1")


def test_the_transports_own_errors_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = pytest.importorskip("httpx2") if "httpx2" in sys.modules else __import__("httpx")

    def fail(*_: object, **__: object) -> None:
        raise transport.ReadError("reset")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(WeightsError, match=r"broke off \(reset\); run again, and files that are whole"):
        fetch("owner/name", ["vae"])


def test_a_full_disk_and_our_own_mistakes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: Exception = OSError(28, "No space left on device", "/cache/blob")

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(OSError, match="No space left"):
        fetch("owner/name", ["vae"])
    raised = KeyError("ours")
    with pytest.raises(KeyError):
        fetch("owner/name", ["vae"])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", True),
        ("models", False),
        ("a/b/c", False),
        ("../b", False),
        ("/b", False),
        ("a b/c", False),
        ("~/models", False),
    ],
)
def test_hub_ids_are_told_from_paths(text: str, valid: bool) -> None:
    assert is_hub_id(text) == valid


def test_a_part_is_whole_only_with_every_file_of_its_index(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    folder.mkdir()
    assert not is_whole(folder)
    (folder / "config.json").write_text("{}")
    assert not is_whole(folder)
    (folder / "a.fp16.safetensors").touch()  # the same once more, which nothing is loaded from
    (folder / "a.fp16.safetensors.index.json").write_text('{"weight_map": {"x": "a.fp16.safetensors"}}')
    assert not is_whole(folder)
    (folder / "a.safetensors").touch()
    assert is_whole(folder)
    index = folder / "a.safetensors.index.json"
    for content, whole in (
        ('{"weight_map": {"x": "a.safetensors"}}', True),
        ('{"weight_map": {"x": "b"}}', False),
        ("[]", False),
        ("{", False),
    ):
        index.write_text(content)
        assert is_whole(folder) == whole


def test_an_unknown_name_is_no_download() -> None:
    from pixart_sigma.weights.folder import find_pipeline

    with pytest.raises(InvalidInput, match="unknown model 'sigma-513'"):
        find_pipeline("sigma-513")
