"""A stage's export → its figures, by `evaluation`, on prompts and against a reference that all cells share.

    output/reference-…                            drawings at the high resolution
    output/stages/NAME-KEY/measured-N-PROMPTS-…   as `evaluate` writes it; pictures that are there are kept

Knows nothing of trainings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pixart_sigma.data.drawn import FIRST_VALIDATION_SEED, draw_scenes, world_fingerprint
from pixart_sigma.evaluation.features import extractor
from pixart_sigma.evaluation.figures import ATTRIBUTE
from pixart_sigma.evaluation.judges.file import judge_file
from pixart_sigma.evaluation.metrics.reference import save_reference
from pixart_sigma.evaluation.prompts import Prompt, evenly, pocket_prompts, prompts_digest
from pixart_sigma.evaluation.reference_set import make_reference
from pixart_sigma.evaluation.request import DEFAULT_FEATURES, EvaluationRequest
from pixart_sigma.evaluation.run import METRICS_FILE, evaluate
from pixart_sigma.pipeline.device import resolve_device
from pixart_sigma.reproduction.metric import (
    ADHERENCE,
    ATTRIBUTES,
    CLIP_SCORE,
    CMMD,
    DENSE_ATTRIBUTES,
    DENSE_CLIP_SCORE,
    FID,
)
from pixart_sigma.reproduction.scale import Scale
from pixart_sigma.reproduction.stages import short_digest
from pixart_sigma.weights.digests import files_digest
from pixart_sigma.world import dense_caption, sample_scene
from pixart_sigma.world.captions import STATEMENTS

FIRST_DENSE_SEED = 5 * 10**9
"""Of the dense prompts' scenes; the fixed list's, and whatever was trained on, lie below."""
_NAMES: Mapping[str, Mapping[str, str]] = {
    "pocket": {name: name for name in (FID, CMMD, CLIP_SCORE, ADHERENCE, ATTRIBUTES)},
    "dense": {CLIP_SCORE: DENSE_CLIP_SCORE, ATTRIBUTES: DENSE_ATTRIBUTES},
}
"""Set of prompts → metric of a model's pictures → metric of the tables."""


def shared_reference(output: Path, scale: Scale, device: str) -> Path:
    """The file of the reference's statistics, made first if need be; its name tells what it is of."""
    features = extractor(DEFAULT_FEATURES, resolve_device(device))
    name = f"reference-{scale.num_drawn}-{scale.high}px-{world_fingerprint(FIRST_VALIDATION_SEED)}-{features.name}"
    file = output / f"{name}.safetensors"
    if not file.exists():
        drawn = draw_scenes(FIRST_VALIDATION_SEED, scale.num_drawn, scale.high, scale.high)
        batches = (images for _, images, _ in drawn)
        save_reference(make_reference(features, batches, scale.num_drawn, lambda done, total: None), file)
    return file


def prompts_of(name: str, num: int) -> tuple[Prompt, ...]:
    """ "pocket": `num` of the fixed list. "dense": as many dense captions, which state everything."""
    if name == "pocket":
        return evenly(pocket_prompts(), num)
    scenes = [sample_scene(FIRST_DENSE_SEED + index) for index in range(num)]
    return tuple(
        Prompt(f"dense-{index + 1:03d}", dense_caption(scene), "dense", index, scene, STATEMENTS)
        for index, scene in enumerate(scenes)
    )


def measured_folder(model: Path, output: Path, prompts: str, scale: Scale, reference: Path) -> Path:
    """Where `measure` keeps pictures and figures; its name begins with `output`."""
    asked = prompts_of(prompts, scale.num_prompts)
    how = [prompts_digest(asked), scale.num_steps, scale.guidance_scale, reference.name]
    how += [_folder_digest(model), _folder_digest(judge_file(""))]
    return output.with_name(f"{output.name}-{prompts}-{short_digest(how)}")


def measure(
    model: Path, output: Path, prompts: str, scale: Scale, reference: Path, device: str
) -> dict[str, float]:
    """The figures of a pipeline's folder on a set of prompts, by the names that tables use.

    What was measured before on the same files, in the same way, is read from `measured_folder`.
    """
    asked = prompts_of(prompts, scale.num_prompts)
    folder = measured_folder(model, output, prompts, scale, reference)
    file = folder / METRICS_FILE
    if file.exists():
        metrics = json.loads(file.read_text("utf-8"))
    else:
        request = EvaluationRequest(
            str(model),
            asked,
            folder,
            num_steps=scale.num_steps,
            guidance_scale=scale.guidance_scale,
            reference=reference,
            device=device,
        )
        metrics = evaluate(request, lambda what, done, total: None, model_alone=True)
    figures = [figure for figure in metrics["figures"] if figure["pictures"] == "model"]
    found = {each["metric"]: each["value"] for each in figures if each["part"] in ("", "all")}
    read = [each for each in figures if each["metric"] == ATTRIBUTE]
    found[ATTRIBUTES] = sum(each["value"] * each["num"] for each in read) / sum(each["num"] for each in read)
    return {ours: found[theirs] for theirs, ours in _NAMES[prompts].items()}


def _folder_digest(folder: Path) -> str:
    """Of what is loaded; a card's words may change."""
    return files_digest(
        folder, sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    )
