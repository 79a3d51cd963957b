"""Whether directions at the input of an MLP cause what an output latent goes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from bilens.api.trace_changes import Change
from bilens.interp.causal import Edit, ablation, causal_check, steering
from bilens.interp.records import CausalCheck, InputDirections
from bilens.nn.transformer import BilinearTransformer

MOST_BLOCKS = 64  # texts that are run


@dataclass(frozen=True, eq=False)
class Behaviour:
    """A difference of logits, at tokens with the behaviour and at tokens without.

    Attributes:
        model: the model.
        hook: where the MLP reads.
        blocks: (texts, length) that are run.
        high: tokens whose mean logit is compared ...
        low: ... with that of these.
        on: (n,), places with the behaviour, among texts · length.
        off: (n,), as many without.
        elsewhere: (texts, length) bool, tokens that have nothing to do with it, for the loss.
    """

    model: BilinearTransformer
    hook: str
    blocks: Tensor
    high: list[int]
    low: list[int]
    on: Tensor
    off: Tensor
    elsewhere: Tensor

    def measure(self, edit: Edit | None = None) -> tuple[Tensor, Tensor, float]:
        """Return the difference of logits at both kinds of places, and the loss elsewhere."""
        replace: Mapping[str, Edit] = {} if edit is None else {self.hook: edit}
        with torch.no_grad():
            logits, _ = self.model.run(self.blocks, replace=replace)
        logits = logits.float()
        difference = logits[..., self.high].mean(dim=-1) - logits[..., self.low].mean(dim=-1)
        losses = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), self.blocks[:, 1:].flatten(), reduction="none"
        ).view(len(self.blocks), -1)
        loss = float(losses[self.elsewhere[:, :-1]].double().mean())
        flat = difference.flatten().double()
        return flat[self.on], flat[self.off], loss


def causal_values(
    behaviour: Behaviour, change: Change, inputs: Tensor, generator: torch.Generator
) -> tuple[CausalCheck, ...]:
    """Return what happens when directions are removed, and when they are added.

    "ablate" sets coordinates to their mean. "steer" moves them by the mean difference between
    the places with the behaviour and those without, and is seen at the latter. Of a product that
    difference says nothing, as either factor may be the one that differs: "exchange" turns its
    sign around instead, and is seen there, too.

    Cost: 2 · (NUM_RANDOM + 1) + 1 runs of the model.

    Args:
        behaviour: what is looked at.
        change: what is done.
        inputs: (texts, length − 1, in), what the MLP read, without each first token.
        generator: draws resamples.

    Returns:
        Nothing where there is no behaviour to begin with.
    """
    rows = functional.pad(inputs, (0, 0, 1, 0)).flatten(0, 1)
    moved = rows[behaviour.on].mean(dim=0) - rows[behaviour.off].mean(dim=0)
    shift = moved @ change.along.readers.T
    on, off, loss = behaviour.measure()
    before = on - off.mean()
    if float(before.mean()) <= 0:
        return ()

    def removed(directions: InputDirections) -> tuple[Tensor, float]:
        left, level, loss_after = behaviour.measure(ablation(directions, change.where))
        return left - level.mean(), loss_after

    def created(directions: InputDirections) -> Tensor:
        if change.exchange is None:
            edit = steering(directions, shift, change.where)
        else:
            edit = change.exchange.edit(directions.patterns, change.where)
        return behaviour.measure(edit)[1] - off

    after, loss_after = removed(change.along)
    kind: Literal["steer", "exchange"] = "steer" if change.exchange is None else "exchange"
    size, losses = len(change.along.readers), (loss, loss_after)
    left = [removed(frame)[0] for frame in change.random]
    raised = [created(frame) for frame in change.random]
    return (
        causal_check("ablate", size, before, after, left, generator, losses),
        causal_check(kind, size, before, created(change.along), raised, generator),
    )
