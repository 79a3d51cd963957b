"""Embedding, bilinear layers, head: the paper's image classifier, and one for any given map."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.layer_weights import GLUWeights, products_alone, reading
from bilens.algebra.quadratic_map import QuadraticMap, basis_of
from bilens.algebra.shapes import check_index, check_shape
from bilens.base.checks import check_count
from bilens.base.errors import NotQuadraticError, UsageError
from bilens.nn.mlp import BilinearLayer, Gate, check_linear, compare_with_run

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

    Raises: UsageError if a size is not a positive integer, or the gate is not one of the above.

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
        """Return the exact map of layer `index`, residual path and biases included.

        The first layer is read from the input (or from the embedding, with
        `basis="embedding"`), the last one to the logits; between them stands the hidden width.
        With a `dtype` the weights of this layer are converted before they are multiplied.

        Cost: O(d_hidden² · d_input) time for the first layer.

        Raises: UsageError if there is no such layer, the basis is not one of the two, or a part was
            replaced by another than a plain linear map; NumericalError if hooks or a forward of its
            own make it compute something else; NotQuadraticError if the layer is gated.
        """
        check_index("layer", index, len(self.layers))
        if basis not in get_args(Basis):
            raise UsageError(f'basis={basis!r} is not known: use "input" or "embedding".')
        for name, part in (("embed", self.embed), ("head", self.head)):
            check_linear(name, part, bias=False)
        compare_with_run(
            self,
            lambda: [self._map_of(at, "input") for at in range(len(self.layers))],
            (self, BilinearClassifier),
            *((one, BilinearLayer) for one in self.layers),
        )
        return self._map_of(index, basis, dtype)

    def _map_of(self, index: int, basis: Basis, dtype: torch.dtype | None = None) -> QuadraticMap:
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
        if index > 0 or basis == "embedding":
            return replace(f, basis=self.basis_name(index))
        return f.compose_input(embed)

    def basis_name(self, index: int) -> str:
        """Return the name of the coordinates that layer `index` reads behind the embedding."""
        before = [self.embed.weight, *self.layers[:index].parameters()]
        return basis_of(f"layers.{index - 1} output" if index else "embedding", *before)

    def quadratic_map(self, basis: Basis = "input") -> QuadraticMap:
        """Return the whole model, input → logits, as one exact `QuadraticMap`.

        In the input basis (default) its spectra do not depend on how the embedding is written;
        the embedding basis is what the paper's figures use.

        Raises: NotQuadraticError if the model has more than one layer, or is gated; UsageError if
            the basis is not one of the two.
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
    down, left, right = (part.detach() for part in (f.tensor.down, f.tensor.left, f.tensor.right))
    mean = left.new_zeros(f.sizes.d_in) if mean is None else mean
    scale = left.new_ones(f.sizes.d_in) if scale is None else scale
    for name, part in (("mean", mean), ("scale", scale)):
        check_shape(name, part, (f.sizes.d_in,), like=left)
    linear = None if f.linear is None else f.linear.detach()
    constant = None if f.constant is None else f.constant.detach()
    layer = GLUWeights(down, left, right, "identity", linear=linear, constant=constant)
    return classifier_of_layers([reading(layer, 1 / scale, -mean / scale)])


def classifier_of_layers(layers: Sequence[GLUWeights]) -> BilinearClassifier:
    """Return a classifier that is bilinear layers one behind the other, exactly."""
    parts = [products_alone(layer) for layer in layers]
    pairs = [torch.cat([part.gate, part.value]) for part in parts]
    (tall, d_in), counts = pairs[0].shape, [len(part.gate) for part in parts]
    eye = torch.eye(min(tall, d_in)).to(pairs[0])
    embed, first = (pairs[0], eye) if tall < d_in else (eye, pairs[0])
    reads = [first, *(pair @ part.down for pair, part in zip(pairs[1:], parts, strict=False))]
    width, d_out = max(len(embed), *counts), len(parts[-1].down)
    module = BilinearClassifier(d_in, width, d_out, len(parts), bias=True).to(embed.dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.embed.weight[: len(embed)] = embed
        for index, (part, read, count) in enumerate(zip(parts, reads, counts, strict=True)):
            state = module.layers[index].state_dict()
            for name, weight in zip(("left", "right"), (read[:count], read[count:]), strict=True):
                state[f"{name}.weight"][:count, : weight.shape[1]] = weight
            state["left.bias"][:count] = part.gate_bias
            state["right.bias"][:count] = part.value_bias
        module.head.weight[:, : counts[-1]] = parts[-1].down
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
