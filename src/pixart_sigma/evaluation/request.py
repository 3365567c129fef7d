"""What an evaluation is asked for, checked before anything heavy is imported.

Knows nothing of tensors. What depends on weights (whether a reference is of the same extractor) is checked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pixart_sigma.errors import InvalidInput
from pixart_sigma.evaluation.prompts import Prompt
from pixart_sigma.pipeline.request import make_request
from pixart_sigma.pipeline.samplers import DEFAULT_SAMPLER, OWN_SAMPLERS, kinds_of_model
from pixart_sigma.resolution import check_size
from pixart_sigma.weights.atomic import check_output_folder, check_writable
from pixart_sigma.weights.catalogue import find_release
from pixart_sigma.weights.folder import PipelineFolders, base_resolution, find_pipeline

DEFAULT_FEATURES = "pocket"


@dataclass(frozen=True)
class EvaluationRequest:
    """The parameters of `evaluate`; raises InvalidInput if one breaks a rule or would be ignored.

    model, components: as for `find_pipeline`. output: a folder, made if need be. size: (height, width) in pixels, None
    for the model's own. num_steps, guidance_scale: None for those of the model's sampler. features: see `extractor`.
    reference: a reference's file, or a folder of real pictures; None: scenes are drawn if all prompts have one, else
    there is neither FID nor CMMD. save_reference: a file to be written. device: as torch names it, or auto.
    """

    model: str
    prompts: tuple[Prompt, ...]
    output: Path
    size: tuple[int, int] | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    features: str = DEFAULT_FEATURES
    reference: Path | None = None
    save_reference: Path | None = None
    device: str = "auto"
    components: str | None = None

    def __post_init__(self) -> None:
        release = find_release(self.model)
        # Before the model is fetched, which may take an hour.
        self._check_making(OWN_SAMPLERS[release.sampling.kind] if release is not None else DEFAULT_SAMPLER)
        self._check_paths()
        self._check_making(OWN_SAMPLERS[kinds_of_model(self.folders)[0]])
        if self.size is None:
            check_size(*(base_resolution(self.folders),) * 2)

    @cached_property
    def folders(self) -> PipelineFolders:
        """Where the model's parts are; those that are not here are fetched, once."""
        return find_pipeline(self.model, self.components)

    def _check_making(self, sampler: str) -> None:
        height, width = self.size or (None, None)
        for prompt in self.prompts:
            make_request(
                sampler,
                self.num_steps,
                self.guidance_scale,
                prompts=(prompt.text,),
                height=height,
                width=width,
                seed=prompt.seed,
            )

    def _check_paths(self) -> None:
        if self.reference is not None and not self.reference.exists():
            raise InvalidInput(
                f"reference {self.reference} does not exist; give a file made with --save-reference, or a folder"
            )
        if self.save_reference is not None:
            self._check_save_reference(self.save_reference)
        check_output_folder(self.output)

    def _check_save_reference(self, path: Path) -> None:
        check_writable(path)
        if self.reference is not None and self.reference.is_file():
            raise InvalidInput(
                f"--save-reference {path} would copy the file --reference {self.reference}; leave out one of the two"
            )
        if self.reference is None and not self.has_scenes:
            raise InvalidInput(
                f"--save-reference {path} has nothing to save: a file's prompts have no scenes to draw; "
                "give a folder of real pictures with --reference"
            )

    @property
    def has_scenes(self) -> bool:
        """Whether it is known of every prompt what its picture looks like."""
        return all(prompt.scene is not None for prompt in self.prompts)
