"""What spectra look like by chance: the rotation null of a factored map."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.gram.blocks import blocks
from bilens.algebra.localisation import localisation
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null_record import RotationNull as RotationNull  # its public place
from bilens.checks import check_count, check_finite, check_float_tensor, check_type
from bilens.errors import ShapeError

CHUNK_BYTES = 256 * 2**20  # what the matrices of the directions that are solved at once may take


def rotation_null(
    f: QuadraticMap,
    directions: Tensor,
    generator: torch.Generator,
    num_samples: int = 99,
    embedding: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    localised: bool = False,
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
        the width of the layer. At most CHUNK_BYTES of memory, or what one direction takes,
        beside the spectra of all samples.

    Args:
        f: the layer, in the space in which its right branch is rotated.
        directions: (num, out), one output direction a row.
        generator: the source of randomness.
        num_samples: number of rotations; 99 gives p-values down to 0.01.
        embedding: E, (in, in'), in front of the layer; None where there is none.
        progress: called with the number of samples done.
        localised: sample the localisation of the extreme eigenvectors, too: about three times
            the time.

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
    inputs = None
    if localised:
        inputs = embedding_basis(f.sizes.d_in, embedding)
    samples, extremes = [], []
    for done in range(num_samples):
        frame = random_frame(f.sizes.d_in, corner.shape[1], generator)
        right = corner @ before_embedding(frame.T)
        if inputs is None:
            samples.append(_spectra(left, right, weights))
        else:
            spectra, ends = _spectra_and_ends(left, right, weights)
            samples.append(spectra)
            extremes.append(localisation(ends @ inputs))
        if progress is not None:
            progress(done + 1)
    spectra = torch.stack(samples)  # (samples, directions, n)
    largest, smallest = spectra.amax(dim=-1).clamp(min=0.0), spectra.amin(dim=-1).clamp(max=0.0)
    if not localised:
        return RotationNull(largest, smallest, effective_rank(spectra))
    upper, lower = torch.stack(extremes).unbind(dim=-1)
    return RotationNull(
        largest,
        smallest,
        effective_rank(spectra),
        localisation_largest=torch.where(largest > 0, upper, 0.0),
        localisation_smallest=torch.where(smallest < 0, lower, 0.0),
    )


def embedding_basis(d_in: int, embedding: Tensor | None) -> Tensor:
    """Return Yᵀ of Eᵀ = Y S, which takes vectors of S Q Sᵀ to those of Eᵀ Q E; I without an E."""
    if embedding is None:
        return torch.eye(d_in, dtype=torch.float64)
    columns: Tensor = torch.linalg.qr(embedding.detach().double().T).Q
    return columns.T


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
    spectra = [
        torch.linalg.eigvalsh(_matrices(left, right, chunk))
        for chunk in _chunks(weights, left.shape[1])
    ]
    return torch.cat(spectra)


def _spectra_and_ends(left: Tensor, right: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return `_spectra`, and the eigenvectors of (largest, smallest), (num, 2, width)."""
    hidden, width = left.shape
    basis = None
    if 2 * hidden < width:
        columns, stacked = torch.linalg.qr(torch.cat([left, right]).T)
        left, right, basis = stacked[:, :hidden].T, stacked[:, hidden:].T, columns.T
    spectra, ends = [], []
    for chunk in _chunks(weights, left.shape[1]):
        values, columns = torch.linalg.eigh(_matrices(left, right, chunk))
        spectra.append(values)
        ends.append(columns[..., [-1, 0]].mT)  # eigenvalues ascend
    both = torch.cat(ends)
    return torch.cat(spectra), both if basis is None else both @ basis


def _chunks(weights: Tensor, width: int) -> Iterator[Tensor]:
    """Yield the rows of weights in chunks, so that the arrays of each fit in CHUNK_BYTES.

    A direction takes (width, hidden) once in `_matrices`, and (width, width) at most four times,
    there or in the solver.
    """
    numbers = width * weights.shape[1] + 4 * width**2
    for rows in blocks(len(weights), max(1, CHUNK_BYTES // (8 * numbers))):
        yield weights[rows]


def _matrices(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Return ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for every row w of weights, finite."""
    halves = (left.T * weights[:, None, :]) @ right
    check_finite("the product of the factors", halves)
    return (halves + halves.mT) / 2
