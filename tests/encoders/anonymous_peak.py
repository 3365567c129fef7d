"""Decodes once in a process of its own, and prints its peak of anonymous memory (RssAnon) above what the process had
before, and the predicted one, as JSON.
"""

import json
import sys
import threading
import time
from pathlib import Path

import torch

from pixart_sigma.allocator import return_freed_memory
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.autoencoder_memory import predict_decode_bytes
from pixart_sigma.encoders.kl_autoencoder_files import config_content
from pixart_sigma.encoders.tiling import Tiling
from random_autoencoders import pocket_autoencoder, sdxl_autoencoder

SHAPES = {"pocket": pocket_autoencoder, "sdxl": sdxl_autoencoder}


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


@torch.no_grad()
def main(
    shape: str, dtype: str, method: str | None, limit: int | None, spill: str | None, size: list[int]
) -> None:
    torch.set_num_threads(1)
    # Before there are weights: holes that they leave in the heap when they are cast would be used, and kept.
    return_freed_memory()
    model = SHAPES[shape]().to(getattr(torch, dtype))
    tiling = Tiling(method, limit, Path(spill) if spill else None) if method else None  # type: ignore[arg-type]
    autoencoder = Autoencoder(model, tiling)
    latents = torch.randn(1, 4, size[0] // 8, size[1] // 8)
    # The first call of each kernel costs memory that has nothing to do with the size.
    autoencoder.decode(latents[:, :, :4, :4])
    return_freed_memory()
    before = peak = anonymous_bytes()
    done = False

    def watch() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, anonymous_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    autoencoder.decode(latents)
    done = True
    watcher.join()
    predicted = predict_decode_bytes(config_content(model.config), *size, model.dtype.itemsize, tiling)  # type: ignore[misc]
    print(json.dumps({"peak": peak - before, "predicted": predicted}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
