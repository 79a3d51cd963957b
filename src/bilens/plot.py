"""Figures of results on axes of matplotlib, which is loaded when one is drawn.

Each function draws into `ax`, or into a figure of its own, and returns the axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bilens.algebra.directions import largest_outputs
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_form import QuadraticForm, check_rows
from bilens.algebra.rotation_null import RotationNull
from bilens.base.checks import check_count, check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError, optional_package
from bilens.certify.inputs import checked_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["eigenvectors", "interactions", "spectrum", "truncation"]
DIVERGING = "RdBu_r"  # white is zero, red positive
KEPT = {
    "magnitude": "by falling |eigenvalue|",
    "largest": "the largest alone",
    "smallest": "the smallest alone",
    "both": "from both ends",
}
GAP = 1  # pixels between two images


def __dir__() -> list[str]:
    return __all__


def eigenvectors(
    eig: EigenDecomposition,
    shape: tuple[int, int] | None = None,
    *,
    k: int = 4,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw leading eigenvectors as images: a row for each form, its eigenvalues above them.

    Red is positive and blue negative, each image on its own scale; the sign of a whole vector means
    nothing.

    Args:
        eig: the decomposition of one form, or of a batch.
        shape: rows and columns of an image; None for a square.
        k: how many pairs of each form, in the order of the decomposition.
        names: one for each form, such as the names of classes.
        ax: to draw into; None makes a figure.

    Raises: ShapeError if vectors are no images of the shape; UsageError if `eig` is no
        decomposition, or names are not one for each form; NumericalError if a form did not pass its
        checks; MissingExtraError if matplotlib is not installed.
    """
    checked(eig)
    k = min(check_count("k", k, minimum=1), eig.eigenvalues.shape[-1])
    width = eig.eigenvectors.shape[-1]
    side = math.isqrt(width)
    sizes = (side, side) if shape is None else tuple(shape)
    if len(sizes) != 2 or math.prod(sizes) != width or min(sizes) < 1:
        raise ShapeError(
            f"vectors of {width} inputs are no images of {' × '.join(map(str, sizes))}: pass "
            "shape, rows and columns of one."
        )
    rows, columns = sizes
    values = eig.eigenvalues[..., :k].reshape(-1, k)
    vectors = eig.eigenvectors[..., :k, :].reshape(-1, k, rows, columns)
    if names is not None and len(names) != len(vectors):
        raise UsageError(
            f"there are {len(names)} names for {len(vectors)} forms: pass one for each."
        )
    scaled = vectors / vectors.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-300)
    padded = torch.nn.functional.pad(scaled, (0, GAP, 0, GAP), value=torch.nan)
    image = padded.permute(0, 2, 1, 3).reshape(len(vectors) * (rows + GAP), k * (columns + GAP))
    ax = axes(ax, (k, len(vectors)))
    ax.imshow(image.cpu().numpy(), cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
    for row, spectrum_ in enumerate(values.tolist()):
        for column, value in enumerate(spectrum_):
            x, y = column * (columns + GAP), row * (rows + GAP)
            ax.text(x, y, f"{value:.3g}", fontsize="xx-small", va="top")
    middles = [row * (rows + GAP) + rows / 2 for row in range(len(vectors))]
    ax.set_xticks([])
    ax.set_yticks(middles if names is not None else [], names)
    ax.set_title(f"eigenvectors, {eig.basis} basis")
    return ax


def spectrum(
    eig: EigenDecomposition,
    null: RotationNull | None = None,
    *,
    direction: int = 0,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw the eigenvalues of a form by falling value, before the band that chance would give.

    Args:
        eig: the decomposition of one form.
        null: of `bl.rotation_null`; its largest eigenvalue is below the upper edge of the band with
            probability `level`, its smallest one above the lower edge with the same. None for no
            band.
        direction: position of the form among the directions of the null.
        level: of each edge of the band.
        ax: to draw into; None makes a figure.

    Raises: ShapeError if `eig` is a batch: use eigs[c]; UsageError if `eig` or `null` is something
        else or of another basis, or there is no such direction; NumericalError if the form did not
        pass its checks; MissingExtraError if matplotlib is not installed.
    """
    if checked(eig).eigenvalues.ndim != 1:
        raise ShapeError("a spectrum is drawn of one form: use eigs[c].")
    values = eig.eigenvalues.sort(descending=True).values.tolist()
    ax = axes(ax, (5, 3))
    ax.axhline(0, color="0.7", linewidth=0.8)
    if null is not None:
        check_type("null", null, RotationNull, "use bl.rotation_null(f, directions)")
        if direction not in range(null.largest.shape[1]):
            raise UsageError(
                f"there is no direction {direction}: the null has {null.largest.shape[1]}."
            )
        if null.basis != eig.basis:
            raise UsageError(
                f"the spectrum is in the {eig.basis} basis and the null in the {null.basis} basis: "
                "decompose the map whose null it is, or pass rotation_null the embedding."
            )
        low, high = (float(edge[direction]) for edge in null.edges(level))
        ax.axhspan(low, high, color="0.9", label=f"{level:.0%} of random rotations at each end")
        ax.legend(frameon=False)
    ax.plot(range(1, len(values) + 1), values, ".")
    ax.set_xlabel("rank by value")
    ax.set_ylabel("eigenvalue")
    return ax


def truncation(
    eigs: EigenDecomposition, x: Tensor, label: Tensor | Sequence[int], *, ax: Axes | None = None
) -> Axes:
    """Draw the share of right answers against the number of eigenvectors kept of each class.

    A tie that truncation made is no right answer; of leading pairs alone, no tie is.
    Cost: O(rows · classes · in) for each pair.

    Args:
        eigs: the decompositions of all outputs of a classifier, all pairs or the leading ones.
        x: (rows, in), inputs.
        label: (rows,), the right answer to each.
        ax: to draw into; None makes a figure.

    Raises: ShapeError if `eigs` is of one form, or x or label has another shape; UsageError if
        `eigs` is no decomposition, or a label is no output; NumericalError if a form did not pass
        its checks; MissingExtraError if matplotlib is not installed.
    """
    if checked(eigs).eigenvalues.ndim != 2:
        raise ShapeError("a truncation needs every class: use eigs = bl.eigendecompose_all(f).")
    check_rows(x, eigs.eigenvectors.shape[-1])
    x = x.to(eigs.eigenvectors)
    answers = checked_labels(label, len(x), len(eigs)).to(x.device)
    scores = [x @ eigs.linear.T + eigs.constant]
    for value, vector in zip(eigs.eigenvalues.T, eigs.eigenvectors.transpose(0, 1), strict=True):
        scores.append(scores[-1] + value * (x @ vector.T).square())
    all_kept = eigs.eigenvalues.shape[-1] == x.shape[-1]
    whole = scores[-1] if all_kept else torch.full_like(scores[-1], torch.nan)
    told = (largest_outputs(one.T, whole.T) == answers for one in scores)
    shares = [float(one.double().mean()) for one in told]
    ax = axes(ax, (5, 3))
    ax.plot(range(len(shares)), shares)
    ax.set_xlabel(f"eigenvectors kept of each class, {KEPT[eigs.which]}")
    ax.set_ylabel(f"share of right answers, {len(x):,} inputs")
    return ax


def interactions(
    matrix: QuadraticForm | Tensor, names: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Axes:
    """Draw an interaction matrix as a heat map: red entries raise the output, blue ones lower it.

    Args:
        matrix: a form, whose Q is built, or a symmetric (n, n) tensor such as
            `bl.interaction_submatrix` returns.
        names: one for each row.
        ax: to draw into; None makes a figure.

    Raises: ShapeError if the matrix is not square and symmetric; NonFiniteError if it holds NaN or
        infinity; UsageError if names are not one for each row; MemoryLimitError if the Q of a form
        would not fit; MissingExtraError if matplotlib is not installed.
    """
    values = matrix.dense() if isinstance(matrix, QuadraticForm) else matrix
    height, width = check_float_tensor("matrix", values, num_axes=2)
    if height != width:
        raise ShapeError(f"matrix has shape {(height, width)}; a square one was expected.")
    largest = float(values.detach().abs().max()) or 1.0
    if float((values - values.T).detach().abs().max()) > largest * math.sqrt(
        torch.finfo(values.dtype).eps
    ):
        raise ShapeError(
            "matrix is not symmetric: an interaction has one value, use (Q + Q.T) / 2."
        )
    if names is not None and len(names) != height:
        raise UsageError(f"there are {len(names)} names for {height} rows: pass one for each.")
    ax = axes(ax, (4, 4))
    shown = values.detach().double().cpu().numpy()
    image = ax.imshow(shown, cmap=DIVERGING, vmin=-largest, vmax=largest)
    ax.figure.colorbar(image, ax=ax, label="output per product of two inputs")
    basis = f", {matrix.basis} basis" if isinstance(matrix, QuadraticForm) else ""
    ax.set(title=f"interactions{basis}", xlabel="input", ylabel="input")
    if names is not None:
        ax.set_xticks(range(height), names, rotation=90)
        ax.set_yticks(range(height), names)
    return ax


def axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes to draw into, of a figure of its own where none are given."""
    optional_package("matplotlib", "plot", "bl.plot")
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure(figsize=size, layout="constrained").add_subplot()


def checked(eig: EigenDecomposition) -> EigenDecomposition:
    check_type("eig", eig, EigenDecomposition, "use bl.eigendecompose(form)")
    eig.check_usable()
    return eig
