"""What a comparison of precisions is asked for, checked before anything heavy is imported.

Knows nothing of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pixart_sigma.errors import InvalidInput
from pixart_sigma.pipeline.request import Request, check_dtype, make_request
from pixart_sigma.pipeline.samplers import DEFAULT_SAMPLER, OWN_SAMPLERS, kinds_of_model
from pixart_sigma.weights.atomic import check_output_folder
from pixart_sigma.weights.catalogue import find_release
from pixart_sigma.weights.folder import COMPONENTS, PipelineFolders, find_pipeline

_TEXT_PARTS = ("text_encoder", "tokenizer")


@dataclass(frozen=True)
class PrecisionRequest:
    """The parameters of `compare_precision`; raises InvalidInput if one breaks a rule or would be ignored.

    model, components: as for `find_pipeline`. output: a folder, empty or made if need be. size: (height, width) in
    pixels, None for the model's own. num_steps, guidance_scale: None for those of the model's sampler. seed: of the
    first prompt's picture, the next has the next. dtype, device: see `TextToImage.from_pretrained`; the dtype is the
    reference's. embeddings_only: no pictures are made.
    """

    model: str
    prompts: tuple[str, ...]
    output: Path
    components: str | None = None
    size: tuple[int, int] | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    embeddings_only: bool = False

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InvalidInput("there is no prompt to compare with; give some, or a file of them (--prompts)")
        of_pictures = {"size": self.size, "steps": self.num_steps, "guidance-scale": self.guidance_scale}
        given = [name for name, value in of_pictures.items() if value is not None]
        if self.embeddings_only and given:
            raise InvalidInput(
                f"--{given[0]} is of pictures, and --embeddings-only makes none; leave one out"
            )
        check_dtype(self.dtype)
        release = find_release(self.model)
        # Before the model is fetched, which may take an hour.
        self._of_pictures(OWN_SAMPLERS[release.sampling.kind] if release is not None else DEFAULT_SAMPLER)
        check_output_folder(self.output)
        if self.output.is_dir() and any(self.output.iterdir()):
            raise InvalidInput(f"output folder {self.output} is not empty; name another, or empty it")
        if not self.embeddings_only:
            self._of_pictures(self.sampler)

    @cached_property
    def folders(self) -> PipelineFolders:
        """Where the parts are; those that are not here are fetched, once."""
        parts = _TEXT_PARTS if self.embeddings_only else COMPONENTS
        return find_pipeline(self.model, self.components, parts=parts)

    @property
    def sampler(self) -> str:
        """The model's own."""
        return OWN_SAMPLERS[kinds_of_model(self.folders)[0]]

    @property
    def pictures(self) -> list[Request]:
        """One request a prompt."""
        return self._of_pictures(self.sampler)

    def _of_pictures(self, sampler: str) -> list[Request]:
        height, width = self.size or (None, None)
        return [
            make_request(
                sampler,
                self.num_steps,
                self.guidance_scale,
                prompts=(prompt,),
                height=height,
                width=width,
                seed=self.seed + index,
            )
            for index, prompt in enumerate(self.prompts)
        ]
