"""An output latent as a few input latents and the interactions between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.interactions.feature_factors import check_dictionary, interaction_submatrix
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.low_rank import Agreement


@dataclass(frozen=True, eq=False)
class Circuit:
    """An output latent, few input latents, and how these build it."""

    output: int
    features: Tensor  # (n,) int64, input latents by falling share
    matrix: Tensor  # (n, n), S[m, n] between them; the coefficient of z_m z_n is twice the entry
    linear: Tensor  # (n,), coefficient of z_m, from the decoder's bias
    constant: float
    eigenvalues: Tensor  # (k,), of the whole form in the input basis, by falling size
    projections: Tensor  # (n, k), v_i·d_m: column i is the input latents seen along eigenvector i
    share_of_norm: float  # of ‖S‖_F²
    share_of_variance: float | None  # of the latent at Dz + b, over data
    correlation: float | None
    num_inputs: int


def find_circuit(
    g: QuadraticMap,
    dictionary: Tensor,
    output: int,
    eigenpairs: EigenDecomposition,
    *,
    bias: Tensor | None = None,
    num_features: int = 10,
    activations: Tensor | None = None,
) -> Circuit:
    """Return the input latents that matter most for an output latent, and how they build it."""
    features = check_dictionary(g, dictionary)
    num = min(check_count("num_features", num_features, minimum=1), features)
    if not 0 <= output < g.sizes.d_out:
        raise UsageError(
            f"output {output} does not exist: the map has {g.sizes.d_out}, counted from 0."
        )
    if eigenpairs.eigenvalues.ndim != 1:
        raise ShapeError("find_circuit works on one output: pass eigenpairs[c].")
    with torch.no_grad():
        direction = torch.zeros(g.sizes.d_out, dtype=torch.float64)
        direction[output] = 1.0
        form = g.detach().to(torch.float64).form(direction)
        columns = dictionary.detach().double()
        shift = columns.new_zeros(g.sizes.d_in) if bias is None else bias.detach().double()
        linear = columns.T @ (form.linear + 2 * form.matvec(shift))
        constant = float(form(shift))
        matrix = form.dense()
        if activations is None:
            importance = row_norms(matrix, columns)
        else:
            z = check_activations(activations, features)
            importance = mean_effects(matrix, columns, linear, z)
        order = importance.argsort(descending=True, stable=True)[:num]
        block = interaction_submatrix(g, dictionary, direction, order)
        whole = row_norms(matrix, columns).sum()
        agreement = None
        if activations is not None:
            truth = form(z @ columns.T + shift)
            part = z[:, order]
            found = ((part @ block) * part).sum(dim=1) + part @ linear[order] + constant
            agreement = explained(truth, found)
    return Circuit(
        output=output,
        features=order,
        matrix=block,
        linear=linear[order],
        constant=constant,
        eigenvalues=eigenpairs.eigenvalues,
        projections=columns[:, order].T @ eigenpairs.eigenvectors.T,
        share_of_norm=float(block.square().sum() / whole) if float(whole) > 0 else 0.0,
        share_of_variance=None if agreement is None else agreement[0],
        correlation=None if agreement is None else agreement[1],
        num_inputs=0 if activations is None else len(activations),
    )


def row_norms(matrix: Tensor, columns: Tensor) -> Tensor:
    """Return ‖row m of DᵀQD‖² for every feature, (features,), without the matrix of features."""
    reached = matrix @ columns
    return ((columns @ columns.T @ reached) * reached).sum(dim=0)


def mean_effects(matrix: Tensor, columns: Tensor, linear: Tensor, z: Tensor) -> Tensor:
    """Return the mean of |z_m (Sz + linear)_m| over inputs, (features,)."""
    field = (z @ columns.T) @ matrix @ columns + linear
    return (z * field).abs().mean(dim=0)


def explained(truth: Tensor, found: Tensor) -> tuple[float, float]:
    """Return 1 − Var(truth − found) / Var(truth), and the correlation; NaN where nothing varies."""
    rest, total = (truth - found).var(correction=0), truth.var(correction=0)
    share = 1 - rest / total if float(total) > 0 else torch.tensor(torch.nan)
    return float(share), float(Agreement.of(truth, found).correlation)


def check_activations(activations: Tensor, features: int) -> Tensor:
    """Return activations in float64."""
    _, width = check_float_tensor("activations", activations, num_axes=2)
    if width != features:
        raise ShapeError(
            f"activations has {width} columns; the dictionary has {features} features."
        )
    return activations.detach().double()
