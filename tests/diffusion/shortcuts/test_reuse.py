"""Outputs that are used again: equal where all are computed, by hand where they are not, and work that is saved."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from comparison import relative_error
from peaks import peak_allocated
from pixart_sigma.diffusion import denoise
from pixart_sigma.diffusion.sampling import NEGATIVE, POSITIVE
from pixart_sigma.diffusion.shortcuts.plan import ReuseSchedule, StepPlan, make_plan
from pixart_sigma.diffusion.shortcuts.reuse import reusing
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model import KVCompression, PixArtTransformer, TransformerConfig
from pixart_sigma.model import activation_memory as memory

BLOCKS = 3
SUBLAYERS = ("attn1", "attn2", "ff")
ALL, NONE = (True,) * 3, (False,) * 3


def tiny(compression: KVCompression | None = None) -> PixArtTransformer:
    torch.manual_seed(0)
    model = PixArtTransformer(
        TransformerConfig(
            num_layers=BLOCKS,
            num_attention_heads=2,
            attention_head_dim=8,
            sample_size=8,
            caption_channels=12,
            interpolation_scale=1.0,
            kv_compression=compression,
        )
    ).eval()
    for block in model.transformer_blocks:
        block.attn2.to_out[0].weight.data *= 20  # so that captions count
    return model


def sample(model: PixArtTransformer, plan: StepPlan | None, num_steps: int = 6, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 4, 6, 8, generator=generator)
    embeds = torch.randn(2, 9, 12, generator=generator)
    scale = options.pop("guidance_scale", 4.5)
    with torch.no_grad(), reusing(model, plan or StepPlan((scale > 1,) * num_steps)) as before_call:
        return denoise(
            model,
            noise,
            model.prepare_captions(embeds, torch.arange(9) < torch.tensor([[9], [4]])),
            model.prepare_captions(torch.ones(2, 1, 12), torch.ones(2, 1)),
            DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            num_steps,
            scale,
            guided_steps=plan and plan.guided,
            before_call=before_call,
            **options,
        )


@contextmanager
def counted(model: PixArtTransformer) -> Iterator[dict[str, list[int]]]:
    """The batch of each evaluation of each kind of sublayer."""
    batches: dict[str, list[int]] = {name: [] for name in SUBLAYERS}
    hooks = [
        block.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: batches[name].append(len(inputs[0]))
        )
        for block in model.transformer_blocks
        for name in SUBLAYERS
    ]
    yield batches
    for hook in hooks:
        hook.remove()


@pytest.fixture(params=[False, True], ids=["whole", "cut"])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(memory, "MANY_ROWS", 20)
        monkeypatch.setattr(memory, "PIECE_ROWS", 15)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "plan",
    [
        make_plan(6, True, reuse=ReuseSchedule.every(1, 6, BLOCKS), num_blocks=BLOCKS),
        make_plan(6, True, (0.0, 1.0)),
        make_plan(6, True, frozen_after=6),
    ],
    ids=["every step", "all guided", "frozen at the end"],
)
def test_where_nothing_is_left_out_latents_are_equal(plan: StepPlan, together: bool) -> None:
    model = tiny()
    assert torch.equal(
        sample(model, plan, branches_together=together), sample(model, None, branches_together=together)
    )
    assert not any("forward" in vars(block) for block in model.transformer_blocks)


MIXED = ReuseSchedule(
    (
        (ALL, ALL, ALL),
        ((True, False, False), NONE, (False, True, True)),
        (NONE, (False, True, False), (True, False, False)),
        (ALL, NONE, (False, False, True)),
        (NONE, ALL, NONE),
        ((False, True, False), NONE, ALL),
    ),
    "mixed",
)
PLANS = {
    "every second": make_plan(6, True, reuse=ReuseSchedule.every(2, 6, BLOCKS), num_blocks=BLOCKS),
    "mixed": make_plan(6, True, reuse=MIXED, num_blocks=BLOCKS),
    "frozen": make_plan(6, True, frozen_after=3, num_blocks=BLOCKS),
    "interval": make_plan(6, True, (0.3, 0.7)),
    "interval, mixed": make_plan(6, True, (0.3, 0.7), reuse=MIXED, num_blocks=BLOCKS),
    "all": make_plan(6, True, (0.1, 0.7), 5, ReuseSchedule.every(4, 6, BLOCKS), BLOCKS),
    "frozen, mixed": make_plan(6, True, frozen_after=4, reuse=MIXED, num_blocks=BLOCKS),
}


class ByHand:
    """The same plan on whole tensors, one branch after the other, every output of every step remembered."""

    def __init__(self, model: PixArtTransformer, plan: StepPlan) -> None:
        self.model, self.plan = model, plan
        self.made: dict[tuple[str, int, int], Tensor] = {}
        self.step, self.branch = 0, POSITIVE

    config = property(lambda self: self.model.config)

    def prepare_timesteps(self, *inputs: Any) -> Any:
        return self.model.prepare_timesteps(*inputs)

    def before_call(self, step: int, branches: tuple[str, ...]) -> None:
        (branch,) = branches
        if step == self.plan.frozen_after and step != self.step and self.plan.guided[step - 1]:
            for block in range(BLOCKS):
                both = [self.made[one, block, 1] for one in (NEGATIVE, POSITIVE)]
                self.made[POSITIVE, block, 1] = torch.stack(both).mean(0)
        self.step, self.branch = step, branch

    def __call__(self, latents: Tensor, captions: Any, timesteps: Any, kept_tokens: Any) -> Tensor:
        tokens, grid = self.model.embed_latents(latents)
        for index, block in enumerate(self.model.transformer_blocks):
            rows = timesteps.blocks[index].unsqueeze(2).unbind(1)
            tokens = tokens + rows[2] * self.made_by(
                index,
                0,
                lambda tokens, block=block, rows=rows: block.attn1(_normed(tokens, *rows[:2]), grid, None),
                tokens,
            )
            given = captions.keys[index], captions.values[index], captions.mask
            tokens = tokens + self.made_by(
                index, 1, lambda tokens, block=block, given=given: block.attn2(tokens, *given), tokens
            )
            tokens = tokens + rows[5] * self.made_by(
                index, 2, lambda tokens, block=block, rows=rows: block.ff(_normed(tokens, *rows[3:5])), tokens
            )
        return self.model.read_out(tokens, timesteps.output, grid)

    def made_by(self, block: int, sublayer: int, make: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        if self.plan.computes(self.step, block, sublayer):
            self.made[self.branch, block, sublayer] = make(tokens)
        return self.made[self.branch, block, sublayer]


def _normed(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("name", PLANS)
def test_outputs_are_those_of_the_step_and_branch_that_made_them(name: str) -> None:
    model, plan = tiny(), PLANS[name]
    by_hand = ByHand(model, plan)
    generator = torch.Generator().manual_seed(1)
    noise, embeds = (torch.randn(shape, generator=generator) for shape in ((2, 4, 6, 8), (2, 9, 12)))
    expected = denoise(
        by_hand,
        noise,
        model.prepare_captions(embeds, torch.arange(9) < torch.tensor([[9], [4]])),
        model.prepare_captions(torch.ones(2, 1, 12), torch.ones(2, 1)),
        DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
        6,
        4.5,
        guided_steps=plan.guided,
        before_call=by_hand.before_call,
        branches_together=False,
    )
    exact = sample(model, None)
    assert relative_error(expected, exact) > 1e-3
    for together in (True, False):
        assert relative_error(sample(model, plan, branches_together=together), expected) <= 1e-5


def test_work_is_saved() -> None:
    model = tiny()
    with counted(model) as exact:
        sample(model, None)
    assert exact == dict.fromkeys(SUBLAYERS, [4] * 6 * BLOCKS)
    with counted(model) as interval:
        sample(model, PLANS["interval"])
    batches = [2] * 2 * BLOCKS + [4] * 2 * BLOCKS + [2] * 2 * BLOCKS
    assert interval == dict.fromkeys(SUBLAYERS, batches)
    with counted(model) as every_second:
        sample(model, PLANS["every second"])
    assert every_second == dict.fromkeys(SUBLAYERS, [4] * 3 * BLOCKS)
    with counted(model) as frozen:
        sample(model, PLANS["frozen"])
    assert frozen["attn2"] == [4] * 3 * BLOCKS
    assert frozen["attn1"] == frozen["ff"] == [4] * 3 * BLOCKS + [2] * 3 * BLOCKS


def test_without_guidance_outputs_are_reused_too() -> None:
    model = tiny()
    plan = make_plan(6, False, frozen_after=2, reuse=ReuseSchedule.every(3, 6, BLOCKS), num_blocks=BLOCKS)
    with counted(model) as batches:
        sample(model, plan, guidance_scale=1.0)
    # Cross-attention at the second step too: it is computed for the last time there.
    assert batches == dict.fromkeys(SUBLAYERS, [2] * 2 * BLOCKS)


@pytest.mark.parametrize("operator", ["average", "discard"])
def test_compressed_keys_and_values_go_with_it(operator: Any) -> None:
    model = tiny(KVCompression((2, 2), operator, (1, 2)))
    generators = [[torch.Generator().manual_seed(row) for row in range(2)] for _ in range(2)]
    plan = make_plan(6, True, reuse=ReuseSchedule.every(1, 6, BLOCKS), num_blocks=BLOCKS)
    exact, through = (
        sample(model, one, generator=given) for one, given in zip((None, plan), generators, strict=True)
    )
    assert torch.equal(exact, through)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", ["mixed", "interval, mixed", "all"])
def test_no_more_is_kept_than_planned(name: str, together: bool) -> None:
    """Counted in outputs of one picture and branch, of those that a sublayer made and that are still there."""
    model, plan = tiny(), PLANS[name]
    alive: dict[int, weakref.ref[Tensor]] = {}
    most = 0

    def note(_: Any, __: Any, output: Tensor) -> None:
        alive[len(alive)] = weakref.ref(output)

    def look(*_: Any) -> None:
        nonlocal most
        most = max(most, sum(len(one) for reference in alive.values() if (one := reference()) is not None))

    for block in model.transformer_blocks:
        for sublayer in SUBLAYERS:
            block.get_submodule(sublayer).register_forward_hook(note)
    sample(model, plan, branches_together=together, on_step=look)
    assert 0 < most <= 2 * plan.most_kept  # of two pictures
    assert sum(reference() is not None for reference in alive.values()) == 0


@pytest.mark.parametrize("cutting", [False, True])
def test_memory_is_that_of_a_call_and_what_is_kept(cutting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if cutting:
        monkeypatch.setattr(memory, "MANY_ROWS", 500)
        monkeypatch.setattr(memory, "PIECE_ROWS", 200)
    model, plan, grid = tiny(), PLANS["every second"], (20, 20)
    captions = model.prepare_captions(torch.randn(2, 9, 12), torch.ones(2, 9))
    timesteps = model.prepare_timesteps(torch.tensor([500.0]))
    latents = torch.randn(2, 4, 40, 40)

    def some_steps() -> None:
        with torch.no_grad(), reusing(model, plan) as before_call:
            assert before_call is not None
            for step in range(3):
                before_call(step, (NEGATIVE, POSITIVE))
                model(latents, captions, timesteps)

    kept = plan.most_kept * grid[0] * grid[1] * model.config.width * 4
    predicted = memory.activation_bytes(model.config, grid, 2, 4) + kept
    assert 0.75 * predicted < peak_allocated(some_steps) < 1.02 * predicted


def test_what_was_put_onto_the_model_goes_after_an_error() -> None:
    model = tiny()
    plan = PLANS["mixed"]
    with pytest.raises(ZeroDivisionError):
        sample(model, plan, on_step=lambda step: 1 // (3 - step.done))
    assert not any("forward" in vars(block) for block in model.transformer_blocks)
    assert torch.equal(sample(model, plan), sample(model, plan))


@pytest.mark.parametrize("how", ["forward", "block", "model"])
def test_a_compiled_model_is_refused(how: str) -> None:
    model = tiny()
    if how == "forward":
        model.transformer_blocks[1].forward = torch.compile(
            model.transformer_blocks[1].forward, backend="eager"
        )
    elif how == "block":
        model.transformer_blocks[2].compile(backend="eager")
    else:
        model.compile(backend="eager")
    with (
        pytest.raises(
            InvalidInput, match=r"^outputs of blocks cannot be reused in a transformer that is compiled"
        ),
        reusing(model, PLANS["mixed"]),
    ):
        pass
    with reusing(model, PLANS["interval"]) as before_call:  # puts nothing onto it
        assert before_call is None


def test_a_plan_of_other_steps_than_the_schedulers_is_refused() -> None:
    with pytest.raises(InvalidInput, match="guided_steps has 5 for the scheduler's 6; give as many"):
        sample(tiny(), make_plan(5, True))
