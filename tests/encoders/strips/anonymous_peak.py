"""Decodes once with the SDXL shape in a process of its own, and prints its peak of anonymous memory (RssAnon) above
what the process had before, and the predicted one, as JSON.
"""

import ctypes
import json
import sys
import threading
import time
from pathlib import Path

import torch
from random_autoencoders import sdxl_autoencoder

from pixart_sigma.encoders.strips.coding import decode_in_strips, plan_decode


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def main(dtype: str, limit: int, spill: str, latents: list[int]) -> None:
    torch.set_num_threads(1)
    model = sdxl_autoencoder().to(getattr(torch, dtype))
    noise = torch.randn(1, 4, *latents).to(model.dtype)
    # The first call of each kernel costs memory that has nothing to do with the size.
    decode_in_strips(model, noise[:, :, :4, :4], limit_bytes=2**30)
    ctypes.CDLL(None).malloc_trim(0)
    before = peak = anonymous_bytes()
    done = False

    def watch() -> None:
        nonlocal peak
        while not done:
            peak = max(peak, anonymous_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    decode_in_strips(model, noise, limit_bytes=limit, spill=Path(spill))
    done = True
    watcher.join()
    plan = plan_decode(model, *latents, limit_bytes=limit, may_spill=True)
    print(json.dumps({"peak": peak - before, "predicted": plan.peak_bytes, "spilled": plan.spilled_bytes}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
