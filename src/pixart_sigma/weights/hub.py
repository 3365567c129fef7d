"""Parts of a pipeline from the Hugging Face Hub: only those wanted and not yet in the cache, and from the cache alone
where the Hub may not be asked (HF_HUB_OFFLINE) or does not answer.

A transfer that breaks off is resumed by huggingface_hub's client, with what it has; after a killed process files that
are whole are kept and the others begin again. Never fetches pickles. Knows nothing of which parts a model needs, nor
of tensors.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from pixart_sigma.errors import InvalidInput, WeightsError

WEIGHTED = ("transformer", "text_encoder", "vae")
"""The parts that have weights beside their configuration."""
CONFIG_FILES = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
MODEL_INDEX = "model_index.json"
# A tokenizer's vocabulary is in one of the first three, weights are in the last.
FILES = ("*.json", "*.model", "*.txt", "*.safetensors")
# The same weights once more, rounded or without their moving average.
VARIANTS = ("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.non_ema.*", "*.ema.*")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Whether this could be a Hub repository's owner/name."""
    return _HUB_ID.fullmatch(text) is not None and "--" not in text and ".." not in text


def fetch(repository: str, parts: Collection[str], revision: str | None = None) -> Path:
    """The local folder of a snapshot that holds those of the parts that the Hub repository has.

    revision: a branch, a tag or a commit; the newest by default. What the cache has is not fetched again. Raises
    InvalidInput for a repository or revision that does not exist, WeightsError for one that is closed, cannot be
    reached and is not in the cache, or whose download breaks off.
    """
    import huggingface_hub

    wanted = [MODEL_INDEX, *(f"{part}/{pattern}" for part in parts for pattern in FILES)]
    with _said_plainly(repository, revision), _bars_on_a_terminal_only():
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=wanted, ignore_patterns=list(VARIANTS)
        )
    for part in parts:
        if (Path(folder) / part).is_dir() and not is_whole(Path(folder) / part):
            raise WeightsError(
                f"{part} of {repository} is only partly in the cache, or has no .safetensors; "
                "run again with a connection"
            )
    return Path(folder)


def cached(repository: str, revision: str | None = None) -> Path | None:
    """The folder of a repository's snapshot in the local cache, or None. Never connects."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    storage = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    reference = storage / "refs" / (revision or constants.DEFAULT_REVISION)
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    if not commit or not (storage / "snapshots" / commit).is_dir():
        return None
    return storage / "snapshots" / commit


def cached_parts(repository: str) -> frozenset[str]:
    """The parts of a Hub repository that are whole in the local cache. Never connects."""
    folder = cached(repository)
    if folder is None:
        return frozenset()
    return frozenset(path.name for path in folder.iterdir() if path.is_dir() and is_whole(path))


def is_whole(folder: Path) -> bool:
    """Whether a part's folder has its configuration and every file of weights that its index names."""
    part = folder.name
    if not (folder / CONFIG_FILES.get(part, "config.json")).is_file():
        return False
    if part not in WEIGHTED:
        return True
    for index in _wanted(folder.glob("*.safetensors.index.json")):
        try:
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError, OSError):
            return False
        return all((folder / str(shard)).is_file() for shard in shards)
    return any(_wanted(folder.glob("*.safetensors")))


def _wanted(paths: Iterable[Path]) -> list[Path]:
    """Without the variants, which are not what a part is loaded from."""
    return [path for path in paths if not any(fnmatch(path.name, variant) for variant in VARIANTS)]


@contextmanager
def _said_plainly(repository: str, revision: str | None) -> Iterator[None]:
    """Turns what the client raises into one line of ours."""
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision is not None else ""
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"Hub repository {repository} is gated; accept its terms on its page, then log in: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InvalidInput(
            f"no Hub repository {repository} that is open to you; correct its name, or log in: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InvalidInput(
            f"Hub repository {repository} has no revision {revision!r}; give a branch, a tag or a commit"
        ) from error
    except errors.HFValidationError as error:
        raise InvalidInput(f"{repository!r} is no Hub repository's owner/name; correct it") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsError(_unreachable(repository, revision)) from error
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise  # a disk that is full or closed; the command names the file
        raise WeightsError(_broken_off(repository + at, error)) from error
    except Exception as error:
        # The client's transport has an exception tree of its own, which changed its package between releases.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3", "hf_xet")):
            raise
        raise WeightsError(_broken_off(repository + at, error)) from error


def _unreachable(repository: str, revision: str | None) -> str:
    from huggingface_hub import constants

    where = "no folder here and not in the Hub cache"
    if cached(repository, revision) is not None:
        where = "only partly in the Hub cache"
    at = f" at revision {revision!r}" if revision is not None else ""
    if constants.HF_HUB_OFFLINE:
        return (
            f"{repository}{at} is {where}, and HF_HUB_OFFLINE is set; "
            "correct the path, or unset HF_HUB_OFFLINE to fetch it"
        )
    return f"{repository}{at} is {where}, and the Hub does not answer; correct the path, or the connection"


def _broken_off(repository: str, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(".:") if lines else type(error).__name__
    return f"the download of {repository} broke off ({reason}); run again, and files that are whole are kept"


@contextmanager
def _bars_on_a_terminal_only() -> Iterator[None]:
    """The client's progress bars write into logs too, a line an update; here they show on terminals alone."""
    import sys

    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
