"""One output of a map against another, in the eigenbasis of their difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from bilens.algebra.directions import contrast_direction
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_form import checked_vector
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import NumericalError, UsageError
from bilens.base.frame import frame
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.certify.trust_region import EPS, norm_of, solve_trust_region

STEP = 32  # eigenvalues of a pair are kept in multiples of it


@frozen_result()
class Contrast:
    """The margin m = f_first − f_second around any input, in coordinates where it is diagonal.

    Around x: m(x + δ) = m(x) + g·δ + δᵀAδ, with g = 2Ax + b. Here y = vectors δ, A = Σ λ_i
    vectors_i vectors_iᵀ, and what b has outside the range of A is one more coordinate with λ = 0.

    Attributes:
        first: the output that should win.
        second: its rival.
        values: λ, (k,), in units of the output per squared unit of the input.
        vectors: (k, in), orthonormal rows; k is in, or at most 2·hidden + 1, and less where many
            eigenvalues are not told from zero.
        linear: b in these coordinates, (k,).
        value_error: a bound on the spectral norm of what A differs by.
        linear_error: a bound on the norm of what b differs by.
        size: ‖A‖_F.
    """

    first: int
    second: int
    values: Tensor
    vectors: Tensor
    linear: Tensor
    value_error: float
    linear_error: float
    size: float

    def turned(self) -> Contrast:
        """Return the same pair with the roles exchanged: −m."""
        return replace(
            self, first=self.second, second=self.first, values=-self.values, linear=-self.linear
        )

    def gradient(self, x: Tensor) -> Tensor:
        """Return g in these coordinates, (rows, in) → (rows, k), in O(rows · k · in)."""
        return 2 * self.values * (x @ self.vectors.T) + self.linear

    def gradient_error(self, lengths: Tensor) -> Tensor:
        """Return a bound on the error of g for inputs of these lengths, (rows,)."""
        width = self.vectors.shape[1]
        matrix = self.value_error + (width + 8) * EPS * self.size
        return 2 * matrix * lengths + self.linear_error


@frozen_result()
class PairSpectra:
    """The contrasts of pairs of outputs of one map, made once and used for any input.

    Attributes:
        f: the map.
        contrasts: by (smaller output, larger output).
    """

    f: QuadraticMap
    contrasts: dict[tuple[int, int], Contrast]

    def contrast(self, first: int, second: int) -> Contrast:
        """Return m = f_first − f_second, in either order.

        Raises: UsageError if the pair was not prepared.
        """
        found = self.contrasts.get((min(first, second), max(first, second)))
        if found is None:
            raise UsageError(
                f"the pair of outputs {first} and {second} was not prepared: call "
                "certify.prepare(f), or name it in `pairs`."
            )
        return found if first < second else found.turned()


def prepare(
    f: QuadraticMap,
    pairs: Iterable[tuple[int, int]] | None = None,
    *,
    memory_limit: int | str | None = None,
) -> PairSpectra:
    """Return the eigendecompositions that certificates of a map need.

    Cost: one eigendecomposition a pair, O(hidden · in² + in³), or O(hidden³) where 2·hidden < in;
        8 · min(in, 2·hidden + 1) · in bytes a pair are kept.

    Args:
        f: the map, any floating dtype.
        pairs: pairs of outputs in any order; None for all of them, 45 for ten outputs.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Raises: UsageError if an output does not exist, or there is only one; NumericalError if a pair
        cannot be decomposed to the tolerance; MemoryLimitError if result or work would not fit.
    """
    check_type("f", f, QuadraticMap, "pass the map of a module, module.quadratic_map()")
    outputs, hidden, width = f.sizes
    chosen = combinations(range(outputs), 2) if pairs is None else pairs
    wanted = sorted({(min(pair), max(pair)) for pair in chosen})
    if pairs is None and not wanted:
        raise UsageError("the map has one output: a certificate needs a rival.")
    check_memory(
        8 * len(wanted) * width * min(width, 2 * hidden + 1),
        f"the spectra of {len(wanted)} pairs of outputs of width {width}",
        "name fewer `pairs`",
        memory_limit,
        device=f.device,
    )
    f = f.detach().to(torch.float64)
    return PairSpectra(f, {pair: contrast_of(f, *pair, memory_limit) for pair in wanted})


def contrast_of(
    f: QuadraticMap, first: int, second: int, memory_limit: int | str | None = None
) -> Contrast:
    outputs, hidden, width = f.sizes
    u = contrast_direction(outputs, first, second)
    factored = 2 * hidden < width
    eigs = eigendecompose_all(
        f,
        u[None],
        k=min(2 * hidden, width),
        method="factored" if factored else "dense",
        memory_limit=memory_limit,
    )[0]
    assert isinstance(eigs.status, Status), "one form has one status"
    if eigs.status is not Status.OK:
        raise NumericalError(
            f"outputs {first} against {second}: {eigs.status.value}; no certificate is given."
        )
    values, vectors, b = eigs.eigenvalues, eigs.eigenvectors, eigs.linear
    told = max(int((values.abs() > float(eigs.rounding_bound)).sum()), 1)  # from zero
    kept = min(-(-told // STEP) * STEP, len(values))
    left_out = float(values[kept:].abs().max()) if kept < len(values) else 0.0
    values, vectors = values[:kept], vectors[:kept]
    if kept < width:
        values, vectors = with_outside(values, vectors, b)
    linear = vectors @ b
    lengths = vectors.norm(dim=1) > 0
    gram = vectors @ vectors.T - torch.diag(lengths.double())
    skew = float(gram.norm()) + EPS * width * len(values)  # ‖V Vᵀ − I‖, its rounding at worst
    size, top = float(norm_of(values)), float(values.abs().max())
    apart = float(norm_of(b - linear @ vectors))
    rounding = EPS * (width + len(values)) * len(values) ** 0.5
    return Contrast(
        first,
        second,
        values,
        vectors,
        linear,
        value_error=2 * float(eigs.rounding_bound)
        + float(norm_of(eigs.residuals))
        + 3 * skew * top
        + left_out,
        linear_error=apart + (2 * rounding + 2 * skew) * float(norm_of(b)),
        size=size,
    )


def with_outside(values: Tensor, vectors: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs with one more: λ = 0, and the direction of b outside the others."""
    rest = b
    for _ in range(3):  # what is left of the others is subtracted again
        rest = rest - (vectors @ rest) @ vectors
    length = norm_of(rest)
    tiny = length <= 1e-12 * norm_of(b)
    direction = torch.zeros_like(rest) if bool(tiny) else rest / length
    return torch.cat([values, values.new_zeros(1)]), torch.cat([vectors, direction[None]])


