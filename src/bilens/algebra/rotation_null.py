"""What spectra look like by chance: the rotation null of a factored map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import (
    check_count,
    check_dense_tensor,
    check_finite,
    check_float_tensor,
    check_type,
)
from bilens.errors import ShapeError, UsageError


@dataclass(frozen=True, eq=False)
class RotationNull:
    """Spectra of a map whose right branch was rotated at random: the level of chance.

    The hypothesis: the right branch of the layer is distributed the same in every rotated basis,
    whatever the left branch is, as it is where the weights are drawn at random.

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

        The upper edge is the order statistic ⌈level·(samples + 1)⌉ of the largest eigenvalue:
        under the hypothesis it is exceeded with probability at most 1 − level, exactly that where
        (1 − level)(samples + 1) is a whole number. The lower edge is the mirror image, at a level
        of its own. With too few samples for the level, the edge is the extreme of the samples
        and the probability 1 / (samples + 1).

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
    embedding: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> RotationNull:
    """Sample the spectra of a layer with right ← right·O, O a random rotation (Haar measure).

    The rotation keeps left, right and down each as they are, up to the basis of right, and
    destroys only how left and right are aligned. Unlike the Wigner edge or a permutation of
    entries, it declares outliers in a purely random factored map at its level only. All
    directions share a rotation. Linear and constant terms take no part.

    **Behind an embedding.** Branches that read one embedding E share its row space and its
    stretching, trained or not. Rotating left·E and right·E against each other would destroy that
    too, and call every random classifier aligned. So f is the layer as it stands behind E, O
    turns there, and the spectra are those of Eᵀ Q E, in the basis before E.

    The level depends on what the function does not determine: which branch of a neuron is called
    left, and, behind an embedding, the basis it is written in.

    Math: only O's action on the row space of right matters, a random orthonormal frame W: with
        right = T Vᵀ (thin QR), right·O is distributed as T Wᵀ. With Eᵀ = Y S the nonzero
        eigenvalues of Eᵀ Q E are those of S Q Sᵀ. If 2·hidden is less than the width, a second
        thin QR of both branches leaves a problem of that size.
    Cost: for each sample O(in · hidden²) time, and O(min(in, 2·hidden)³) for each direction, in
        the width of the layer.

    Args:
        f: the layer, in the space in which its right branch is rotated.
        directions: (num, out), one output direction a row.
        generator: the source of randomness.
        num_samples: number of rotations; 99 gives p-values down to 0.01.
        embedding: E, (in, in'), in front of the layer; None where there is none.
        progress: called with the number of samples done.

    Raises:
        ShapeError: If directions or embedding do not fit the map.
        NonFiniteError: If one of them holds NaN or infinity, or a form overflows.
        UsageError: If num_samples is less than 1, or f or generator is something else.

    Source: the null follows the gauge freedom of the factors; see docs/math.md.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    check_type("generator", generator, torch.Generator, "use torch.Generator().manual_seed(0)")
    num, d_out = check_float_tensor("directions", directions, num_axes=2)
    if d_out != f.sizes.d_out or num == 0:
        raise ShapeError(
            f"directions has shape {tuple(directions.shape)}; expected (num, {f.sizes.d_out}), "
            "one output direction a row."
        )
    check_count("num_samples", num_samples, minimum=1)
    f = f.detach().to(torch.float64)
    corner_before = None if embedding is None else embedding_corner(f, embedding)

    def before_embedding(rows: Tensor) -> Tensor:
        return rows if corner_before is None else rows @ corner_before

    weights = directions.double() @ f.tensor.down
    corner = torch.linalg.qr(f.tensor.right.T, mode="r").R.T  # (hidden, rank): right = corner Vᵀ
    left = before_embedding(f.tensor.left)
    samples = []
    for done in range(num_samples):
        frame = random_frame(f.sizes.d_in, corner.shape[1], generator)
        samples.append(_spectra(left, corner @ before_embedding(frame.T), weights))
        if progress is not None:
            progress(done + 1)
    spectra = torch.stack(samples)  # (samples, directions, n)
    return RotationNull(
        spectra.amax(dim=-1).clamp(min=0.0),
        spectra.amin(dim=-1).clamp(max=0.0),
        effective_rank(spectra),
    )


def embedding_corner(f: QuadraticMap, embedding: Tensor) -> Tensor:
    """Return Sᵀ, (in, min(in, in')), for which the spectra of Eᵀ Q E and S Q Sᵀ agree."""
    rows, _ = check_float_tensor("embedding", embedding, num_axes=2)
    if rows != f.sizes.d_in:
        raise ShapeError(
            f"embedding has shape {tuple(embedding.shape)}; the layer reads {f.sizes.d_in} "
            f"inputs, so ({f.sizes.d_in}, in') was expected."
        )
    triangle: Tensor = torch.linalg.qr(embedding.detach().double().T, mode="r").R
    return triangle.T


def random_frame(d_in: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return `rank` orthonormal columns, (in, rank), distributed as the columns of a Haar O."""
    gauss = torch.randn(d_in, rank, generator=generator, dtype=torch.float64)
    columns, triangle = torch.linalg.qr(gauss)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # makes QR unique, thus Haar
    frame: Tensor = columns * signs
    return frame


def _spectra(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Return the nonzero spectra of ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for every row w of weights."""
    hidden, width = left.shape
    if 2 * hidden < width:
        stacked = torch.linalg.qr(torch.cat([left, right]).T, mode="r").R
        left, right = stacked[:, :hidden].T, stacked[:, hidden:].T
    halves = (left.T * weights[:, None, :]) @ right
    check_finite("the product of the factors", halves)
    spectra: Tensor = torch.linalg.eigvalsh((halves + halves.mT) / 2)
    return spectra
