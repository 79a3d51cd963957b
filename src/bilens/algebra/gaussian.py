"""Gaussian inputs: covariances and their roots, whitened maps, moments of a map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.quadratic_form import checked_vector
from bilens.algebra.quadratic_map import QuadraticMap, basis_of
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

EPS = torch.finfo(torch.float64).eps
ROWS = 4096  # inputs that are widened at a time
MOST_STEPS = 200  # of a median
TOLERANCE = 1e-6  # of a median, in mean distances to the rows
SYMMETRY = 1e-6  # of the largest entry: what a covariance may deviate by, and be negative by


def mean_and_covariance(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return μ and Σ of inputs, (num, in) → (in,) and (in, in), with no copy of all in float64."""
    # In two passes, from the first row on: what is constant has exactly no variance.
    num, d_in = inputs.shape
    total, first = inputs.new_zeros(d_in, dtype=torch.float64), inputs[0].double()
    for start in range(0, num, ROWS):
        total += (inputs[start : start + ROWS].double() - first).sum(dim=0)
    mean = first + total / num
    covariance = total.new_zeros(d_in, d_in)
    for start in range(0, num, ROWS):
        centred = inputs[start : start + ROWS].double() - mean
        covariance += centred.T @ centred
    return mean, covariance / num


def geometric_median(x: Tensor) -> Tensor:
    """Return argmin_m Σ ‖x_b − m‖, (rows, n) → (n,), to about 10⁻⁶ of the mean distance."""
    # Math: Weiszfeld's iteration, the mean of the rows weighted by 1 / ‖x_b − m‖. A row at m has no
    # weight; it holds m back by the share that its own subgradient takes of the step.
    # Source: Vardi and Zhang, PNAS 97 (2000), 1423.
    num_rows, _ = check_float_tensor("x", x, num_axes=2)
    if num_rows == 0:
        raise ShapeError("x has no rows; a median needs at least one.")
    wide = x.detach().double()
    median = wide.mean(dim=0)
    for _ in range(MOST_STEPS):
        distances = (wide - median).norm(dim=1)
        scale = distances.mean()
        apart = distances > TOLERANCE * scale
        if not bool(apart.any()):
            break
        weights = torch.where(apart, 1 / distances.clamp(min=1e-300), 0)
        towards = weights @ wide / weights.sum()
        pull = weights.sum() * (towards - median).norm()
        held = min(1.0, float((~apart).sum()) / float(pull)) if bool(pull > 0) else 1.0
        step = (1 - held) * (towards - median)
        median = median + step
        if bool(step.norm() <= TOLERANCE * scale):
            break
    return median.to(x.dtype)


def checked_covariance(covariance: Tensor, d_in: int) -> Tensor:
    """Return a covariance of `d_in` inputs in float64, exactly symmetric."""
    check_shape("covariance", covariance, (d_in, d_in))
    covariance = covariance.detach().double()
    largest = float(covariance.abs().max())
    if float((covariance - covariance.T).abs().max()) > SYMMETRY * largest:
        raise UsageError("covariance is not symmetric: pass a covariance matrix of the inputs.")
    return (covariance + covariance.T) / 2


