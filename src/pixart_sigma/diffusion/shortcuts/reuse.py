"""Outputs of sublayers that are kept at one step of sampling and used again at later ones.

Legend: B batch (one branch of guidance or both), N image tokens, D width.

Each block's `forward` is replaced for the time of a sampling by one that computes the same from the block's own
layers, but asks first whether an output is to be computed. Outputs are kept for each branch of guidance. Where tokens
are worked on in pieces, what is kept is whole all the same: another step may have other pieces.

Put onto the model before anything that moves weights or tokens between devices, which then wraps this in turn: a
process of several keeps what belongs to its own band. Knows nothing of schedulers or of how a plan came about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from pixart_sigma.diffusion.sampling import POSITIVE, BeforeCall, Branches
from pixart_sigma.diffusion.shortcuts.plan import CROSS_ATTENTION, SUBLAYERS, StepPlan
from pixart_sigma.errors import InvalidInput
from pixart_sigma.model.blocks import TransformerBlock, modulated_norm
from pixart_sigma.model.pieces import cut, in_pieces
from pixart_sigma.model.transformer import PixArtTransformer

_SELF, _CROSS, _MLP = range(len(SUBLAYERS))


@contextmanager
def reusing(model: PixArtTransformer, plan: StepPlan) -> Iterator[BeforeCall | None]:
    """A model, used as the plan says until the end, when what was kept is let go.

    Gives what must be told of every call before it, as `denoise` does; None where the plan reuses nothing. Without
    gradients. Raises InvalidInput for blocks that are compiled, whose forward would not be replaced.
    """
    if plan.computed is None:
        yield None
        return
    check_plain(model)
    outputs = _Outputs(plan)
    try:
        for index, block in enumerate(model.transformer_blocks):
            block.forward = _forward(block, index, outputs)
        yield outputs.before_call
    finally:
        for block in model.transformer_blocks:
            block.__dict__.pop("forward", None)


class _Outputs:
    """What the sublayers made, by block and sublayer, then by the branches that were one batch."""

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan
        self._step = 0
        self._branches: Branches = (POSITIVE,)
        self._kept: dict[tuple[int, int], dict[Branches, Tensor]] = {}

    def before_call(self, step: int, branches: Branches) -> None:
        """Of the model: the step, from 0, and the branches in its batch."""
        before, now = self._plan.guided[self._step], self._plan.guided[step]
        if now and not before:
            self._kept.clear()  # everything is computed
        elif before and not now:
            self._end_guidance(frozen=step == self._plan.frozen_after)
        self._step, self._branches = step, branches

    def of(self, block: int, sublayer: int, compute: Callable[[], Tensor]) -> Tensor:
        """An output (B, N, D), computed or used again; not to be written to."""
        place = self._kept.setdefault((block, sublayer), {})
        if self._plan.computes(self._step, block, sublayer):
            place.pop(self._branches, None)  # before another is made: memory is needed for one of them
            output = compute()
        else:
            output = place.pop(self._branches)
        if self._plan.keeps(self._step, block, sublayer):
            place[self._branches] = output
        return output

    def _end_guidance(self, frozen: bool) -> None:
        """Only the positive branch goes on; frozen: with the mean of both branches' cross-attention, as in T-GATE."""
        for (_, sublayer), place in self._kept.items():
            parts = {
                branch: part
                for branches, output in place.items()
                for branch, part in zip(branches, output.chunk(len(branches)), strict=True)
            }
            place.clear()
            if frozen and sublayer == CROSS_ATTENTION:
                place[(POSITIVE,)] = sum(parts.values()) / len(parts)
            elif parts:
                # Another copy, or the other branch's half would stay with it.
                place[(POSITIVE,)] = parts[POSITIVE].clone()


def _forward(block: TransformerBlock, index: int, outputs: _Outputs) -> Callable[..., Tensor]:
    """`TransformerBlock.forward`, its three sublayers taken from the outputs."""

    def forward(
        tokens: Tensor,
        modulation: Tensor,
        caption_keys: Tensor,
        caption_values: Tensor,
        caption_mask: Tensor | None,
        grid: tuple[int, int],
        kept_tokens: Tensor | None = None,
    ) -> Tensor:
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.unsqueeze(2).unbind(1)

        def attended() -> Tensor:
            return block.attn1(modulated_norm(tokens, shift_attn, scale_attn), grid, kept_tokens)

        def crossed() -> Tensor:
            return _each(lambda some: block.attn2(some, caption_keys, caption_values, caption_mask), tokens)

        def made() -> Tensor:
            return _each(lambda some: block.ff(modulated_norm(some, shift_mlp, scale_mlp)), tokens)

        tokens = tokens + gate_attn * outputs.of(index, _SELF, attended)
        tokens += outputs.of(index, _CROSS, crossed)
        tokens += gate_mlp * outputs.of(index, _MLP, made)
        return tokens

    return forward


def _each(function: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """What the function makes of each of the tokens (B, N, D), in pieces where they are many → another tensor."""
    return in_pieces(function, tokens.clone() if cut(tokens) else tokens)


def check_plain(model: Any) -> None:
    """Raises InvalidInput for a transformer with blocks that are compiled, or whose forward was replaced."""
    blocks = [model, *model.transformer_blocks]
    if any(
        "forward" in vars(block)
        or getattr(block, "_compiled_call_impl", None) is not None
        or hasattr(block, "_orig_mod")
        for block in blocks
    ):
        raise InvalidInput(
            "outputs of blocks cannot be reused in a transformer that is compiled or placed elsewhere already; use it "
            "uncompiled, or leave out reuse_blocks and freeze_captions_after"
        )
