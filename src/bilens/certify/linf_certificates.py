"""Changes of every input entry by at most ε: a proven lower bound and an attack from above."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.directions import contrast_direction
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_type, generator_of
from bilens.base.errors import NumericalError
from bilens.base.frame import frame
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.certify.inputs import (
    RadiusStatus,
    Samples,
    crossed,
    crossing,
    margins,
    samples_of,
    statuses,
)
from bilens.certify.trust_region import EPS, SMALLEST, norm_of


@frozen_result()
class LinfRadius:
    """How far every entry of an input can move: radius ≤ true distance ≤ upper.

    The true distance in this norm is NP-hard to compute; the two bounds enclose it.

    Attributes:
        radius: (rows,), proven: no input with entries within it is lost; 0 where the input itself
            is lost or tied, inf where nothing is lost, NaN where the status is NOT_FINITE.
        upper: (rows,), max |example − x|; inf where the attack found nothing.
        example: (rows, in), an input that is lost, evaluated in float64; NaN where there is none.
        per_rival: (rows, out), the proven radius against each output alone; inf for the label.
        margin: (rows,), f_label − the largest other output, at x.
        status: one for each input; CERTIFIED says that there is an example.
    """

    radius: Tensor
    upper: Tensor
    example: Tensor
    per_rival: Tensor
    margin: Tensor
    status: tuple[RadiusStatus, ...]
    to_frame = frame("radius", "row")


def linf_radius(
    f: QuadraticMap,
    x: Tensor,
    label: Tensor | Sequence[int],
    seed: int | torch.Generator = 0,
    restarts: int = 4,
    steps: int = 20,
    *,
    memory_limit: int | str | None = None,
) -> LinfRadius:
    """Return bounds of the ℓ∞ distance of each input to the nearest one of another output.

    Math: for max|δ_i| ≤ ε, m(δ) ≥ m(0) − ε‖g‖₁ − ε²K, where K is the smaller one of
        Σ_{i≠j} |A_ij| + Σ_i max(0, −A_ii) and n·max(0, −λ_min): the radius is the positive root.
        It is sound and not exact: the exact problem is NP-hard. The attack repeats
        δ ← −t·sign(∇m(x + δ)), with t the exact crossing of that ray, from the slope at x and from
        random signs.
    Cost: for each pair of outputs O(hidden · in² + in³); each input and rival O(in²), and
        O(hidden · in) a step of the attack and restart. Memory O(in² + rows · (in + hidden)).

    Args:
        f: the map, any floating dtype; it is read in float64.
        x: (rows, in), any floating dtype. Rows that are not finite are flagged.
        label: (rows,), the output that should win.
        seed: of the signs that the attack starts from; or a generator, which goes on from where
            it is.
        restarts: how many starts the attack has, the first one along the slope at x.
        steps: of the attack from each start.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Raises: ShapeError if x or label has another shape or dtype; UsageError if a label is not an
        output, the map has one output, or a count is below 1; NumericalError if a difference of
        outputs is beyond float64; MemoryLimitError if it would not fit.
    Source: the bound: triangle inequality; the attack: projected gradient descent after A. Madry
        et al., arXiv:1706.06083.
    """
    check_type("f", f, QuadraticMap, "pass the map of a module, module.quadratic_map()")
    restarts = check_count("restarts", restarts, minimum=1)
    steps = check_count("steps", steps, minimum=1)
    check_room(f, x, memory_limit)
    generator = generator_of(seed)
    exact = f.detach().to(torch.float64)
    samples = samples_of(exact, x, label)
    per_rival = lower_bounds(exact, samples)
    example = example_found(exact, samples, generator, restarts, steps)
    upper = (example - samples.x).abs().amax(dim=1) * (1 + 4 * EPS)
    upper = upper.nan_to_num(torch.inf, posinf=torch.inf)
    radius, bad = per_rival.amin(dim=1), ~samples.usable
    return LinfRadius(
        radius.masked_fill(bad, torch.nan),
        upper.masked_fill(bad, torch.inf),
        example.masked_fill(bad[:, None], torch.nan),
        per_rival.masked_fill(bad[:, None], torch.nan),
        samples.margins.amin(dim=1).masked_fill(bad, torch.nan),
        statuses(samples, radius, upper),
    )


def check_room(f: QuadraticMap, x: Tensor, memory_limit: int | str | None) -> None:
    _, hidden, width = f.sizes
    rows = len(x) if isinstance(x, Tensor) and x.ndim else 0
    check_memory(
        8 * (6 * width**2 + rows * (10 * width + 8 * hidden)),
        f"ℓ∞ bounds of {rows} inputs of width {width}",
        "pass fewer inputs at a time",
        memory_limit,
        device=f.device,
    )


def example_found(
    f: QuadraticMap, samples: Samples, generator: torch.Generator, restarts: int, steps: int
) -> Tensor:
    """Return the nearest input of another output that the attack finds, (rows, in)."""
    stays = samples.stays[:, None]
    direction = attack(f, samples, generator, restarts, steps)
    example = crossed(f, samples.x, direction.masked_fill(stays, torch.nan), samples.label)
    return torch.where(stays, samples.x, example)


def lower_bounds(f: QuadraticMap, samples: Samples) -> Tensor:
    outputs = f.sizes.d_out
    bounds = torch.full_like(samples.margins, torch.inf)
    for own in sorted(set(samples.label[samples.usable].tolist())):
        rows = ((samples.label == own) & samples.usable).nonzero()[:, 0]
        for rival in set(range(outputs)) - {own}:
            bounds[rows, rival] = lower_bound(f, samples, rows, own, rival)
    return bounds


def lower_bound(f: QuadraticMap, samples: Samples, rows: Tensor, own: int, rival: int) -> Tensor:
    """Return the root of m(0) − ε‖g‖₁ − ε²K for some inputs and one rival, rounded down.

    What products below float64 lose is less than `SMALLEST` in each sum: that much is added where
    a product is not zero, and taken from the margin.
    """
    _, hidden, width = f.sizes
    form = f.form(contrast_direction(f.sizes.d_out, own, rival))
    matrix, b = form.matrix.dense(), form.linear
    weight = f.tensor.down[own].abs() + f.tensor.down[rival].abs()
    left, right = f.tensor.left.abs(), f.tensor.right.abs()
    half = (left.T * weight) @ right
    error = (hidden + 8) * EPS * (half + half.T)  # of each entry
    lost = SMALLEST * (1 + left.sum(dim=0)[:, None] + right.sum(dim=0))
    if bool((error < lost).any()):
        met = ((left > 0).double().T * (weight > 0)) @ (right > 0).double() > 0
        error += torch.where(met, lost, 0.0) + torch.where(met, lost, 0.0).T
    spread = matrix.abs() + error
    if not bool(spread.isfinite().all()):
        raise NumericalError(
            f"outputs {own} against {rival}: {Status.NOT_FINITE.value}; no certificate is given."
        )
    diagonal = (error.diagonal() - matrix.diagonal()).clamp_min(0)
    x = samples.x[rows]
    faint = SMALLEST * ((x != 0).double() @ (spread > 0).double() > 0)
    # No term is negative, so that a sum of n errs by n · eps/2 of itself at most, here twice.
    entries = spread.fill_diagonal_(0).sum(dim=1).sum() + diagonal.sum()
    # of the matrix, and of its eigensolver
    slack = norm_of(error.flatten()) + 1000 * EPS * norm_of(matrix.flatten())
    lowest = torch.linalg.eigvalsh(matrix)[0]
    curvature = torch.minimum(entries, width * (slack - lowest).clamp_min(0))
    curvature = curvature * (1 + (2 * width + 16) * EPS) + SMALLEST * (entries > 0)
    slope = (2 * (x @ matrix) + b).abs() + faint
    rounding = 2 * (x.abs() @ (error + (width + 8) * EPS * matrix.abs()))
    parts = 0.0 if f.linear is None else 4 * EPS * f.linear[[own, rival]].abs().sum(dim=0)
    total = (slope + rounding + parts + 4 * EPS * b.abs()).sum(dim=1) * (1 + (width + 16) * EPS)
    level = samples.margins[rows, rival] - samples.errors[rows, rival] - SMALLEST
    level = level.where(level > SMALLEST, 0.0)
    root = torch.hypot(total, 2 * curvature.sqrt() * level.sqrt())  # no square vanishes
    bound = 2 * level / (total + root) * (1 - 32 * EPS)
    return torch.where(level > 0, bound, 0.0)  # 0 / 0 where nothing moves


def attack(
    f: QuadraticMap, samples: Samples, generator: torch.Generator, restarts: int, steps: int
) -> Tensor:
    """Return, for each input, the signs along which another output takes over first, (rows, in)."""
    x, label = samples.x, samples.label
    best, nearest = torch.full_like(x, torch.nan), torch.full_like(x[:, 0], torch.inf)
    for start in range(restarts):
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        signs = downhill(f, x, label, signs) if start == 0 else signs
        for _ in range(steps):
            t = crossing(f, x, signs, label)
            closer = t < nearest
            best[closer], nearest[closer] = signs[closer], t[closer]
            reach = torch.where(t.isfinite(), t, nearest).nan_to_num(1.0, posinf=1.0)
            signs = downhill(f, x + reach[:, None] * signs, label, signs)
    return best


def downhill(f: QuadraticMap, x: Tensor, label: Tensor, signs: Tensor) -> Tensor:
    """Return −sign of the gradient of the smallest margin; `signs` where it is zero."""
    rival = margins(f, x, label).argmin(dim=1)
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    weight = down[label] - down[rival]
    slope = (weight * (x @ right.T)) @ left + (weight * (x @ left.T)) @ right
    if f.linear is not None:
        slope = slope + f.linear[label] - f.linear[rival]
    return torch.where(slope == 0, signs, -slope.sign())
