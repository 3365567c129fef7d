"""A T5 encoder that stays in its files: one block's weights are read, used for all prompts of a call, and dropped.

The arithmetic is `T5Encoder`'s, block by block, so in the same dtype the output is the same, bit for bit. On the CPU,
weights stored in the dtype that is computed in are used where the file is mapped; else a copy of one block exists at a
time. On a GPU there are two blocks, and a third in pinned memory of the host: one is copied
while the one before it is computed with. Two small tensors stay: the final norm and the table of relative positions.
Knows nothing of tokenizers, and computes no gradients.

Legend: B prompts of one length, L tokens, C channels.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from pixart_sigma.encoders.block_copies import BlockCopies
from pixart_sigma.encoders.t5 import Block, Encoded, T5Encoder, packs, spans_of, unpacked
from pixart_sigma.encoders.t5_files import cast, empty_t5, find_t5_tensors
from pixart_sigma.encoders.weight_files import Place, mapped_tensors

_EMBEDDINGS = "shared.weight"
_FINAL_NORM = "encoder.final_layer_norm.weight"
# Only block 0 has a table of relative positions; all blocks use what is made of it.
_POSITIONS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

Fetched = TypeVar("Fetched")


class StreamedT5:
    """In the place of a `T5Encoder`.

    config, dtype, device and what a call returns are that model's.
    """

    def __init__(self, model: T5Encoder, places: Mapping[str, Place], dtype: torch.dtype) -> None:
        """model: on the meta device, of which the modules are used and no weights. places: where each of its tensors
        is. `open` makes both from a folder.
        """
        self.config = model.config
        self.dtype = dtype
        self.device = torch.device("cpu")
        self._places = places
        with torch.device("meta"):
            self._block = Block(model.config).eval()
        self._final_norm = model.encoder.final_layer_norm
        # Cloned, so that nothing is left mapped between calls.
        self._kept = {
            name: cast(name, tensor, dtype).clone()
            for name, tensor in mapped_tensors(places, [_FINAL_NORM, _POSITIONS]).items()
        }

    @classmethod
    def open(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """A folder with config.json and model.safetensors, or several files with an index → StreamedT5 on the CPU.

        Reads the files' headers and two small tensors. Raises WeightsError if a file is missing or corrupt, or if any
        tensor lacks or does not fit.
        """
        model = empty_t5(folder)
        return cls(model, find_t5_tensors(folder, model), dtype)

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

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Encoded:
        """input_ids (B, L), attention_mask (B, L), 1 on real tokens → Encoded."""
        (hidden,) = self._run([[input_ids]], attention_mask)
        return Encoded(hidden)

    def encode_batches(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """`T5Encoder.encode_batches`; the files are read once. Raises WeightsError if one can no longer be read."""
        return self._run(packs(batches))

    @torch.no_grad()
    def _run(self, packed: Sequence[Sequence[Tensor]], mask: Tensor | None = None) -> list[Tensor]:
        """Batches (B, L) that share their products, and a mask for all of them → (B, L, C) of each batch."""
        states = [self._look_up(batches) for batches in packed]
        table = self._kept[_POSITIONS]
        for weights in self._blocks():
            for number, batches in enumerate(packed):
                # Biases are made anew in each block: a few rows, where those of all packs would be kept.
                of_pack = (states[number], spans_of(self.config, table, batches, mask))
                states[number] = functional_call(self._block, weights, of_pack, strict=True)
            weights.clear()  # before the next block's are copied
        final = {"weight": self._kept[_FINAL_NORM]}
        return [
            hidden
            for of_pack, batches in zip(states, packed, strict=True)
            for hidden in unpacked(functional_call(self._final_norm, final, (of_pack,), strict=True), batches)
        ]

    def _look_up(self, batches: Sequence[Tensor]) -> Tensor:
        """(N, C) of all batches; only the rows that are asked for are read."""
        table = mapped_tensors(self._places, [_EMBEDDINGS])[_EMBEDDINGS]
        ids = torch.cat([ids.flatten() for ids in batches])
        return F.embedding(ids.cpu(), table).to(self.dtype).to(self.device)

    def _blocks(self) -> Iterator[dict[str, Tensor]]:
        """The weights of one block after the other, by their names in it, on the device.

        The next block's pages are fetched from disk while this one is computed with; they are the file's, and the
        kernel may take them back.
        """
        if self.device.type == "cuda":
            yield from self._copied_blocks()
            return
        for mapped in _one_ahead(self._fetched, self.config.num_layers):
            # One after the other, so that two blocks are never there at once.
            yield {name: cast(name, mapped.pop(name), self.dtype).to(self.device) for name in list(mapped)}

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
        return {name: cast(name, tensor, self.dtype) for name, tensor in self._block.state_dict().items()}

    def _fetched(self, number: int) -> dict[str, Tensor]:
        """A block's weights, mapped, after a look at each page."""
        prefix = f"encoder.block.{number}."
        mapped = mapped_tensors(self._places, [prefix + name for name in self._block.state_dict()])
        for tensor in mapped.values():
            tensor.flatten().view(torch.uint8)[:: mmap.PAGESIZE].numpy().max()
        return {name.removeprefix(prefix): tensor for name, tensor in mapped.items()}


def _one_ahead(fetch: Callable[[int], Fetched], num: int) -> Generator[Fetched]:
    """fetch(0), fetch(1), …: each begins, in another thread, when the one before it is taken."""
    with ThreadPoolExecutor(1, "text-encoder") as reader:
        ahead = reader.submit(fetch, 0)
        for number in range(num):
            fetched = ahead.result()
            if number + 1 < num:
                ahead = reader.submit(fetch, number + 1)
            yield fetched
