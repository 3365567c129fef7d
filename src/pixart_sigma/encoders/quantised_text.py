"""A T5 encoder in 8 or 4 bits: smaller in memory than any other that stays there, and not lossless.

bitsandbytes and torchao, through transformers, which with bitsandbytes leaves the second linear layer of each
feed-forward (`wo`, a fifth of the weights) in the dtype that is computed in, as 8-bit T5 needs. The embeddings are
never quantised.
Knows nothing of tokenizers, nor of what the loss does to pictures.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pixart_sigma.encoders.pretrained import load_strictly
from pixart_sigma.encoders.t5_files import read_t5_config
from pixart_sigma.encoders.text_holds import QUANTISATIONS, Quantisation, check_text_hold
from pixart_sigma.errors import InvalidInput

_NF4_BLOCK = 64  # weights that share a scale


def load_quantised(
    folder: Path,
    quantisation: Quantisation,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> Any:
    """A folder with config.json and .safetensors → a transformers `T5EncoderModel` on the device, in eval mode.

    dtype: of what is not quantised, and of the output. The weights are quantised as they are read. Raises
    MissingDependency if a package is missing, InvalidInput for an unknown quantisation or a width that nf4's kernels
    do not take, WeightsError as `load_strictly` does.
    """
    if quantisation not in QUANTISATIONS:
        raise InvalidInput(f"unknown quantisation {quantisation!r}; one of {', '.join(QUANTISATIONS)}")
    check_text_hold(quantisation)
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    if quantisation == "torchao-int8":
        return load_strictly(T5EncoderModel, folder, dtype=dtype, quantization_config=_torchao()).to(device)
    if quantisation == "nf4":
        _check_widths(folder)
    # bitsandbytes tells the log about absent kernels, and at every product that it rounds to fp16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return load_strictly(
        T5EncoderModel,
        folder,
        dtype=dtype,
        quantization_config=_bitsandbytes(quantisation, dtype),
        device_map={"": torch.device(device)},
    )


def _bitsandbytes(quantisation: str, dtype: torch.dtype) -> Any:
    from transformers.utils.quantization_config import BitsAndBytesConfig

    if quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _torchao() -> Any:
    from transformers.utils.quantization_config import TorchAoConfig

    # It tells the log which of its kernels are for other machines.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    # By name: it is no dependency, so type checks find nothing there.
    return TorchAoConfig(import_module("torchao.quantization").Int8WeightOnlyConfig())


def _check_widths(folder: Path) -> None:
    """On the CPU, bitsandbytes 0.50 takes the wrong scales where a block of weights reaches into the next row."""
    config = read_t5_config(folder)
    for name, width in (("d_model", config.d_model), ("num_heads × d_kv", config.num_heads * config.d_kv)):
        if width % _NF4_BLOCK:
            raise InvalidInput(
                f"nf4 needs widths that are multiples of {_NF4_BLOCK}, {name} is {width}; use int8"
            )
