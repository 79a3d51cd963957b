"""Dense quadratic parts as the factors of a `QuadraticMap`: one hidden unit an eigenvector."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap

NEGLIGIBLE = 1e-14  # of the largest eigenvalue: rounding of the ones that are zero


def map_of(products: Tensor, linear: Tensor, constant: Tensor, directions: Tensor) -> QuadraticMap:
    """Return x ↦ u(x)ᵀ Q_c u(x) + linear x + constant with u = directions · x, exactly.

    Outputs that are combinations of others need no units of their own: class-centred forms of m
    classes span m − 1 matrices, those of two classes one.

    Math: Q_c = Σ_k a_ck T_k with ⟨T_k, T_l⟩ = 0 for k ≠ l, from the outputs' Gram matrix, and
        T_k = Σ_i λ_ki v_ki v_kiᵀ; the units are left = right = v_ki, with down = a_ck λ_ki.
    Cost: O(outputs · components³).

    Args:
        products: Q, (outputs, components, components), symmetric, float64.
        linear: (outputs, in).
        constant: (outputs,).
        directions: (components, in).
    """
    flat = products.flatten(1)
    size = float(flat.abs().max()) if flat.numel() else 0.0
    if size == 0:
        zero = linear.new_zeros(1, linear.shape[1])
        tensor = BilinearTensor(linear.new_zeros(len(linear), 1), zero, zero.clone())
        return QuadraticMap(tensor, linear, constant)
    shares, mixing = torch.linalg.eigh((flat / size) @ (flat / size).T)
    mixing = mixing[:, shares > NEGLIGIBLE * shares.max()]
    values, vectors = torch.linalg.eigh(torch.einsum("ck,cij->kij", mixing, products))
    kept = values.abs() > NEGLIGIBLE * values.abs().max()
    order = values[kept].abs().argsort(descending=True)
    rows = vectors.transpose(1, 2)[kept][order]
    owner = torch.nonzero(kept)[order, 0]
    down = mixing[:, owner] * values[kept][order]
    left = rows @ directions
    return QuadraticMap(BilinearTensor(down, left, left.clone()), linear, constant)
