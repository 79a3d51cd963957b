"""A module that computes a given quadratic map, so that it can be saved like any other model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer import BilinearLayer


def classifier_of_map(
    f: QuadraticMap, mean: Tensor | None = None, scale: Tensor | None = None
) -> BilinearClassifier:
    """Return a one-layer classifier with logits f((x − mean) / scale), exactly.

    Each product of f becomes a hidden unit, and so does each output that has a linear or constant
    term: (A_c z + k_c) · 1. The shift by the mean goes into the biases, where nothing cancels.

    Args:
        f: any map; outputs may be anything, not only logits.
        mean: (in,); None is 0.
        scale: (in,), no zeros; None is 1.

    Raises:
        ShapeError: If mean or scale does not fit the map.
        NonFiniteError: If one holds NaN or infinity, or a weight overflows.
    """
    d_out, d_hidden, d_in = f.sizes
    down, left, right = (part.detach() for part in (f.tensor.down, f.tensor.left, f.tensor.right))
    mean = left.new_zeros(d_in) if mean is None else mean
    scale = left.new_ones(d_in) if scale is None else scale
    for name, part in (("mean", mean), ("scale", scale)):
        if check_float_tensor(name, part, num_axes=1, like=left) != (d_in,):
            raise ShapeError(f"{name} has {len(part)} entries; the map reads {d_in} inputs.")
    linear = left.new_zeros(d_out, d_in) if f.linear is None else f.linear.detach()
    constant = left.new_zeros(d_out) if f.constant is None else f.constant.detach()
    same = torch.equal(left, right)
    rows = torch.cat([left, linear] if same else [left, linear, right]) / scale
    width, products = len(rows), torch.arange(d_hidden)
    affine = torch.arange(d_hidden, d_hidden + d_out)
    second = products if same else products + d_hidden + d_out
    module = BilinearClassifier(d_in, width, d_out, bias=True).to(left.dtype)
    layer = module.layers[0]
    assert isinstance(layer, BilinearLayer), "built in __init__"
    left_branch, right_branch = layer.left, layer.right
    shift = -(rows @ mean)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.embed.weight.copy_(rows)
        for branch, places in ((left_branch, products), (right_branch, second)):
            branch.weight[products, places] = 1.0
            branch.bias[products] = shift[places]
        left_branch.weight[affine, affine] = 1.0
        left_branch.bias[affine] = shift[affine] + constant
        right_branch.bias[affine] = 1.0
        module.head.weight[:, :d_hidden] = down
        module.head.weight[torch.arange(d_out), affine] = 1.0
    return module.eval()


def in_standard_units(
    module: BilinearClassifier, mean: Tensor, scale: Tensor
) -> BilinearClassifier:
    """Return a classifier of one layer as a function of z, with x = mean + scale · z, in float64.

    Args:
        module: it is not changed.
        mean: (in,) float64.
        scale: (in,) float64.

    Raises:
        NotQuadraticError: If it is gated or has more than one layer.
    """
    module = copy.deepcopy(module).double()
    f = module.quadratic_map().detach()
    layer = module.layers[0]
    assert isinstance(layer, BilinearLayer), "built in __init__"
    if module.residual or not layer.has_bias:
        return classifier_of_map(f.compose_input(torch.diag(scale), mean))
    with torch.no_grad():
        shift = module.embed.weight @ mean
        for branch in (layer.left, layer.right):
            branch.bias.add_(branch.weight @ shift)
        module.embed.weight.mul_(scale)
    return module.eval()
