"""Embedding, bilinear layers, head: the paper's image classifier, and one for any given map."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_count, check_float_tensor
from bilens.base.errors import NotQuadraticError, ShapeError, UsageError
from bilens.nn.mlp import BilinearLayer, Gate

Basis = Literal["input", "embedding"]


class BilinearClassifier(nn.Module):
    """Linear embedding → bilinear layers → linear head, (..., d_input) → (..., d_output) logits.

    With h = embed x and, for each layer, h ← layer(h) (+ h with `residual`), the logits are
    head h. Embedding and head have no bias; `bias` gives one to both branches of each layer.

    Args:
        d_input: width of the input, for images the number of pixels.
        d_hidden: width of the embedding and of every layer.
        d_output: number of classes.
        n_layers: number of bilinear layers; one is exactly quadratic in the input.
        bias: whether the branches of the layers have biases.
        residual: whether each layer adds its input to its output.
        gate: None (bilinear), "relu", "gelu" or "silu", on the left branch of each layer.

    Raises:
        UsageError: If a size is not a positive integer, or the gate is not one of the above.

    Source: arXiv:2410.08417, §4 and App. C.
    """

    def __init__(
        self,
        d_input: int,
        d_hidden: int,
        d_output: int,
        n_layers: int = 1,
        bias: bool = False,
        residual: bool = False,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        d_input = check_count("d_input", d_input, minimum=1)
        d_hidden = check_count("d_hidden", d_hidden, minimum=1)
        d_output = check_count("d_output", d_output, minimum=1)
        n_layers = check_count("n_layers", n_layers, minimum=1)
        self.residual = residual
        self.embed = nn.Linear(d_input, d_hidden, bias=False)
        self.layers = nn.ModuleList(
            BilinearLayer(d_hidden, d_hidden, bias=bias, gate=gate) for _ in range(n_layers)
        )
        self.head = nn.Linear(d_hidden, d_output, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits for inputs along the last axis, (..., d_input) → (..., d_output)."""
        h: Tensor = self.embed(x)
        for layer in self.layers:
            h = layer(h) + h if self.residual else layer(h)
        logits: Tensor = self.head(h)
        return logits

    def layer_map(
        self, index: int, basis: Basis = "input", dtype: torch.dtype | None = None
    ) -> QuadraticMap:
        """Return what layer `index` computes, exact, residual path and biases included.

        The first layer is read from the input (or from the embedding, with
        `basis="embedding"`), the last one to the logits; between them stands the hidden width.
        With a `dtype` the weights of this layer are converted before they are multiplied.

        Cost: O(d_hidden² · d_input) time for the first layer.

        Raises:
            UsageError: If there is no such layer, or the basis is not one of the two.
            NotQuadraticError: If the layer is gated.
        """
        if as_integer(index) not in range(len(self.layers)):
            raise UsageError(
                f"layer {index!r} does not exist: the model has {len(self.layers)}, counted from 0."
            )
        if basis not in get_args(Basis):
            raise UsageError(f'basis={basis!r} is not known: use "input" or "embedding".')
        layer = self.layers[index]
        assert isinstance(layer, BilinearLayer), "built in __init__"
        head, embed = self.head.weight, self.embed.weight
        if dtype is not None:
            layer = copy.deepcopy(layer).to(dtype)
            head, embed = head.to(dtype), embed.to(dtype)
        last = index == len(self.layers) - 1
        f = layer.product_map(head) if last else layer.quadratic_map()
        if self.residual:
            f = f.plus_affine(linear=f.tensor.down)  # what reads the product reads its input too
        if index > 0:
            return f
        if basis == "embedding":
            return replace(f, basis=basis)
        return f.compose_input(embed)

    def quadratic_map(self, basis: Basis = "input") -> QuadraticMap:
        """Return the whole model, input → logits, as one exact `QuadraticMap`.

        In the input basis (default) its spectra do not depend on how the embedding is written;
        the embedding basis is what the paper's figures use.

        Raises:
            NotQuadraticError: If the model has more than one layer, or is gated.
            UsageError: If the basis is not one of the two.
        """
        if len(self.layers) > 1:
            raise NotQuadraticError(
                f"the model has {len(self.layers)} layers, so its logits are a polynomial of "
                f"degree {2 ** len(self.layers)}: read one layer with layer_map(index)."
            )
        return self.layer_map(0, basis)


def classifier_of_map(
    f: QuadraticMap, mean: Tensor | None = None, scale: Tensor | None = None
) -> BilinearClassifier:
    """Return a one-layer classifier with logits f((x − mean) / scale), exactly."""
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
        for branch, read in ((left_branch, products), (right_branch, second)):
            branch.weight[products, read] = 1.0
            branch.bias[products] = shift[read]
        left_branch.weight[affine, affine] = 1.0
        left_branch.bias[affine] = shift[affine] + constant
        right_branch.bias[affine] = 1.0
        module.head.weight[:, :d_hidden] = down
        module.head.weight[torch.arange(d_out), affine] = 1.0
    return module.eval()


def in_standard_units(
    module: BilinearClassifier, mean: Tensor, scale: Tensor
) -> BilinearClassifier:
    """Return a classifier of one layer as a function of z, x = mean + scale · z, in float64."""
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
