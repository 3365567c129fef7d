"""Prompt → tokens → caption embeddings → latents → image: the whole path, in the order in which it is read.

Legend: B pictures of a call, C latent channels, h, w latents (pixels / 8).
Knows nothing of files beyond those that it loads its parts from, of training, or of the command line.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
from PIL import Image
from torch import Tensor

from pixart_sigma.diffusion.sampling import Denoiser, OnStep, Step, denoise
from pixart_sigma.diffusion.shortcuts.reuse import check_plain, reusing
from pixart_sigma.encoders.autoencoder import Autoencoder, one_of
from pixart_sigma.encoders.autoencoder_memory import blends
from pixart_sigma.encoders.strips.coding import OnProgress
from pixart_sigma.encoders.text_holds import TextHold
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.compilation import compile_blocks, is_compiled
from pixart_sigma.model.conditions import Captions
from pixart_sigma.model.config import KVCompression, TransformerConfig
from pixart_sigma.model.transformer import PixArtTransformer
from pixart_sigma.pipeline import guards
from pixart_sigma.pipeline.captions import EncodedPrompts, PromptEncoder, encode_prompts
from pixart_sigma.pipeline.images import to_image
from pixart_sigma.pipeline.kv_compression import KVCompressionRequest
from pixart_sigma.pipeline.noise import picture_generators, seeded_noise
from pixart_sigma.pipeline.parts import LOAD, Load, Parts, load_parts
from pixart_sigma.pipeline.profiles import DEFAULT_PROFILE, find_profile
from pixart_sigma.pipeline.request import Lora, Request, make_request
from pixart_sigma.pipeline.samplers import OWN_SAMPLERS, check_sampler, make_scheduler
from pixart_sigma.pipeline.shortcuts import NO_SHORTCUTS, Shortcuts
from pixart_sigma.resolution import LATENT_SCALE
from pixart_sigma.weights.compression import compressed_blocks
from pixart_sigma.weights.folder import PipelineFolders
from pixart_sigma.weights.transformer import trained_compression, with_kv_compression

Output = Literal["images", "latents"]
Part = TypeVar("Part")
Placed = Callable[[PixArtTransformer], AbstractContextManager[Denoiser]]
"""A transformer → what samples in its place for as long as the context lasts; see `pipeline/placement`."""


@dataclass(frozen=True)
class Result:
    """What a call made: `seeds[i]` made `latents[i]` (C, h, w), scaled, and `images[i]` unless only latents
    were asked. blended: images were decoded in blended tiles, which is not exact.
    """

    images: list[Image.Image]
    seeds: list[int]
    latents: Tensor
    blended: bool = False


class TextToImage:
    """A text encoder, a transformer, an autoencoder and a scheduler's configuration, joined.

    `model = TextToImage.from_pretrained("pocket"); model("a red house").images[0].save("house.png")`

    The same in three parts, of which each needs one model: `encode`, `denoise`, `decode`. For one thread at a time.
    """

    def __init__(self, parts: Parts, profile: str = DEFAULT_PROFILE) -> None:
        """Raises InvalidInput for an unknown profile; warns of parts that load and do not belong together."""
        self.profile = find_profile(profile)
        self._parts = parts
        guards.check_parts(parts)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | PipelineFolders,
        *,
        components: str | Path | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        loras: Sequence[Lora] = (),
        profile: str = DEFAULT_PROFILE,
        text_encoder: PromptEncoder | Load | None = LOAD,
        transformer: PixArtTransformer | Load | None = LOAD,
        autoencoder: Autoencoder | Load | None = LOAD,
        text_encoder_held: TextHold = "resident",
        prompt_cache: Path | None = None,
        int8: bool = False,
        compiled: bool = False,
    ) -> Self:
        """A model → TextToImage.

        model, components, revision: as for `find_pipeline`, or what it found. dtype: float32, bfloat16, or auto
        (float32 on the CPU, else bfloat16). device: as torch names it, or auto (a GPU if there is one). loras: merged
        into the transformer; several add up. profile: see `pipeline/profiles.py`. text_encoder, transformer,
        autoencoder: another pipeline's part, which is shared and stays as it is, or None to leave it out.
        text_encoder_held: how its weights are held, see `encoders/text_holds.py`. prompt_cache: a folder, which need
        not exist yet; what is encoded is kept there, and a text encoder is loaded for what is not. int8: the
        transformer's linear layers in 8 bits, which is not exact; see `model/int8.py`. compiled: the transformer's
        blocks by torch's compiler, for many pictures: the first ones of a size, a number of pictures at once or a
        length of captions wait for it.

        Raises InvalidInput for an unknown model, dtype, device or profile, for loras, int8 or compiled without a
        transformer to load, and for one that int8 does not fit; WeightsError for a broken file, parts that do not
        fit one another, or a LoRA that does not fit; MissingDependency for a hold whose package is not installed, and
        for compiled without a C++ compiler.
        """
        parts = load_parts(
            model,
            components,
            revision,
            dtype,
            device,
            loras,
            text_encoder,
            transformer,
            autoencoder,
            text_encoder_held=text_encoder_held,
            prompt_cache=prompt_cache,
            int8=int8,
            compiled=compiled,
        )
        return cls(parts, profile)

    def to(self, device: torch.device | str) -> Self:
        """Moves all parts that are there."""
        self._parts.to(device)
        return self

    @property
    def name(self) -> str:
        """The model's, for metadata and messages."""
        return self._parts.name

    @property
    def text_encoder(self) -> PromptEncoder:
        """Raises InvalidInput if it was left out; so do the other parts."""
        return _there(
            self._parts.text_encoder, "text_encoder", "give embeddings that were encoded before (encoded=…)"
        )

    @property
    def transformer(self) -> PixArtTransformer:
        return _there(self._parts.transformer, "transformer", "only encode and decode can do without")

    @property
    def autoencoder(self) -> Autoencoder:
        return _there(self._parts.autoencoder, "autoencoder", 'ask for output="latents"')

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """What scheduler_config.json says."""
        return self._parts.scheduler_config

    @property
    def base_resolution(self) -> int:
        """The side in pixels of the square that the model was trained on; the default size."""
        return self.transformer.config.sample_size * LATENT_SCALE

    @property
    def sampler(self) -> str:
        """The one that the model is sampled with unless another is asked for."""
        return OWN_SAMPLERS[self._parts.kinds[0]]

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        num_images: int = 1,
        sampler: str | None = None,
        kv_compression: KVCompressionRequest | tuple[int, int] | list[int] | None = None,
        shortcuts: Shortcuts = NO_SHORTCUTS,
        on_step: OnStep | None = None,
        noise: Tensor | None = None,
        output: Output = "images",
        encoded: EncodedPrompts | None = None,
    ) -> Result:
        """Makes num_images pictures of each prompt, ordered by prompt; picture i of the call has seed + i.

        The parameters are those of `Request`, which checks them; sampler, num_steps and guidance_scale are by default
        the model's own. The others are those of `generate`.
        """
        request = make_request(
            sampler or self.sampler,
            num_steps,
            guidance_scale,
            prompts=(prompt,) if isinstance(prompt, str) else tuple(prompt),
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            seed=seed,
            num_images=num_images,
            kv_compression=kv_compression,
            shortcuts=shortcuts,
        )
        return self.generate(request, on_step, noise, output, encoded)

    def generate(
        self,
        request: Request,
        on_step: OnStep | None = None,
        noise: Tensor | None = None,
        output: Output = "images",
        encoded: EncodedPrompts | None = None,
    ) -> Result:
        """Request → pictures: `encode`, unless encoded holds its prompts already, `denoise` and `decode`.

        With encoded the request's prompts only count. output "latents" leaves out the decoding. Raises InvalidInput
        for an unknown output, for a negative prompt beside encoded, which has its own, and what the three raise.
        """
        if output not in ("images", "latents"):
            raise InvalidInput(f"unknown output {output!r}; one of images, latents")
        if encoded is not None and request.negative_prompt.strip():
            raise InvalidInput(
                "a negative prompt beside encoded prompts would be ignored; give it to encode instead"
            )
        self._check_early(request, output, encoded)
        if encoded is None:
            encoded = self.encode(request.prompts, request.negative_prompt, request.guidance_scale > 1)
        latents = self.denoise(encoded, request, noise=noise, on_step=on_step)
        if output == "latents":
            return Result([], _seeds(request), latents)
        return Result(self.decode(latents), _seeds(request), latents, self.blends(latents))

    def _check_early(self, request: Request, output: Output, encoded: EncodedPrompts | None) -> None:
        """What would else be refused when something costly has been done."""
        config = self.transformer.config
        check_sampler(request.sampler, self._parts.kinds, self.name)
        if request.compression is not None:
            compression_of(request.compression, config)
        plan = request.shortcuts.plan(request.num_steps, config.num_layers, request.guidance_scale > 1)
        if plan.computed is not None:
            check_plain(self.transformer)
        if encoded is None:
            _ = self.text_encoder
        if output == "images":
            _ = self.autoencoder

    def encode(
        self, prompts: str | Sequence[str], negative_prompt: str = "", guided: bool = True
    ) -> EncodedPrompts:
        """Prompts → their embeddings, and those of the null branch if guided, in the profile's convention.

        Needs the text encoder alone. Raises InvalidInput for no prompts, for negative_prompt that is no text, and for
        one that the profile has no place for.
        """
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        if not prompts:
            raise InvalidInput("there is nothing to encode; give at least one prompt")
        if not isinstance(negative_prompt, str):
            raise InvalidInput(
                f"negative_prompt is a {type(negative_prompt).__name__}; it is one text, for all prompts"
            )
        with torch.no_grad():
            return encode_prompts(
                self.text_encoder, prompts, negative_prompt, guided, self.profile, self._parts.null_caption
            )

    def denoise(
        self,
        encoded: EncodedPrompts,
        request: Request,
        *,
        noise: Tensor | None = None,
        on_step: OnStep | None = None,
        branches_together: bool = True,
        placed: Placed = nullcontext,
    ) -> Tensor:
        """What `encode` made of the request's prompts, and the request → latents (B, C, h, w), scaled, fp32.

        Needs the transformer alone. noise (B, C, h, w), of unit variance, takes the place of the seeds' own; what a
        sampler draws on the way comes from these still. on_step: called after each step; False stops, and the
        latents so far are the result. branches_together: see `diffusion.sampling.denoise`. placed: where the
        transformer computes, by default where it is. Raises InvalidInput for what does not fit the request or the
        model, WeightsError for latents that are not finite.
        """
        model = self.transformer
        if len(encoded) != len(request.prompts):
            raise InvalidInput(
                f"{len(encoded)} encoded prompts for {len(request.prompts)} in the request; give as many"
            )
        guards.check_request(self._parts, request, encoded)
        height = request.height or self.base_resolution
        width = request.width or self.base_resolution
        generators = picture_generators(_seeds(request))
        shape = (model.config.in_channels, height // LATENT_SCALE, width // LATENT_SCALE)
        # Drawn even if another is given: what a sampler draws next must not be the same again.
        own_noise = seeded_noise(generators, shape)
        noise = own_noise if noise is None else noise
        if noise.shape != own_noise.shape:
            raise InvalidInput(
                f"noise {tuple(noise.shape)} does not fit; it must be {tuple(own_noise.shape)}"
            )

        if request.compression is not None:
            model = with_kv_compression(model, compression_of(request.compression, model.config))
            if is_compiled(self.transformer.transformer_blocks):
                compile_blocks(model.transformer_blocks)
        dtype = model.proj_out.weight.dtype

        def checked(step: Step) -> bool | None:
            guards.check_finite(step, dtype)
            return None if on_step is None else on_step(step)

        guided = request.guidance_scale > 1
        plan = request.shortcuts.plan(request.num_steps, model.config.num_layers, guided)
        # Reuse first: what places the model elsewhere wraps its blocks as they then are.
        with torch.no_grad(), reusing(model, plan) as before_call, placed(model) as denoiser:
            device = model.proj_out.weight.device
            micro_conditions = {}
            if model.config.micro_conditioning:
                aspect_ratio = self.profile.aspect_ratio(height, width, self.base_resolution)
                micro_conditions["image_size"] = torch.tensor([[height, width]], device=device)
                micro_conditions["aspect_ratio"] = torch.tensor([[aspect_ratio]], device=device)
            encoded = encoded.to(device)
            # Given on without a name here, so that they go once they are put together.
            return denoise(
                denoiser,
                noise.to(device),
                model.prepare_captions(encoded.embeds, encoded.mask).repeat(request.num_images),
                _negative_captions(model, encoded, len(noise)) if guided else None,
                make_scheduler(request.sampler, self.scheduler_config, self.profile),
                request.num_steps,
                request.guidance_scale,
                branches_together=branches_together,
                guided_steps=plan.guided,
                generator=generators,
                before_call=before_call,
                on_step=checked,
                **micro_conditions,
            )

    def decode(self, latents: Tensor, on_progress: OnProgress | None = None) -> list[Image.Image]:
        """Scaled latents (B, C, h, w) → pictures. Needs the autoencoder alone.

        on_progress: told what fraction is done, picture by picture, or strip by strip where they are taken apart.
        Raises WeightsError for pixels that are not finite; warns of a black picture.
        """
        model = self.autoencoder.model
        images = []
        with torch.no_grad():
            # One at a time: the decoder's activations are the largest of the whole path.
            for index, one in enumerate(latents):
                share = one_of(on_progress, index, len(latents))
                pixels = self.autoencoder.decode(one[None].to(model.device), share)[0]
                guards.check_pixels(pixels, model.dtype)
                images.append(to_image(pixels))
                guards.check_not_black(images[-1], index)
                if on_progress is not None:
                    on_progress((index + 1) / len(latents))
        return images

    def blends(self, latents: Tensor) -> bool:
        """Whether `decode` takes pictures of latents (B, C, h, w) apart into blended tiles, which is not exact."""
        model, (height, width) = self.autoencoder.model, latents.shape[2:]
        return blends(model, height, width, self.autoencoder.tiling, model.device)


def compression_of(wanted: KVCompressionRequest, config: TransformerConfig) -> KVCompression:
    """What a call asks for, for a model of that many blocks.

    Raises InvalidInput for blocks that it does not have, and for an operator whose weights it does not have.
    """
    blocks = compressed_blocks(wanted.blocks, config.num_layers)
    compression = KVCompression(wanted.window, wanted.operator, blocks)
    if wanted.operator == "conv":
        trained_compression(config, compression)
    return compression


def _negative_captions(model: PixArtTransformer, encoded: EncodedPrompts, batch: int) -> Captions | None:
    if encoded.negative_embeds is None or encoded.negative_mask is None:
        return None
    captions = model.prepare_captions(encoded.negative_embeds, encoded.negative_mask)
    return captions.repeat(batch // len(captions))


def _seeds(request: Request) -> list[int]:
    return [request.seed + index for index in range(len(request.prompts) * request.num_images)]


def _there(part: Part | None, name: str, remedy: str) -> Part:
    if part is None:
        raise InvalidInput(f"the {name} was left out; load it, or {remedy}")
    return part
