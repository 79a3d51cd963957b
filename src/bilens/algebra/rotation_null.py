"""What spectra look like by chance: the rotation null of a factored map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count, check_dense_tensor, check_finite, check_float_tensor
from bilens.errors import ShapeError, UsageError


@dataclass(frozen=True, eq=False)
class RotationNull:
    """Spectra of a map whose right branch was rotated at random: the level of chance.

    Attributes:
        largest: (samples, directions), the largest eigenvalue (0 if none is positive).
        smallest: (samples, directions), the smallest eigenvalue (0 if none is negative).
        effective_rank: (samples, directions).
    """

    largest: Tensor
    smallest: Tensor
    effective_rank: Tensor

    @property
    def num_samples(self) -> int:
        """Number of random rotations."""
        return len(self.largest)

    def edges(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the lower and upper edge of chance, (directions,) each.

        The upper edge is the order statistic ⌈level·(samples + 1)⌉ of the largest eigenvalue: a
        map without alignment between its branches exceeds it with probability at most 1 − level.
        The lower edge is the mirror image. With too few samples for the level it is the extreme.

        Raises:
            UsageError: If the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise UsageError(f"level={level!r}: a number between 0 and 1 was expected.")
        rank = min(math.ceil(level * (self.num_samples + 1) - 1e-9), self.num_samples)
        upper = self.largest.sort(dim=0).values[rank - 1]
        lower = self.smallest.sort(dim=0, descending=True).values[rank - 1]
        return lower, upper

    def p_values(self, smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """Return one-sided p-values (1 + #{null as extreme}) / (samples + 1) for both ends.

        Args:
            smallest: (directions,), the smallest eigenvalue observed.
            largest: (directions,), the largest eigenvalue observed; NaN, from a form that was
                not decomposed, has the p-value 1.

        Raises:
            ShapeError: If there is not one eigenvalue for each direction.
        """
        for name, observed in (("smallest", smallest), ("largest", largest)):
            if check_dense_tensor(name, observed, num_axes=1) != self.largest.shape[1:]:
                raise ShapeError(
                    f"{name} has {len(observed)} entries; expected one for each of the "
                    f"{self.largest.shape[1]} directions."
                )
        beyond_low = (~(self.smallest > smallest)).sum(dim=0).double()  # NaN counts as within
        beyond_high = (~(self.largest < largest)).sum(dim=0).double()
        count = self.num_samples + 1
        return (1 + beyond_low) / count, (1 + beyond_high) / count


def rotation_null(
    f: QuadraticMap,
    directions: Tensor,
    generator: torch.Generator,
    num_samples: int = 99,
    progress: Callable[[int], None] | None = None,
) -> RotationNull:
    """Sample the spectra of f with right ← right·O, O a random rotation (Haar measure).

    The rotation keeps left, right and down each as they are, up to the basis of right, and
    destroys only how left and right are aligned. Unlike the Wigner edge or a permutation of
    entries, it declares no outlier in a purely random factored map. All directions share a
    rotation. Linear and constant terms take no part.

    Math: only O's action on the row space of right matters, a random orthonormal frame W; with
        the thin QR [left; T Wᵀ]ᵀ = Y S, the nonzero eigenvalues are those of S K Sᵀ,
        K = ½[[0, D], [D, 0]], at most 2·hidden wide.
    Cost: for each sample O(in · hidden²) time, and O(min(in, 2·hidden)³) for each direction.

    Args:
        f: the map.
        directions: (num, out), one output direction a row.
        generator: the source of randomness.
        num_samples: number of rotations; 99 gives p-values down to 0.01.
        progress: called with the number of samples done.

    Raises:
        ShapeError: If the directions do not have one entry for each output.
        NonFiniteError: If a direction holds NaN or infinity, or its form overflows.
        UsageError: If num_samples is less than 1.
    """
    num, d_out = check_float_tensor("directions", directions, num_axes=2)
    if d_out != f.sizes.d_out or num == 0:
        raise ShapeError(
            f"directions has shape {tuple(directions.shape)}; expected (num, {f.sizes.d_out}), "
            "one output direction a row."
        )
    check_count("num_samples", num_samples, minimum=1)
    f = f.detach().to(torch.float64)
    weights = directions.double() @ f.tensor.down
    corner = torch.linalg.qr(f.tensor.right.T, mode="r").R.T  # (hidden, rank): right = corner Vᵀ
    samples = []
    for done in range(num_samples):
        frame = random_frame(f.sizes.d_in, corner.shape[1], generator)
        samples.append(_spectra(f.tensor.left, corner @ frame.T, weights))
        if progress is not None:
            progress(done + 1)
    spectra = torch.stack(samples)  # (samples, directions, n)
    return RotationNull(
        spectra.amax(dim=-1).clamp(min=0.0),
        spectra.amin(dim=-1).clamp(max=0.0),
        effective_rank(spectra),
    )


def random_frame(d_in: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return `rank` orthonormal columns, (in, rank), distributed as the columns of a Haar O."""
    gauss = torch.randn(d_in, rank, generator=generator, dtype=torch.float64)
    columns, triangle = torch.linalg.qr(gauss)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # makes QR unique, thus Haar
    frame: Tensor = columns * signs
    return frame


def _spectra(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Return the nonzero spectra of ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for every row w of weights."""
    stacked = torch.linalg.qr(torch.cat([left, right]).T, mode="r").R
    left, right = stacked[:, : len(left)], stacked[:, len(left) :]
    halves = (left * weights[:, None, :]) @ right.T
    check_finite("the product of the factors", halves)
    spectra: Tensor = torch.linalg.eigvalsh((halves + halves.mT) / 2)
    return spectra
