"""`pixart-sigma models`: the released models, how large they are, and which are in the local cache.

Knows nothing of tensors, and never connects to anything.
"""

import json
from typing import Annotated, Any

import typer

from pixart_sigma.weights.catalogue import Release, releases
from pixart_sigma.weights.folder import COMPONENTS
from pixart_sigma.weights.hub import cached_parts

GIGABYTE = 10**9


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Everything that is known, as JSON.")] = False,
) -> None:
    """List the released models that --model knows by name."""
    found = [_described(release) for release in releases().values()]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = [("name", "pixels", "captions", "sampling", "GB", "borrows", "in the cache", "repository")]
    rows += [
        (
            model["name"],
            str(model["resolution"]),
            str(model["caption_length"]),
            _sampling(model),
            f"{model['num_bytes'] / GIGABYTE:.1f}",
            f"{model['num_borrowed_bytes'] / GIGABYTE:.1f}",
            _cached(model),
            model["repository"],
        )
        for model in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("GB: of its own repository; borrows: from another, once for all the models that do.")


def _described(release: Release) -> dict[str, Any]:
    """What `--json` says of a release."""
    own, borrowed = cached_parts(release.repository), cached_parts(release.components)
    sampling = release.sampling
    return {
        "name": release.name,
        "family": release.family,
        "repository": release.repository,
        "parts": list(release.parts),
        "components": release.components,
        "official_repository": release.official_repository,
        "official_file": release.official_file,
        "resolution": release.resolution,
        "bucket_base": release.bucket_base,
        "interpolation_scale": release.interpolation_scale,
        "micro_conditioning": release.micro_conditioning,
        "caption_length": release.caption_length,
        "vae_scaling_factor": release.vae_scaling_factor,
        "sampling": sampling.kind,
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "num_bytes": sum(release.num_bytes(part) for part in release.parts),
        "num_borrowed_bytes": sum(
            release.num_bytes(part) for part in COMPONENTS if part not in release.parts
        ),
        # What its own repository holds is fetched from there, whatever another's copy is.
        "cached": [
            part for part in COMPONENTS if part in own or (part not in release.parts and part in borrowed)
        ],
    }


def _sampling(model: dict[str, Any]) -> str:
    steps = f"{model['steps']} step{'s' if model['steps'] > 1 else ''}"
    return steps if model["sampling"] == "many-step" else f"{steps} ({model['sampling'].upper()})"


def _cached(model: dict[str, Any]) -> str:
    if set(model["cached"]) == set(COMPONENTS):
        return "yes"
    return ", ".join(model["cached"]) or "no"
