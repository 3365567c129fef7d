"""Sampling on models whose outputs are known in closed form, and on a tiny transformer."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, LCMScheduler, PNDMScheduler

from comparison import load_golden, relative_error
from pixart_sigma.diffusion import denoise
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import Captions, KVCompression, PixArtTransformer, TransformerConfig

# torch's tensors do not know numpy 2's copy keyword, which diffusers' schedulers run into.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def released_scheduler(**options):
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **options
    )


class ClosedFormModel:
    """A denoiser given as a function of (latents, timestep, caption value); a caption is one number."""

    config = TransformerConfig()

    def __init__(self, function):
        self.function = function
        self.batch_sizes = []

    def prepare_timesteps(self, timesteps, image_size, aspect_ratio):
        return timesteps.float()

    def __call__(self, latents, captions, timestep, kept_tokens):
        self.batch_sizes.append(len(latents))
        return self.function(latents, timestep, captions.keys[0])


def number_captions(value, batch=2):
    numbers = torch.full((1, batch, 1, 1, 1), float(value))
    return Captions(keys=numbers, values=numbers, mask=None)


def test_golden_dpm_solver():
    tensors, golden = load_golden("dpm_solver_20")
    weights = tensors["input.W"]

    def noise_model(latents, timestep, caption):
        mixed = torch.einsum("oc,bchw->bohw", weights, latents)
        return mixed.tanh() * timestep / 1000 + 0.1 * caption + latents * timestep / 1000

    result = denoise(
        ClosedFormModel(noise_model),
        tensors["input.noise"],
        caption_means(tensors["input.cond"]),
        caption_means(tensors["input.uncond"]),
        released_scheduler(),
        golden["steps"],
        golden["cfg_scale"],
    )
    assert relative_error(result, tensors["output"]) <= 1e-3


def caption_means(captions):
    means = captions.flatten(1).mean(1).reshape(1, -1, 1, 1, 1)
    return Captions(keys=means, values=means, mask=None)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_perfect_model_recovers_the_latents(prediction_type):
    """A model that knows the answer is led to it, whatever it predicts: the scheduler's configuration says
    which.
    """
    latents = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    scheduler = DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        prediction_type=prediction_type,
    )

    def perfect(noised, timestep, caption):
        alpha = scheduler.alphas_cumprod[int(timestep)]
        noise = (noised - alpha.sqrt() * latents) / (1 - alpha).sqrt()
        return noise if prediction_type == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents

    result = denoise(
        ClosedFormModel(perfect), torch.randn(2, 4, 4, 6), number_captions(0), None, scheduler, 10, 1.0
    )
    assert relative_error(result, latents) < 0.02


def test_guidance_is_on_every_channel():
    """The noise is the caption's number: guided by 3 it is neg + 3 (pos - neg), on all four channels."""

    def constant(latents, timestep, caption):
        return (
            caption.reshape(-1, 1, 1, 1).expand_as(latents)
            * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
        )

    noise = torch.randn(2, 4, 4, 4)
    model = ClosedFormModel(constant)
    guided = denoise(model, noise, number_captions(2), number_captions(1), released_scheduler(), 5, 3.0)
    alone = denoise(
        ClosedFormModel(constant), noise, number_captions(1 + 3 * (2 - 1)), None, released_scheduler(), 5, 1.0
    )
    assert relative_error(guided, alone) <= 1e-5
    assert model.batch_sizes == [4] * 5


def test_branches_one_after_the_other_are_the_same_picture():
    model = tiny_transformer()
    generator = torch.Generator().manual_seed(5)
    noise, *captions = (
        torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 5, 12), (2, 20, 12))
    )
    results = [
        denoise(
            model,
            noise,
            *(model.prepare_captions(each, torch.ones(each.shape[:2])) for each in captions),
            released_scheduler(),
            4,
            4.5,
            branches_together=together,
        )
        for together in (True, False)
    ]
    assert relative_error(*results) <= 1e-5

    closed = ClosedFormModel(lambda latents, timestep, caption: latents * 0.1)
    denoise(
        closed,
        noise,
        number_captions(2),
        number_captions(1),
        released_scheduler(),
        3,
        4.5,
        branches_together=False,
    )
    assert closed.batch_sizes == [2] * 6  # half the batch, twice as often


@pytest.mark.parametrize("guidance_scale", [1.0, 0.0])
def test_no_guidance_runs_one_branch(guidance_scale):
    def constant(latents, timestep, caption):
        return caption.reshape(-1, 1, 1, 1).expand_as(latents)

    model = ClosedFormModel(constant)
    denoise(
        model,
        torch.randn(2, 4, 4, 4),
        number_captions(2),
        number_captions(1),
        released_scheduler(),
        3,
        guidance_scale,
    )
    assert model.batch_sizes == [2] * 3


def test_learned_variance_is_left_out():
    def noisy(latents, timestep, caption):
        return torch.cat([latents * 0.1, torch.full_like(latents, float("nan"))], dim=1)

    result = denoise(
        ClosedFormModel(noisy),
        torch.randn(2, 4, 4, 4),
        number_captions(0),
        None,
        released_scheduler(),
        3,
        1.0,
    )
    assert torch.isfinite(result).all()


