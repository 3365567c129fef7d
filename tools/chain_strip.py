"""Draw the same prompts across the links of the pocket model's making: a row a prompt, a column a link.

    python tools/chain_strip.py runs --output docs/images/chain.jpg

`runs/LINK/export` are the models, as `pixart-sigma reproduce chain -o runs` leaves them. Every picture is made at its
model's own size with the seed of its row, and shown at one size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from pixart_sigma import TextToImage

LINKS = ("alpha", "vae-swap", "captions", "256", "512", "1024", "mixed", "binding")
PROMPTS = (
    "a green cactus with a happy face in the desert",
    "a red house in the snow at night, with ink outlines",
    "a blue boat to the left of a white star at a lake",
    "a purple cat in front of an orange ball in a room",
)
SIDE = 256
GAP = 4


def main() -> None:
    """Parse the command line, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    strip = Image.new("RGB", (len(LINKS) * (SIDE + GAP) - GAP, len(PROMPTS) * (SIDE + GAP) - GAP), "white")
    for column, link in enumerate(LINKS):
        model = TextToImage.from_pretrained(arguments.runs / link / "export")
        for row, prompt in enumerate(PROMPTS):
            picture = model(prompt, seed=row).images[0]
            kind = Image.Resampling.NEAREST if picture.width < SIDE else Image.Resampling.LANCZOS
            strip.paste(picture.resize((SIDE, SIDE), kind), (column * (SIDE + GAP), row * (SIDE + GAP)))
    strip.save(arguments.output, optimize=True, quality=90)


if __name__ == "__main__":
    main()
