"""Tensors that are a sum of few components, and targets made of them."""

from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn


def planted_map(seed: int, rank: int, model: str, d_out: int = 6, d_in: int = 7) -> QuadraticMap:
    """A map whose tensor is exactly a sum of `rank` components of a model, with affine terms."""
    left = randn(rank, d_in, seed=4 * seed + 1)
    right = left if model == "symmetric" else randn(rank, d_in, seed=4 * seed + 2)
    tensor = BilinearTensor(randn(d_out, rank, seed=4 * seed), left, right)
    linear, constant = randn(d_out, d_in, seed=seed + 1000), randn(d_out, seed=seed + 2000)
    return QuadraticMap(tensor, linear, constant)


def dense_of(f: QuadraticMap) -> Tensor:
    """The dense tensor of a map."""
    return oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
