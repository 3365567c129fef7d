"""DreamBooth's prior (Ruiz et al. 2023, section 3.2): pictures of the class, made by the starting model itself.

Knows nothing of tables: it fills a folder of pictures, which is then a source like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pixart_sigma.pipeline.parts import Parts as PipelineParts
from pixart_sigma.pipeline.request import Request
from pixart_sigma.pipeline.text_to_image import TextToImage
from pixart_sigma.training.pipeline_folder import build_scheduler
from pixart_sigma.training.recipe.data import ClassImagesRecipe
from pixart_sigma.training.recipe.start import StartRecipe
from pixart_sigma.training.tasks.transformer.models import Parts
from pixart_sigma.weights.atomic import written_whole


def class_images_folder(output: Path, recipe: ClassImagesRecipe, start: StartRecipe) -> Path:
    """Where they are: another folder for another prompt, other settings or another model or encoder."""
    parts = " ".join(str(part) for part in (start.model, start.vae, start.text_encoder) if part is not None)
    digest = hashlib.blake2b(f"{recipe!r} {parts}".encode(), digest_size=4).hexdigest()
    return output / f"class-images-{digest}"


def make_class_images(
    recipe: ClassImagesRecipe,
    prediction_type: str,
    parts: Parts,
    folder: Path,
    report: Callable[[int, int], None],
) -> None:
    """Fill `folder` up to recipe.num pictures at the parts' resolution; picture i has seed i, those there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:05d}.png" for seed in range(recipe.num)]
    missing = [seed for seed, path in enumerate(paths) if not path.exists()]
    if not missing:
        return
    scheduler = dict(build_scheduler(prediction_type).config)
    model = TextToImage(
        PipelineParts(
            parts.text_encoder,
            parts.transformer,
            parts.autoencoder,
            scheduler,
            caption_length=parts.text_encoder.caption_length,
        )
    )
    for done, seed in enumerate(missing, start=1):
        request = Request(
            prompts=(recipe.prompt,),
            height=parts.resolution,
            width=parts.resolution,
            num_steps=recipe.num_steps,
            guidance_scale=recipe.guidance_scale,
            seed=seed,
        )
        with written_whole(paths[seed]) as temporary:
            model.generate(request).images[0].save(temporary, format="PNG")
        report(done, len(missing))