def test_scheduler_is_copied():
    scheduler = released_scheduler()
    before = copy.deepcopy(scheduler.__dict__)
    noise = torch.randn(1, 4, 4, 4)

    def model(latents, timestep, caption):
        return latents * 0.3

    first = denoise(ClosedFormModel(model), noise, number_captions(0, 1), None, scheduler, 4, 1.0)
    second = denoise(ClosedFormModel(model), noise, number_captions(0, 1), None, scheduler, 4, 1.0)
    assert torch.equal(first, second)
    for name, value in before.items():
        now = scheduler.__dict__[name]
        assert torch.equal(value, now) if isinstance(value, torch.Tensor) else str(value) == str(now), name


@pytest.mark.parametrize(
    ("scheduler", "total"), [(released_scheduler(), 4), (PNDMScheduler(skip_prk_steps=True), 5)]
)
def test_progress_counts_the_schedulers_steps(scheduler, total):
    seen = []
    denoise(
        ClosedFormModel(lambda latents, timestep, caption: latents * 0.1),
        torch.randn(1, 4, 4, 4),
        number_captions(0, 1),
        None,
        scheduler,
        4,
        1.0,
        on_step=lambda step: seen.append((step.done, step.total)),
    )
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_step_can_be_read_and_the_sampling_stopped(stop_after):
    steps = []

    def read(step):
        steps.append(step)
        return step.done < stop_after

    scheduler = released_scheduler()
    noise = torch.randn(1, 4, 4, 4)

    def shrink(latents, timestep, caption):
        return latents * 0.3

    result = denoise(
        ClosedFormModel(shrink), noise, number_captions(0, 1), None, scheduler, 4, 1.0, on_step=read
    )
    assert [step.done for step in steps] == list(range(1, stop_after + 1))
    assert torch.equal(result, steps[-1].latents)
    scheduler.set_timesteps(4)
    assert [step.timestep for step in steps] == scheduler.timesteps[:stop_after].tolist()


def test_none_does_not_stop():
    seen = []
    denoise(
        ClosedFormModel(lambda latents, timestep, caption: latents * 0.1),
        torch.randn(1, 4, 4, 4),
        number_captions(0, 1),
        None,
        released_scheduler(),
        4,
        1.0,
        on_step=lambda step: seen.append(step.done),
    )
    assert len(seen) == 4


def tiny_transformer(kv_compression=None):
    config = TransformerConfig(
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        sample_size=8,
        caption_channels=12,
        interpolation_scale=1.0,
        kv_compression=kv_compression,
    )
    torch.manual_seed(0)
    return PixArtTransformer(config)  # torch's default initialisation: nothing is zero


def sample(model, rows, generators, scheduler=None):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(3, 4, 6, 8, generator=generator)
    embeds = torch.randn(3, 9, 12, generator=generator)
    mask = torch.arange(9) < torch.tensor([9, 4, 2])[:, None]
    negative = model.prepare_captions(torch.ones(1, 1, 12), torch.ones(1, 1)).repeat(len(rows))
    captions = model.prepare_captions(embeds[rows], mask[rows])
    return denoise(
        model,
        noise[rows],
        captions,
        negative,
        scheduler or released_scheduler(),
        4,
        4.5,
        generator=None if generators is None else [torch.Generator().manual_seed(row) for row in rows],
    )


@pytest.mark.parametrize(
    ("compression", "scheduler"),
    [
        (None, None),
        (KVCompression((2, 2), "average", (1,)), None),
        (KVCompression((2, 2), "discard", (0, 1)), None),
        (None, LCMScheduler()),
    ],
)
def test_a_sample_does_not_depend_on_its_batch(compression, scheduler):
    model = tiny_transformer(compression)
    random = scheduler is not None or (compression is not None and compression.operator == "discard")
    together = sample(model, [0, 1, 2], random or None, scheduler)
    for row in range(3):
        alone = sample(model, [row], random or None, scheduler)
        assert relative_error(together[row : row + 1], alone) <= 1e-5


def test_denoise_leaves_no_graph_and_no_trace_in_the_model():
    model = tiny_transformer()
    before = copy.deepcopy(model.state_dict())
    result = sample(model, [0], None)
    assert not result.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"guidance_scale": 4.5}, "needs negative captions"),
        ({"captions": number_captions(0, 3)}, "3 captions for 2 latents"),
        ({"guidance_scale": 4.5, "negative_captions": number_captions(0, 1)}, "1 captions for 2 latents"),
    ],
)
def test_refusals(change, message):
    given = {
        "model": ClosedFormModel(lambda latents, timestep, caption: latents),
        "noise": torch.randn(2, 4, 4, 4),
        "captions": number_captions(0),
        "negative_captions": None,
        "scheduler": released_scheduler(),
        "num_steps": 2,
        "guidance_scale": 1.0,
    }
    with pytest.raises(InvalidInput, match=message):
        denoise(**(given | change))


def test_discard_without_a_generator_is_refused():
    with pytest.raises(InvalidInput, match="generator"):
        sample(tiny_transformer(KVCompression((2, 2), "discard", (0,))), [0], None)
