"""A digest of weights, whatever files they came in."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """Names, shapes, dtypes and bytes of all tensors → 12 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"\0{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
