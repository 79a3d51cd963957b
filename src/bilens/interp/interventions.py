"""Changing a few directions of what an MLP reads, and what that does to a behaviour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from bilens.algebra.directions import contrast_direction
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_float_tensor
from bilens.base.errors import UsageError
from bilens.interp.random_dictionaries import LEVEL, chance_of
from bilens.records.common import Interval
from bilens.records.mlp_trace import CausalCheck

Kind: TypeAlias = Literal["ablate", "steer", "sign_flip"]
Edit: TypeAlias = Callable[[Tensor], Tensor]  # (..., in), what an MLP reads → what it reads instead
Where: TypeAlias = Callable[[Tensor], Tensor]  # (..., in) → (...) bool, which inputs are changed

NUM_RESAMPLES = 2000
LEVELS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class InputDirections:
    """A few directions of the input of an MLP: how they are read, how inputs move along them."""

    readers: Tensor  # (k, in)
    patterns: Tensor  # (k, in)
    mean: Tensor  # (in,), of the inputs that the directions come from
    eigenvalues: Tensor  # (k,), in units of the output, for coordinates of unit variance


def ablation(directions: InputDirections, where: Where) -> Edit:
    """Return an edit that sets the coordinates along the directions to their mean."""

    def edit(x: Tensor) -> Tensor:
        readers, patterns, mean = (
            part.to(x) for part in (directions.readers, directions.patterns, directions.mean)
        )
        without = x - ((x - mean) @ readers.T) @ patterns
        return torch.where(where(x)[..., None], without, x)

    return edit


def steering(directions: InputDirections, shift: Tensor, where: Where) -> Edit:
    """Return an edit that moves the coordinates along the directions."""
    check_shape("shift", shift, (len(directions.patterns),), advice="one number a direction")
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
    null: Sequence[float | None] | None = None,
) -> CausalCheck:
    """Return the share of a behaviour that was removed or created, beside random directions.

    `null` are the shares of the same steps in random dictionaries, None where one has no such
    behaviour. Only beside them can a share be confirmed.
    """
    (num,) = check_float_tensor("before", before, num_axes=1)
    for part in (after, *random_after):
        check_shape("after", part, (num,))
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
    before_interval, by_chance = interval(old.mean(), olds), interval(random.mean(), random)
    share = interval(share_of(kind, old.mean(), new.mean()), share_of(kind, olds, news))
    confirmed = None
    if null is not None:
        beyond = before_interval.low > 0 and share.low > by_chance.high
        confirmed = beyond and chance_of(share.value, null) <= LEVEL
    return CausalCheck(
        kind,
        num_directions,
        before=before_interval,
        after=interval(new.mean(), news),
        share=share,
        random_share=by_chance,
        num_random=len(random_after),
        loss_before=None if losses is None else losses[0],
        loss_after=None if losses is None else losses[1],
        null_shares=None if null is None else tuple(one for one in null if one is not None),
        num_null=None if null is None else len(null),
        confirmed=confirmed,
    )


def share_of(kind: Kind, before: Tensor, after: Tensor) -> Tensor:
    """Compute 1 − after / before, what an ablation removes; after / before for other kinds."""
    return 1 - after / before if kind == "ablate" else after / before


def interval(value: Tensor, draws: Tensor) -> Interval:
    """Return a number with the 2.5 % and 97.5 % quantiles of its draws."""
    low, high = draws.quantile(draws.new_tensor(LEVELS)).tolist()
    return Interval(float(value), low, high)


@dataclass(frozen=True, eq=False)
class SignFlip:
    """Two directions of opposed eigenvalues; trading their coordinates turns a product around."""

    along: InputDirections
    centre: Tensor  # (2,), the coordinates at which what they contribute is stationary
    sign: float  # ±1, of the traded coordinates

    def edit(self, patterns: Tensor, where: Where) -> Edit:
        """Return an edit after which the directions contribute the opposite."""
        check_shape("patterns", patterns, self.along.patterns.shape)
        ratio = self.sign * (self.along.eigenvalues[1].abs() / self.along.eigenvalues[0]).sqrt()

        def edit(x: Tensor) -> Tensor:
            readers, mean = self.along.readers.to(x), self.along.mean.to(x)
            c = (x - mean) @ readers.T - self.centre.to(x)
            traded = torch.stack([ratio.to(x) * c[..., 1], c[..., 0] / ratio.to(x)], dim=-1)
            moved = x + (traded - c) @ patterns.to(x)
            return torch.where(where(x)[..., None], moved, x)

        return edit


def sign_flip(g: QuadraticMap, first: int, second: int, along: InputDirections) -> SignFlip:
    """Return how to turn around what two opposed directions add to g_a − g_b."""
    values = along.eigenvalues
    if len(values) != 2 or not float(values[0]) > 0 > float(values[1]):
        raise UsageError(
            f"the directions have the eigenvalues {values.tolist()}; one above zero and then one "
            "below were expected."
        )
    difference = contrast_direction(g.sizes.d_out, first, second)
    with torch.no_grad():
        form = g.detach().to(torch.float64).form(difference)
        slope = (form(along.mean + along.patterns) - form(along.mean - along.patterns)) / 2
    centre = -slope / (2 * values)
    return SignFlip(along, centre, -1.0 if float(centre.prod()) < 0 else 1.0)
