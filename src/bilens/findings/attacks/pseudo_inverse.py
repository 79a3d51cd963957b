"""Masks from a pseudo-inverse of eigenvectors: as published, and in the basis of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.nn import BilinearClassifier

PER_CLASS = 10  # most positive eigenvectors of each class that are inverted together
USED = 3  # of them, for the masks of a target


def published_keys(module: BilinearClassifier) -> Tensor:
    """Return the keys of the paper in pixels, (classes, USED, in): raw forms, embedding basis.

    Math: V holds the PER_CLASS most positive eigenvectors of every class in the embedding basis,
        one a row; the mask of eigenvector r of class c is W_eᵀ (column (c, r) of V⁺). Behind the
        embedding it acts through W_e W_eᵀ, so that V W_e (W_eᵀ V⁺) is not the identity.

    Args:
        module: float64, one layer.

    Source: arXiv:2410.08417, §4.4 and App. M.
    """
    f = module.quadratic_map("embedding").detach()
    return keys(f) @ module.embed.weight.detach()


def mended_keys(module: BilinearClassifier) -> Tensor:
    """Return keys in pixels, (classes, USED, in), that keep V V⁺ = 1 where V has full row rank.

    Math: as `published_keys`, with class-centred forms read in the input basis: V holds pixels.
    """
    f = module.quadratic_map().detach()
    return keys(outputs_of(f, centred=True))


def keys(f: QuadraticMap) -> Tensor:
    """Return the first columns of the pseudo-inverse for each output, (out, USED, in).

    Raises:
        NumericalError: If a form could not be decomposed.
    """
    eigs = eigendecompose_all(f, None, min(PER_CLASS, f.sizes.d_in), "largest")
    eigs.check_usable()
    classes, k, width = eigs.eigenvectors.shape
    inverse: Tensor = torch.linalg.pinv(eigs.eigenvectors.reshape(classes * k, width))
    return inverse.T.reshape(classes, k, width)[:, :USED]
