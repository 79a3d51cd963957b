"""Embedding, bilinear layers, head: the image classifier of the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_count
from bilens.base.errors import NotQuadraticError, UsageError
from bilens.nn.layer import BilinearLayer, Gate

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

    def layer_map(self, index: int, basis: Basis = "input") -> QuadraticMap:
        """Return what layer `index` computes, exact, residual path and biases included.

        The first layer is read from the input (or from the embedding, with
        `basis="embedding"`), the last one to the logits; between them stands the hidden width.

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
        last = index == len(self.layers) - 1
        f = layer.product_map(self.head.weight) if last else layer.quadratic_map()
        if self.residual:
            f = f.plus_affine(linear=f.tensor.down)  # what reads the product reads its input too
        if index > 0:
            return f
        if basis == "embedding":
            return replace(f, basis=basis)
        return f.compose_input(self.embed.weight)

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
