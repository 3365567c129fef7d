"""Prompt → tokens → caption embeddings → latents → image: the whole path, in the order in which it is read.

Legend: B images of a call, C latent channels, h, w latents (pixels / 8), L caption tokens.
Knows nothing of files beyond the folder it loads from, of training, or of the command line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor

from pixart_sigma.diffusion.sampling import denoise
from pixart_sigma.encoders.autoencoder import Autoencoder
from pixart_sigma.encoders.text import TextEncoder
from pixart_sigma.errors import InvalidInput, WeightsError
from pixart_sigma.model.conditions import Captions
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline.request import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS, Lora, Request
from pixart_sigma.pipeline.samplers import DEFAULT_SAMPLER, make_scheduler
from pixart_sigma.resolution import LATENT_SCALE, PATCH_SIZE
from pixart_sigma.weights.folder import find_pipeline, read_json
from pixart_sigma.weights.lora import apply_loras, load_lora
from pixart_sigma.weights.transformer import load_transformer, with_average_compression

OnStep = Callable[[int, int], None]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Result:
    """What a call made: `seeds[i]` made `latents[i]` (C, h, w), scaled, and `images[i]` unless only latents
    were asked.
    """

    images: list[Image.Image]
    seeds: list[int]
    latents: Tensor


class TextToImage:
    """A text encoder, a transformer, an autoencoder and a scheduler's configuration, joined.

    `model = TextToImage.from_pretrained("pocket"); model("a red house").images[0].save("house.png")`
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        transformer: PixArtTransformer,
        autoencoder: Autoencoder,
        scheduler_config: Mapping[str, Any],
    ) -> None:
        """Raises WeightsError if the parts do not fit one another."""
        self.text_encoder = text_encoder
        self.transformer = transformer
        self.autoencoder = autoencoder
        self.scheduler_config = dict(scheduler_config)
        _check_fit(text_encoder, transformer, autoencoder)

    @classmethod
    def from_pretrained(
        cls, model: str | Path, *, dtype: str = "auto", device: str = "auto", loras: Sequence[Lora] = ()
    ) -> Self:
        """ "pocket" or a folder in diffusers' PixArtSigmaPipeline layout → TextToImage. No downloads, no
        pickles.

        dtype: float32, bfloat16, or auto (float32 on the CPU, else bfloat16). device: as torch names it, or
        auto (a GPU if there is one). loras: merged into the transformer; several add up. Raises InvalidInput
        for an unknown model, dtype or device, WeightsError for a broken folder or a LoRA that does not fit.
        """
        chosen_device = resolve_device(device)
        chosen_dtype = resolve_dtype(dtype, chosen_device)
        folder = find_pipeline(model)
        adapters = [(load_lora(lora.path), lora.strength) for lora in loras]
        # Merged in fp32: in bf16 most of a small change would be rounded away before it adds to another.
        transformer = load_transformer(folder / "transformer", torch.float32 if loras else chosen_dtype)
        apply_loras(transformer, adapters)
        return cls(
            TextEncoder.from_pretrained(folder, chosen_dtype),
            transformer.to(chosen_dtype),
            Autoencoder.from_pretrained(folder, chosen_dtype),
            read_json(folder / "scheduler" / "scheduler_config.json"),
        ).to(chosen_device)

    def to(self, device: torch.device | str) -> Self:
        """Moves all parts."""
        for part in (self.text_encoder, self.transformer, self.autoencoder):
            part.to(device)
        return self

    @property
    def base_resolution(self) -> int:
        """The side in pixels of the square that the model was trained on; the default size."""
        return self.transformer.config.sample_size * LATENT_SCALE

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_steps: int = DEFAULT_STEPS,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        seed: int = 0,
        num_images: int = 1,
        sampler: str = DEFAULT_SAMPLER,
        kv_compression: tuple[int, int] | None = None,
        on_step: OnStep | None = None,
        noise: Tensor | None = None,
        output: Literal["images", "latents"] = "images",
    ) -> Result:
        """Makes num_images pictures of each prompt, ordered by prompt; picture i of the call has seed + i.

        The parameters are those of `Request`, which checks them; the others those of `generate`.
        """
        request = Request(
            prompts=(prompt,) if isinstance(prompt, str) else tuple(prompt),
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            seed=seed,
            num_images=num_images,
            sampler=sampler,
            kv_compression=kv_compression,
        )
        return self.generate(request, on_step, noise, output)

    def generate(
        self,
        request: Request,
        on_step: OnStep | None = None,
        noise: Tensor | None = None,
        output: Literal["images", "latents"] = "images",
    ) -> Result:
        """Request → pictures.

        on_step(steps done, steps in all) is called after each step. noise (B, C, h, w), of unit variance,
        takes the place of the seeds' own. output "latents" leaves out the decoding. Raises InvalidInput for
        noise that does not fit or an unknown output.
        """
        if output not in ("images", "latents"):
            raise InvalidInput(f"unknown output {output!r}; one of images, latents")
        height = request.height or self.base_resolution
        width = request.width or self.base_resolution
        seeds = [request.seed + index for index in range(len(request.prompts) * request.num_images)]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (self.transformer.config.in_channels, height // LATENT_SCALE, width // LATENT_SCALE)
        if noise is None:
            noise = seeded_noise(generators, shape)
        elif noise.shape != (len(seeds), *shape):
            raise InvalidInput(f"noise {tuple(noise.shape)} does not fit; it must be {(len(seeds), *shape)}")

        model = self.transformer
        if request.kv_compression is not None:
            model = with_average_compression(model, request.kv_compression)
        device = model.proj_out.weight.device
        micro_conditions = {}
        if model.config.micro_conditioning:
            micro_conditions["image_size"] = torch.tensor([[height, width]], device=device)
            micro_conditions["aspect_ratio"] = torch.tensor([[height / width]], device=device)
        with torch.no_grad():
            captions, negative_captions = self._captions(model, request)
            latents = denoise(
                model,
                noise.to(device),
                captions,
                negative_captions,
                make_scheduler(request.sampler, self.scheduler_config),
                request.num_steps,
                request.guidance_scale,
                generator=generators,
                on_step=on_step,
                **micro_conditions,
            )
            # One at a time: the decoder's activations are the largest of the whole path.
            decoded = [self.autoencoder.decode(one[None])[0] for one in latents] if output == "images" else []
        return Result([to_image(pixels) for pixels in decoded], seeds, latents)

    def _captions(self, model: PixArtTransformer, request: Request) -> tuple[Captions, Captions | None]:
        """The request's captions, one per picture, and as many negative ones, or None without guidance.

        The null branch is the negative prompt with its own mask, as in diffusers, not the caption's as in the
        official code.
        """
        wanted = [caption_text(prompt) for prompt in request.prompts]
        embeds, mask = self.text_encoder.encode(wanted)
        captions = model.prepare_captions(embeds, mask).repeat(request.num_images)
        if request.guidance_scale <= 1:
            return captions, None
        negative = model.prepare_captions(*self.text_encoder.encode([caption_text(request.negative_prompt)]))
        return captions, negative.repeat(len(captions))


def caption_text(prompt: str) -> str:
    """The prompt as the text encoder sees it: diffusers' convention without cleaning (the official code keeps
    case).
    """
    return prompt.lower().strip()


def seeded_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """One generator per picture and the shape of its latents → (len(generators), *shape), unit normal,
    float32, CPU.

    A generator for each, so that a picture's noise depends on its seed alone, whatever the batch or the
    device.
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def to_image(pixels: Tensor) -> Image.Image:
    """pixels (3, H, W) in about [-1, 1] → an 8-bit RGB image."""
    return Image.fromarray(to_uint8(pixels[None])[0].numpy())


def to_uint8(pixels: Tensor) -> Tensor:
    """pixels (B, 3, H, W) in about [-1, 1] → (B, H, W, 3) uint8 on the CPU."""
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu()


def resolve_device(device: str) -> torch.device:
    """A torch device by name, or "auto" → the device, tried out. Raises InvalidInput."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device).item()  # "meta", whose tensors have no content, fails here too
    except (RuntimeError, AssertionError) as error:
        raise InvalidInput(
            f"device {device!r} is not available here; use --device cpu or auto (in a recipe: run.device)"
        ) from error
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """A dtype by name, or "auto" → float32 on the CPU, else bfloat16. Raises InvalidInput."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise InvalidInput(f"unknown dtype {dtype!r}; one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _check_fit(text_encoder: TextEncoder, transformer: PixArtTransformer, autoencoder: Autoencoder) -> None:
    config = transformer.config
    expectations = (
        ("the text encoder's width", text_encoder.model.config.d_model, config.caption_channels),
        ("the autoencoder's latent channels", autoencoder.model.config.latent_channels, config.in_channels),
        ("the autoencoder's pixels per latent", autoencoder.latent_scale, LATENT_SCALE),
        ("the transformer's patch size", config.patch_size, PATCH_SIZE),
    )
    for name, found, wanted in expectations:
        if found != wanted:
            raise WeightsError(
                f"{name} is {found}, the pipeline needs {wanted}; combine parts that belong together"
            )
