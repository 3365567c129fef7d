"""Draw the quality grid of a model on the drawn world: one-object prompts with fixed seeds, none left out.

    python tools/pocket_grid.py [--model pocket] [--size 256] [--number 64] --output docs/images/quality.jpg

Writes the grid, eight to a row, and prints the prompts in the same order. Counting what is right is left to
whoever looks at it; docs/images/quality.md holds the count of the shipped weights.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from PIL import Image

from pixart_sigma import TextToImage
from pixart_sigma.world import Scene, sample_scene
from pixart_sigma.world.captions import short_caption

FIRST_SEED = 4 * 10**9  # never trained on, never validated on
COLUMNS = 8
GAP = 4


def one_thing_scenes(number: int) -> list[Scene]:
    """The first `number` scenes with a single thing, whose caption names its colour."""
    scenes = (sample_scene(seed) for seed in range(FIRST_SEED, FIRST_SEED + 100 * number))
    single = (scene for scene in scenes if scene.layout == "single" and _names_its_colour(scene))
    return list(islice(single, number))


def _names_its_colour(scene: Scene) -> bool:
    return f"{scene.things[0].colour} {scene.things[0].kind}" in short_caption(scene)


def main() -> None:
    """Parse the command line, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--number", type=int, default=64)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    model = TextToImage.from_pretrained(arguments.model)
    prompts = [short_caption(scene) for scene in one_thing_scenes(arguments.number)]
    size = arguments.size
    rows = -(-len(prompts) // COLUMNS)
    grid = Image.new("RGB", (COLUMNS * (size + GAP) - GAP, rows * (size + GAP) - GAP), "white")
    for index, prompt in enumerate(prompts):
        picture = model(prompt, height=size, width=size, seed=index).images[0]
        grid.paste(picture, (index % COLUMNS * (size + GAP), index // COLUMNS * (size + GAP)))
    grid.save(arguments.output, optimize=True, quality=90)
    for number, prompt in enumerate(prompts, 1):
        print(f"{number}. {prompt}")


if __name__ == "__main__":
    main()
