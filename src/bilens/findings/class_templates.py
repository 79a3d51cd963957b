"""What an input of each class looks like, as far as the weights tell: no data are read."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap

LEADING = 3  # eigenvectors of a class; more bring in what no input has
INK = 0.1  # mean square of an image's pixels that the length of a template stands for


def class_templates(eigs: EigenDecomposition) -> Tensor:
    """Return an image for each class that its own score answers to, (classes, in), unit length."""
    largest = eigs.distinct_from_zero.clamp(min=0).topk(min(LEADING, eigs.eigenvalues.shape[1]))
    chosen = largest.indices[..., None].expand(-1, -1, eigs.eigenvectors.shape[2])
    vectors = eigs.eigenvectors.gather(1, chosen)
    upright = torch.where(vectors.sum(dim=2, keepdim=True) < 0, -vectors, vectors)
    pattern = (largest.values[..., None] * upright).sum(dim=1)
    pattern = (pattern + eigs.linear / (2 * usual_length(pattern.shape[1]))).clamp(min=0)
    length = pattern.norm(dim=1, keepdim=True)
    return pattern / torch.where(length > 0, length, 1.0)


def gaussian_blob(shape: tuple[int, int]) -> Tensor:
    """Return a Gaussian blob in the middle of an image, (in,), of unit length."""
    down, across = (
        torch.exp(-8 * ((torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5).square())
        for side in shape
    )
    blob = torch.outer(down, across).flatten()
    unit: Tensor = blob / blob.norm()
    return unit


def moved(templates: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return each template a tenth of a side up, down, left and right, (4, classes, in)."""
    images = templates.reshape(-1, *shape)
    rows, columns = (max(1, round(side / 10)) for side in shape)
    turned = torch.zeros(4, *images.shape, dtype=images.dtype)
    turned[0, :, :-rows] = images[:, rows:]
    turned[1, :, rows:] = images[:, :-rows]
    turned[2, :, :, :-columns] = images[:, :, columns:]
    turned[3, :, :, columns:] = images[:, :, :-columns]
    flat = turned.flatten(2)
    length = flat.norm(dim=2, keepdim=True)
    return flat / torch.where(length > 0, length, 1.0)


def usual_length(d_input: int) -> float:
    """Return the length ρ of an image whose mean square is `INK`; a digit of MNIST has 9.2."""
    return float((INK * d_input) ** 0.5)


def gradients(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return the gradient of every output at every point, (points, out, in)."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    slopes = (x @ right.T)[:, None] * down @ left + (x @ left.T)[:, None] * down @ right
    return slopes if f.linear is None else slopes + f.linear
