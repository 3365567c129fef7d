"""Time one training step of the pocket transformer in several ways, all in one run, and print medians and ratios.

    python tools/step_speed.py [--batch-size 128] [--repeats 5] [--compile]

Rows: fused and plain attention in fp32 and bf16, and with --compile the compiled step (its compilation takes
minutes). Each row runs forward, backward and a fused AdamW step on 64 image tokens and captions of up to 32 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pixart_sigma.allocator import keep_freed_memory
from pixart_sigma.model import PixArtTransformer, TransformerConfig

POCKET = TransformerConfig(
    num_layers=8, num_attention_heads=4, attention_head_dim=64, sample_size=16, caption_channels=192,
    interpolation_scale=0.25,
)  # fmt: skip
CAPTION_LENGTH = 32


def step_seconds(batch_size: int, repeats: int, kernel: SDPBackend, autocast: bool, compiled: bool) -> float:
    """The median over `repeats` steps, after one that warms up."""
    torch.manual_seed(0)
    model = PixArtTransformer(POCKET)
    model.initialise_weights()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    forward = torch.compile(model, dynamic=False) if compiled else model
    latents = torch.randn(batch_size, POCKET.in_channels, POCKET.sample_size, POCKET.sample_size)
    embeddings = torch.randn(batch_size, CAPTION_LENGTH, POCKET.caption_channels)
    mask = torch.arange(CAPTION_LENGTH) < torch.randint(4, CAPTION_LENGTH + 1, (batch_size, 1))
    timesteps = torch.randint(0, 1000, (batch_size,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), sdpa_kernel(kernel):
            captions = model.prepare_captions(embeddings, mask)
            output = forward(latents, captions, model.prepare_timesteps(timesteps))
            output.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Parse the command line, time every row, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()

    keep_freed_memory()
    fused, plain = SDPBackend.FLASH_ATTENTION, SDPBackend.MATH
    rows = {
        "fused attention, fp32": (fused, False, False),
        "plain attention, fp32": (plain, False, False),
        "fused attention, bf16": (fused, True, False),
        "plain attention, bf16": (plain, True, False),
    }
    if arguments.compile:
        rows["plain attention, bf16, compiled"] = (plain, True, True)
    first = None
    for name, variant in rows.items():
        seconds = step_seconds(arguments.batch_size, arguments.repeats, *variant)
        first = first or seconds
        print(
            f"{name:34s} {seconds:6.3f} s/step  {arguments.batch_size / seconds:6.1f} images/s  "
            f"{first / seconds:4.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
