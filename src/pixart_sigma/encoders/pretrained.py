"""Strict loading of transformers' models and tokenizers from a local folder: safetensors only, nothing missing, no
downloads.

Knows nothing of what the models compute.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixart_sigma.errors import MissingDependency, WeightsError

LONGEST_SHOWN = 200
"""Characters of a file's own text in a message."""


def load_strictly(model_class: Any, folder: Path, **options: Any) -> Any:
    """A transformers model class and a folder with config.json and .safetensors → the model, in
    eval mode.

    Never unpickles. Raises WeightsError if a file is missing or corrupt or if any tensor lacks or does not
    fit.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder} has no config.json; fetch or export it again")
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has no .safetensors file (pickled weights are never read); convert or fetch them"
        )
    # Else config.json might name a kernel on the Hub, which is code and would be fetched and run.
    options = {"attn_implementation": "sdpa"} | options
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
            )
    except ImportError as error:
        raise MissingDependency(
            f"loading {folder} needs a package that is missing ({first_line(error)}); install it with pip"
        ) from error
    except (
        Exception
    ) as error:  # the libraries raise nearly everything for a broken file; each is the file's fault here
        raise WeightsError(
            f"{folder} cannot be loaded ({first_line(error)}); fetch or export it again"
        ) from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if report.get(problem):
            names = sorted(str(key) for key in report[problem])
            raise WeightsError(
                f"{folder} does not fit its config.json: {problem.replace('_keys', '')} {abbreviate(names)}; "
                "fetch or export it again"
            )
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """A folder of tokenizer files → transformers' tokenizer. Code that lies beside them is never run.

    Raises WeightsError for a missing or corrupt file and for a tokenizer that is code, MissingDependency for one
    that needs a package.
    """
    # This submodule, and not `from transformers import …`, which looks at every model's file.
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise MissingDependency(
            f"the tokenizer in {folder} needs a package that is missing ({first_line(error)}); install it with pip"
        ) from error
    except (
        Exception
    ) as error:  # a broken tokenizer file raises nearly anything, a Rust panic's bare Exception too
        if "trust_remote_code" in str(error):
            raise WeightsError(
                f"the tokenizer in {folder} is code of its own, which is never run; name a folder with T5's or CLIP's"
            ) from error
        raise WeightsError(
            f"the tokenizer in {folder} cannot be loaded ({first_line(error)}); fetch or export it again"
        ) from error


def first_line(error: BaseException) -> str:
    """An exception's message cut to one line, since errors here are printed on one."""
    lines = str(error).strip().splitlines()
    return _printable(lines[0].rstrip(".:")) if lines else type(error).__name__


def abbreviate(names: list[str], shown: int = 3) -> str:
    """["a", "b", "c", "d"] → "a, b, c and 1 more".

    Names come from files, so a long one is cut, and what would move a terminal's cursor is written out.
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(_printable(name) for name in names[:shown]) + more


def _printable(name: str) -> str:
    if len(name) > LONGEST_SHOWN:
        name = f"{name[:LONGEST_SHOWN]}…"
    return name if name.isprintable() else ascii(name)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no loading reports: we report, in one line."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
