"""Maps and forms for tests: seeded random ones, and the form of any symmetric matrix."""

from typing import Any

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.train.recipes import ConversionRecipe

D_OUT, D_HIDDEN, D_IN = 3, 4, 5  # all different, so that swapped axes are seen


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal entries in float64."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def vector(*values: float) -> Tensor:
    """The given entries in float64."""
    return torch.tensor(values, dtype=torch.float64)


def random_tensor(
    seed: int = 0, d_out: int = D_OUT, d_hidden: int = D_HIDDEN, d_in: int = D_IN
) -> BilinearTensor:
    """A tensor whose three factors are independent standard normal."""
    return BilinearTensor(
        randn(d_out, d_hidden, seed=3 * seed),
        randn(d_hidden, d_in, seed=3 * seed + 1),
        randn(d_hidden, d_in, seed=3 * seed + 2),
    )


def random_map(
    seed: int = 0, d_out: int = D_OUT, d_hidden: int = D_HIDDEN, d_in: int = D_IN
) -> QuadraticMap:
    """A map with linear and constant terms."""
    return QuadraticMap(
        random_tensor(seed, d_out, d_hidden, d_in),
        randn(d_out, d_in, seed=seed + 1000),
        randn(d_out, seed=seed + 2000),
    )


def form_of(
    q: Tensor, linear: Tensor | None = None, constant: Tensor | None = None
) -> QuadraticForm:
    """The form of a symmetric matrix: left = I, right = Q, weight = 1 gives ½(Q + Qᵀ)."""
    identity = torch.eye(len(q), dtype=q.dtype)
    return QuadraticForm(
        InteractionMatrix(identity, q, q.new_ones(len(q))),
        q.new_zeros(len(q)) if linear is None else linear,
        q.new_zeros(()) if constant is None else constant,
    )


def form_from_pairs(values: Tensor, vectors: Tensor) -> QuadraticForm:
    """The form Σ_i values_i (vectors_i·x)²: the rows of `vectors` are both factors."""
    matrix = InteractionMatrix(vectors, vectors, values)
    return QuadraticForm(matrix, values.new_zeros(vectors.shape[1]), values.new_zeros(()))


def rotation(n: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix."""
    orthogonal: Tensor = torch.linalg.qr(randn(n, n, seed=seed)).Q
    return orthogonal


def usual_where_idle(usual: ConversionRecipe, changes: dict[str, Any]) -> dict[str, Any]:
    """What a recipe has to have of the usual one: what counts in no stage of a changed one."""
    skipped = changes.get("skip", ())
    idle = {"tokens", "learning_rate"} if "distillation" in skipped else set()
    idle |= {"tokens"} if "minutes" in changes else set()
    idle |= {"layer_steps"} if "training" in skipped else set()
    return {name: getattr(usual, name) for name in idle}