def correlation_parts(covariance: Tensor, d_in: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return deviations D, and eigenvalues (rising) and eigenvectors of the correlations D⁻¹ΣD⁻¹.

    Eigenvalues up to in · eps of the largest are rounding, and 0; an input without variance has 0.
    """
    covariance = checked_covariance(covariance, d_in)
    deviations = covariance.diagonal().clamp(min=0.0).sqrt()
    units = torch.where(deviations > 0, deviations, 1.0)
    correlation = covariance / units / units[:, None]
    values, columns = torch.linalg.eigh(correlation)
    if float(values.min()) < -SYMMETRY:
        least = float(torch.linalg.eigvalsh(covariance).min())
        if least < -SYMMETRY * float(covariance.abs().max()):
            raise UsageError(
                f"covariance has the eigenvalue {least:.3g}; none below zero was "
                "expected: pass a covariance matrix of the inputs."
            )
    return deviations, torch.where(values > d_in * EPS * values.max(), values, 0.0), columns


def covariance_root(covariance: Tensor, d_in: int) -> Tensor:
    """Return A with A Aᵀ = Σ, (in, in), each input in its own unit: row i is as exact as σ_i.

    Math: A = D R^½, D the deviations and R the correlations, as in `correlation_parts`.
    """
    deviations, values, columns = correlation_parts(covariance, d_in)
    root: Tensor = deviations[:, None] * ((columns * values.sqrt()) @ columns.T)
    return root


def symmetric_root(covariance: Tensor, d_in: int) -> Tensor:
    """Return Σ^½, (in, in), as A V Uᵀ from A = U S Vᵀ: its rows are as exact as A's."""
    root = covariance_root(covariance, d_in)
    columns, _, rows = torch.linalg.svd(root)
    turned: Tensor = root @ (rows.T @ columns.T)
    return turned


def whiten(f: QuadraticMap, covariance: Tensor, mean: Tensor | None = None) -> QuadraticMap:
    """Return z ↦ f(μ + Σ^½ z), whose spectra are those of Σ^½ Q Σ^½.

    They say how much each direction matters for inputs that vary as Σ says: for z ~ N(0, I), the
    variance of zᵀQ̃z is 2 Σλ̃². They do not change under an invertible x → Tx, Σ → TΣTᵀ.

    An eigenvector u reads the whitened input, and there are two ways back to x. The covector that
    reads x is Σ^{-½} u: u·z = (Σ^{-½} u)·(x − μ). The pattern of inputs is Σ^½ u: how x moves when
    z moves along u, and the covariance of x with u·z.

    Math: Σ^½ is the symmetric root. Directions in which the inputs do not vary vanish: eigenvalues
        of their correlations up to in · eps of the largest are rounding, and zero.
    Cost: O(in³ + hidden · in²) time. Memory of the order of Σ, the map and the result: about six
        (in, in) float64 arrays and two float64 copies of the factors.

    Args:
        f: the map.
        covariance: Σ, (in, in), symmetric, no eigenvalue below zero.
        mean: μ, (in,); None is zero.

    Returns: a map of float64 whose basis is "whitened" with a fingerprint of Σ and μ, and behind it
        the basis of f where that is not "input".
    Raises: ShapeError if Σ or μ does not fit the inputs; NonFiniteError if one holds NaN or
        infinity; UsageError if Σ is not symmetric, or has an eigenvalue below zero.
    Source: the metric of a covariance; see docs/math.md.
    """
    check_type("f", f, QuadraticMap, "pass a QuadraticMap")
    d_in = f.sizes.d_in
    root = symmetric_root(covariance, d_in)
    if mean is not None:
        mean = checked_vector("mean", mean, d_in)
    name = basis_of("whitened", covariance, *() if mean is None else (mean,))
    if f.basis != "input":  # the same Σ in other coordinates whitens otherwise
        name += f" of {f.basis}"
    return f.detach().to(torch.float64).compose_input(root, mean, basis=name)


@frozen_result()
class GaussianMoments:
    """Moments of f(x) for x ~ N(μ, Σ), exact up to rounding.

    Attributes:
        mean: (out,) float64, E f(x).
        variance: (out,) float64, Var f(x).
    """

    mean: Tensor
    variance: Tensor
    to_frame = frame("mean", "output")


def gaussian_moments(f: QuadraticMap, mean: Tensor, covariance: Tensor) -> GaussianMoments:
    """Return mean and variance of every output for inputs x ~ N(μ, Σ); arguments as in `whiten`.

    Math: E q = tr QΣ + μᵀQμ + b·μ + c and Var q = 2 tr(QΣQΣ) + gᵀΣg, g = 2Qμ + b. In whitened
        coordinates, z ~ N(0, I), these are tr Q̃ + c̃ and 2‖Q̃‖_F² + ‖b̃‖².
    Cost: O(in³ + hidden · in² + hidden² · (in + out)) time, memory as `whiten`.
    Raises: as `whiten`.
    Source: A. M. Mathai, S. B. Provost, Quadratic Forms in Random Variables (1992).
    """
    check_type("f", f, QuadraticMap, "pass a QuadraticMap")
    d_in = f.sizes.d_in
    root, centre = covariance_root(covariance, d_in), checked_vector("mean", mean, d_in)
    white = f.detach().to(torch.float64).compose_input(root, centre)
    average = white.tensor.traces()
    if white.constant is not None:
        average = average + white.constant
    tensor = white.tensor
    variance = 2 * squared_norms(tensor.down, tensor.left, tensor.right)
    if white.linear is not None:
        variance = variance + white.linear.square().sum(dim=1)
    return GaussianMoments(average, variance)


@dataclass(frozen=True, eq=False)
class GaussianInput:
    """x ~ N(μ, Σ)."""

    mean: Tensor  # μ, (in,) float64
    root: Tensor | None  # A with A Aᵀ = Σ, (in, in) float64; None for Σ = I
    about: str  # what it is, for people

    @classmethod
    def from_moments(
        cls,
        d_in: int,
        mean: Tensor | None = None,
        covariance: Tensor | None = None,
        device: torch.device | None = None,
    ) -> GaussianInput:
        """Return the input with a given mean (None is zero) and covariance (None is I)."""
        centre = torch.zeros(d_in, dtype=torch.float64, device=device)
        if mean is not None:
            centre = checked_vector("mean", mean, d_in).to(device or mean.device)
        root = None if covariance is None else symmetric_root(covariance, d_in).to(centre.device)
        given = [
            name for name, part in (("mean", mean), ("covariance", covariance)) if part is not None
        ]
        about = f"normal input with the given {' and '.join(given)}" if given else ""
        return cls(centre, root, f"a {about or 'standard normal input'}")

    @classmethod
    def of_data(cls, data: Tensor) -> GaussianInput:
        if len(data) < 2:
            raise UsageError(f"data have {len(data)} row(s): a covariance needs two or more.")
        wide = data.detach().double()
        mean, covariance = mean_and_covariance(wide)
        covariance *= len(wide) / (len(wide) - 1)
        about = f"a normal input with mean and covariance of {len(wide):,} rows of data"
        return cls(mean, covariance_root(covariance, wide.shape[1]), about)

    @property
    def d_in(self) -> int:
        return len(self.mean)

    def spread(self, rows: Tensor) -> Tensor:
        """Return rows·A, whose inner products are covariances of what the rows read."""
        return rows if self.root is None else rows @ self.root

    def times_covariance(self, rows: Tensor) -> Tensor:
        return rows if self.root is None else rows @ self.root @ self.root.T

    def deviations(self, rows: Tensor) -> Tensor:
        """Return the standard deviation of what each row reads; below its rounding it is zero."""
        # What rounding leaves of a constant must not be taken for a very narrow distribution.
        size: Tensor = torch.linalg.vector_norm(self.spread(rows), dim=1)
        if self.root is None:
            return size
        rounding = 16 * self.d_in * EPS * rows.abs() @ self.root.norm(dim=1)
        return torch.where(size > rounding, size, 0.0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        z = torch.randn(count, self.d_in, generator=generator, dtype=torch.float64)
        z = z.to(self.mean)
        return self.mean + (z if self.root is None else z @ self.root.T)


class RowMoments(NamedTuple):
    """Moments of rows of n inputs, in float64."""

    mean: Tensor  # (n,)
    covariance: Tensor  # (n, n)
    kurtosis: Tensor  # (n,), E z⁴ / (E z²)² around the mean; 3 for a normal input, NaN if constant
    norms: Tensor  # (rows,), ‖x‖


def row_moments(batches: Iterable[Tensor]) -> RowMoments:
    """Return the moments of rows, (any, n) and at least one in all; none is kept."""
    # Math: power sums of z = x − s, s the mean of the first batch with rows, so that little
    # cancels; with m = E z, E (z − m)⁴ = E z⁴ − 4 m E z³ + 6 m² E z² − 3 m⁴.
    shift, norms = torch.zeros(()), list[Tensor]()
    powers = second = torch.zeros((), dtype=torch.float64)
    for x in (batch.detach().double() for batch in batches if len(batch)):  # an expert may rest
        z = x - (shift := shift if norms else x.mean(dim=0))
        powers = powers + torch.stack([z.pow(power).sum(dim=0) for power in (1, 3, 4)])
        second = second + z.T @ z
        norms.append(x.norm(dim=1))
    if not norms:
        raise UsageError("there are no rows: moments need one or more.")
    m, third, fourth = powers / sum(map(len, norms))
    square = second / sum(map(len, norms))
    covariance, mean = square - torch.outer(m, m), shift + m
    moving = covariance.diagonal() > torch.finfo(m.dtype).eps * mean.square()
    variance = torch.where(moving, covariance.diagonal(), torch.nan)
    central = fourth - 4 * m * third + 6 * m.square() * square.diagonal() - 3 * m.pow(4)
    return RowMoments(mean, covariance, central / variance.square(), torch.cat(norms))
