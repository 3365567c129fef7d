"""A T5 encoder that stays in its files: one block's weights are read, used for all prompts of a call, and dropped.

The arithmetic is transformers' own, block by block, so the output is that of its `T5EncoderModel` in the same dtype,
bit for bit. On the CPU, weights stored in the dtype that is computed in are used where the file is mapped; else a copy
of one block exists at a time. On a GPU there are two blocks, and a third in pinned memory of the host: one is copied
while the one before it is computed with. Two small tensors stay: the final norm and the table of relative positions.
Knows nothing of tokenizers, and computes no gradients.

Legend: B prompts of one length, L tokens, C channels.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from pixart_sigma.encoders.block_copies import BlockCopies
from pixart_sigma.encoders.pretrained import abbreviate, first_line
from pixart_sigma.errors import WeightsError

_AGAIN = "fetch or export it again"
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Two names of one table; files have either or both. The encoder itself reads the first.
_EMBEDDINGS = ("encoder.embed_tokens.weight", "shared.weight")
_FINAL_NORM = "encoder.final_layer_norm.weight"
# Only block 0 has a table of relative positions; all blocks use it.
_POSITIONS = "layer.0.SelfAttention.relative_attention_bias.weight"
_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them

Fetched = TypeVar("Fetched")


class StreamedT5:
    """In the place of a transformers `T5EncoderModel` that only encodes.

    config, dtype, device and what a call returns are that model's.
    """

    def __init__(self, model: Any, files: Mapping[str, Path], dtype: torch.dtype) -> None:
        """model: a `T5EncoderModel` on the meta device, of which the modules are used and no weights.
        files: where each of its tensors is. `open` makes both from a folder.
        """
        self.config = model.config
        self.dtype = dtype
        self.device = torch.device("cpu")
        self._files = files
        self._wide = _kept_in_fp32(model, dtype)
        self._block = model.encoder.block[0].eval()  # the one that has a table of positions serves for all
        self._final_norm = model.encoder.final_layer_norm
        self._in_block = [name for name in self._block.state_dict() if name != _POSITIONS]
        self._table = next(name for name in _EMBEDDINGS if name in files)
        self._kept = {
            # Cloned, so that nothing is left mapped between calls.
            name: self._cast(name, tensor).clone()
            for name, tensor in self._mapped([_FINAL_NORM, f"encoder.block.0.{_POSITIONS}"]).items()
        }

    @classmethod
    def open(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """A folder with config.json and model.safetensors, or several files with an index → StreamedT5 on the CPU.

        Reads the files' headers and two small tensors. Raises WeightsError if a file is missing or corrupt, or if any
        tensor lacks or does not fit.
        """
        from transformers.models.t5.configuration_t5 import T5Config
        from transformers.models.t5.modeling_t5 import T5EncoderModel

        if not (folder / "config.json").is_file():
            raise WeightsError(f"{folder} has no config.json; {_AGAIN}")
        with _faults_named(folder):
            config = T5Config.from_pretrained(folder, local_files_only=True)
            config.dtype = dtype  # as from_pretrained does
            with torch.device("meta"):
                model = T5EncoderModel(config)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        return cls(model, _find_tensors(folder, shapes), dtype)

    @property
    def weight_bytes(self) -> int:
        """At most: of the tensors that stay, and of the blocks that are there at a time."""
        blocks = 2 if self.device.type == "cuda" else 1
        block = sum(tensor.nbytes for tensor in self._block_on_meta().values())
        return int(sum(tensor.nbytes for tensor in self._kept.values()) + blocks * block)

    def to(self, device: torch.device | str) -> Self:
        """Where to compute; blocks are copied there one after the other."""
        self.device = torch.device(device)
        self._kept = {name: tensor.to(self.device) for name, tensor in self._kept.items()}
        return self

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        """input_ids (B, L), attention_mask (B, L), 1 on real tokens → an object with last_hidden_state (B, L, C)."""
        from transformers.modeling_outputs import BaseModelOutput

        (hidden,) = self.encode_batches([input_ids], [attention_mask])
        return BaseModelOutput(last_hidden_state=hidden)

    @torch.no_grad()
    def encode_batches(
        self, batches: Sequence[Tensor], masks: Sequence[Tensor | None] | None = None
    ) -> list[Tensor]:
        """Token ids (B, L) of each length, and their masks (B, L) → (B, L, C) of each, as alone.

        The files are read once for all of them. Raises WeightsError if one can no longer be read.
        """
        from transformers.masking_utils import create_bidirectional_mask

        embedded = self._look_up(batches)
        known = masks if masks is not None else [None] * len(batches)
        wide_masks = [
            create_bidirectional_mask(
                config=self.config,
                inputs_embeds=hidden,
                attention_mask=None if mask is None else mask.to(self.device),
            )
            for hidden, mask in zip(embedded, known, strict=True)
        ]
        positions = self._kept[f"encoder.block.0.{_POSITIONS}"]
        hiddens = embedded
        for weights in self._blocks():
            weights[_POSITIONS] = positions
            # The bias of relative positions is made anew in each block: a few rows, where one a length would be kept.
            hiddens = [
                functional_call(self._block, weights, (hidden, mask), strict=True)[0]
                for hidden, mask in zip(hiddens, wide_masks, strict=True)
            ]
            weights.clear()  # before the next block's are copied
        final = {"weight": self._kept[_FINAL_NORM]}
        return [functional_call(self._final_norm, final, (hidden,), strict=True) for hidden in hiddens]

    def _look_up(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Only the rows that are asked for are read."""
        table = self._mapped([self._table])[self._table]
        return [self._cast(self._table, F.embedding(ids.cpu(), table)).to(self.device) for ids in batches]

    def _blocks(self) -> Iterator[dict[str, Tensor]]:
        """The weights of one block after the other, by their names in it, on the device.

        The next block's pages are fetched from disk while this one is computed with; they are the file's, and the
        kernel may take them back.
        """
        if self.device.type == "cuda":
            yield from self._copied_blocks()
            return
        for mapped in _one_ahead(self._fetched, self.config.num_layers):
            yield {name: self._cast(name, mapped.pop(name)).to(self.device) for name in self._in_block}

    def _copied_blocks(self) -> Iterator[dict[str, Tensor]]:
        """`_blocks`, the next of which is not only fetched but copied to the GPU, too."""
        copies = BlockCopies(self._block_on_meta(), self.device)
        places = _one_ahead(lambda number: copies.send(self._fetched(number)), self.config.num_layers)
        try:
            with closing(places):
                for place in places:
                    yield copies.take(place)
                    copies.leave(place)
        finally:
            copies.finish()

    def _block_on_meta(self) -> dict[str, Tensor]:
        """Shapes and dtypes of a block's weights, by their names in it."""
        weights = self._block.state_dict()
        return {name: self._cast(name, weights[name]) for name in self._in_block}

    def _fetched(self, number: int) -> dict[str, Tensor]:
        """A block's weights, mapped, after a look at each page."""
        prefix = f"encoder.block.{number}."
        mapped = self._mapped([prefix + name for name in self._in_block])
        for tensor in mapped.values():
            tensor.flatten().view(torch.uint8)[:: mmap.PAGESIZE].numpy().max()
        return {name.removeprefix(prefix): tensor for name, tensor in mapped.items()}

    def _mapped(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Tensors as the files hold them; a file is mapped for as long as one of its tensors lives."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        mapped: dict[str, Tensor] = {}
        for path, its_names in by_file.items():
            with _faults_named(path), safe_open(path, framework="pt") as file:
                mapped.update((name, file.get_tensor(name)) for name in its_names)
        return mapped

    def _cast(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.to(torch.float32 if self._wide.intersection(name.split(".")) else self.dtype)


def _one_ahead(fetch: Callable[[int], Fetched], num: int) -> Generator[Fetched]:
    """fetch(0), fetch(1), …: each begins, in another thread, when the one before it is taken."""
    with ThreadPoolExecutor(1, "text-encoder") as reader:
        ahead = reader.submit(fetch, 0)
        for number in range(num):
            fetched = ahead.result()
            if number + 1 < num:
                ahead = reader.submit(fetch, number + 1)
            yield fetched


def _kept_in_fp32(model: Any, dtype: torch.dtype) -> set[str]:
    """The modules that transformers loads in fp32 although dtype is asked for: T5's `wo` in fp16, none in bf16."""
    kept: set[str] = set()
    if dtype in (torch.float16, torch.bfloat16):
        kept |= set(model._keep_in_fp32_modules_strict or ())
    if dtype == torch.float16:
        kept |= set(model._keep_in_fp32_modules or ())
    return kept


def _find_tensors(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Path]:
    """Where each tensor of a model is, seen to be there once, in its shape, with nothing beside."""
    found: dict[str, Path] = {}
    mismatched: list[str] = []
    for path in _weight_files(folder):
        with _faults_named(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                header = file.get_slice(name)
                if name in shapes and (
                    name in found
                    or tuple(header.get_shape()) != shapes[name]
                    or header.get_dtype() not in _FLOATS
                ):
                    mismatched.append(name)
                found[name] = path
    missing = sorted(shapes.keys() - found.keys() - set(_EMBEDDINGS))
    if not any(name in found for name in _EMBEDDINGS):
        missing.append(_EMBEDDINGS[1])
    # A whole T5 may lie there; its decoder is passed over, as transformers does.
    unexpected = sorted(name for name in found.keys() - shapes.keys() if "decoder" not in name)
    problems = {"missing": missing, "mismatched": mismatched, "unexpected": unexpected}
    for problem, names in problems.items():
        if names:
            raise WeightsError(
                f"{folder} does not fit its config.json: {problem} {abbreviate(names)}; {_AGAIN}"
            )
    return {name: path for name, path in found.items() if name in shapes}


def _weight_files(folder: Path) -> list[Path]:
    """The one file, or all that the index names."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    if not (folder / _INDEX).is_file():
        raise WeightsError(
            f"{folder} has neither {_WHOLE} nor {_INDEX} (pickled weights are never read); convert or fetch them"
        )
    with _faults_named(folder / _INDEX):
        names = sorted(set(json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values()))
        if not all(name and Path(name).name == name for name in names):
            raise ValueError("it names files that do not lie beside it")
    return [folder / name for name in names]


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # the libraries raise nearly everything for a broken file
        raise WeightsError(f"{path} cannot be loaded ({first_line(error)}); {_AGAIN}") from error