@frozen_result()
class UniversalPerturbation:
    """The change of input that lowers the mean margin most, for each length allowed.

    Attributes:
        delta: (num, in), or (in,) where one radius was given; ‖delta‖ ≤ radius.
        change: (num,) or (), the mean margin with delta minus that without, not positive.
        lower: (num,) or (), no delta within the radius changes the mean margin by less than this.
        radius: (num,) or ().
        source: the output that should lose.
        target: the output that should win.
    """

    delta: Tensor
    change: Tensor
    lower: Tensor
    radius: Tensor
    source: int
    target: int
    to_frame = frame("change", "place")

    @property
    def gap(self) -> Tensor:
        """(change − lower) / |lower|: 0 is a proof that nothing does better."""
        return torch.where(self.lower == 0, 0.0, (self.change - self.lower) / -self.lower)


def universal_perturbation(
    f: QuadraticMap,
    mean: Tensor,
    source: int,
    target: int,
    radius: float | Sequence[float] | Tensor,
    *,
    memory_limit: int | str | None = None,
) -> UniversalPerturbation:
    """Return the δ that lowers the mean of f_source − f_target most, with its proof.

    Math: over any data with mean μ, E[m(x + δ) − m(x)] = (2Aμ + b)·δ + δᵀAδ, A = Q_source −
        Q_target: one trust-region problem. It is optimal for the *mean margin*, not for the share
        of inputs that flip. `lower` is its dual bound, less what rounding may do.
    Cost: one eigendecomposition, O(hidden · in² + in³), whatever the number of radii; then
        O(in²) a radius.

    Args:
        f: the map, any floating dtype; it is read in float64.
        mean: μ, (in,).
        source: the output that should lose.
        target: the output that should win.
        radius: how long δ may be, in units of the input; one or several.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Raises: ShapeError if the mean has another width; NonFiniteError if it, or a radius, is not
        finite; UsageError if source and target are not two outputs, or a radius is negative;
        NumericalError and MemoryLimitError as `prepare`.
    Source: as `solve_trust_region`.
    """
    check_type("f", f, QuadraticMap, "pass the map of a module, module.quadratic_map()")
    mu = checked_vector("mean", mean, f.sizes.d_in)
    radii = torch.as_tensor(radius, dtype=torch.float64, device=mu.device).detach()
    if radii.ndim > 1 or bool((radii < 0).any()):
        raise UsageError(f"radius must be one or several numbers of at least 0, got {radius!r}.")
    exact = f.detach().to(torch.float64)
    contrast = contrast_of(exact, source, target, memory_limit)
    levels = radii.reshape(-1)
    gradient = contrast.gradient(mu[None]).expand(len(levels), -1)
    found = solve_trust_region(contrast.values, gradient, levels)
    delta = found.point @ contrast.vectors
    length = delta.norm(dim=1) * (1 + (f.sizes.d_in + 8) * EPS)
    delta = delta * torch.where(length > levels, levels / length, 1.0)[:, None]
    error = contrast.gradient_error(mu.norm()[None]) * levels + contrast.value_error * levels**2
    shape = radii.shape
    return UniversalPerturbation(
        delta.reshape(*shape, -1),
        found.value.reshape(shape),
        (found.lower - error).reshape(shape),
        radii,
        contrast.first,
        contrast.second,
    )
