"""Changing a few directions of what an MLP reads, and what that does to a behaviour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.records import CausalCheck, InputDirections, Interval

Kind: TypeAlias = Literal["ablate", "steer", "exchange"]
Edit: TypeAlias = Callable[[Tensor], Tensor]  # (..., in), what an MLP reads → what it reads instead
Where: TypeAlias = Callable[[Tensor], Tensor]  # (..., in) → (...) bool, which inputs are changed

NUM_RESAMPLES = 2000
LEVELS = (0.025, 0.975)


def ablation(directions: InputDirections, where: Where) -> Edit:
    """Return an edit that sets the coordinates along the directions to their mean.

    Math: x ← x − patternsᵀ readers (x − mean). Everything that the MLP computes from these
        coordinates is gone, for every output, not for those that the directions come from alone.

    Args:
        directions: what to remove.
        where: which inputs; elsewhere nothing is touched.
    """

    def edit(x: Tensor) -> Tensor:
        readers, patterns, mean = (
            part.to(x) for part in (directions.readers, directions.patterns, directions.mean)
        )
        without = x - ((x - mean) @ readers.T) @ patterns
        return torch.where(where(x)[..., None], without, x)

    return edit


def steering(directions: InputDirections, shift: Tensor, where: Where) -> Edit:
    """Return an edit that moves the coordinates along the directions.

    Math: x ← x + patternsᵀ shift.

    Args:
        directions: along which to move.
        shift: (k,), in units of the coordinates.
        where: which inputs; elsewhere nothing is touched.

    Raises:
        ShapeError: If there is not one shift for each direction.
    """
    if tuple(shift.shape) != (len(directions.patterns),):
        raise ShapeError(
            f"shift has shape {tuple(shift.shape)}; one number for each of the "
            f"{len(directions.patterns)} directions was expected."
        )
    step = shift.to(directions.patterns) @ directions.patterns

    def edit(x: Tensor) -> Tensor:
        return torch.where(where(x)[..., None], x + step.to(x), x)

    return edit


def causal_check(
    kind: Kind,
    num_directions: int,
    before: Tensor,
    after: Tensor,
    random_after: Sequence[Tensor],
    generator: torch.Generator,
    losses: tuple[float, float] | None = None,
) -> CausalCheck:
    """Return the share of a behaviour that was removed or created, beside random directions.

    Math: "ablate": 1 − mean(after) / mean(before); otherwise mean(after) / mean(before). Intervals
        are percentiles of NUM_RESAMPLES bootstrap samples of the prompts, both sides resampled
        together.

    Args:
        kind: what was done.
        num_directions: how many directions were changed.
        before: (prompts,), the size of the behaviour in the unchanged model, in logits.
        after: (prompts,), "ablate": what is left of it; otherwise what came up of it.
        random_after: the same for random directions of the same norm, one (prompts,) each draw.
        generator: draws the resamples.
        losses: away from the behaviour, in nats a token, before and after.

    Raises:
        ShapeError: If there is not one number for each prompt.
        NonFiniteError: If one is NaN or infinite.
        UsageError: If there is no behaviour to begin with, or no random draw.
    """
    (num,) = check_float_tensor("before", before, num_axes=1)
    for part in (after, *random_after):
        if check_float_tensor("after", part, num_axes=1) != (num,):
            raise ShapeError(f"after has shape {tuple(part.shape)}; ({num},) was expected.")
    if num < 2 or not random_after or float(before.mean()) <= 0:
        raise UsageError(
            f"{num} prompts, {len(random_after)} random draws and a behaviour of "
            f"{float(before.mean()) if num else 0.0:.3g} logits; at least two prompts, one draw "
            "and a behaviour above zero were expected."
        )
    old, new = before.double(), after.double()
    random = torch.stack(
        [share_of(kind, old.mean(), part.double().mean()) for part in random_after]
    )
    picks = torch.randint(num, (NUM_RESAMPLES, num), generator=generator)
    olds, news = old[picks].mean(dim=1), new[picks].mean(dim=1)
    return CausalCheck(
        kind,
        num_directions,
        before=interval(old.mean(), olds),
        after=interval(new.mean(), news),
        share=interval(share_of(kind, old.mean(), new.mean()), share_of(kind, olds, news)),
        random_share=interval(random.mean(), random),
        num_random=len(random_after),
        loss_before=None if losses is None else losses[0],
        loss_after=None if losses is None else losses[1],
    )


def share_of(kind: Kind, before: Tensor, after: Tensor) -> Tensor:
    """Return the share that was removed, or created."""
    return 1 - after / before if kind == "ablate" else after / before


def interval(value: Tensor, draws: Tensor) -> Interval:
    """Return a number with the 2.5 % and 97.5 % quantiles of its draws."""
    low, high = draws.quantile(draws.new_tensor(LEVELS)).tolist()
    return Interval(float(value), low, high)
