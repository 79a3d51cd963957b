"""Up, product, down: a drop-in replacement for the MLP block of a transformer."""

from __future__ import annotations

from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count
from bilens.nn.layer import BilinearLayer, Gate


class BilinearMLP(BilinearLayer):
    """f(x) = down(gate(left x) ∘ (right x)): maps (..., d_model) to (..., d_output).

    It takes the place of any MLP block that acts on the last axis. At equal parameters an
    ordinary block of hidden width 4·d corresponds to d_hidden = 8·d/3.

    Args:
        d_model: width of the input.
        d_hidden: number of products.
        d_output: width of the output; None is d_model.
        bias: whether left, right and down have biases.
        gate: None (bilinear), "relu", "gelu" or "silu", on the left branch.

    Raises:
        UsageError: If a width is not a positive integer, or the gate is not one of the above.

    Source: arXiv:2410.08417, equation 1; arXiv:2002.05202 for the family.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        d_output: int | None = None,
        bias: bool = False,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(d_model, d_hidden, bias=bias, gate=gate)
        width = check_count("d_output", d_model if d_output is None else d_output, minimum=1)
        self.down = nn.Linear(self.left.out_features, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x) for inputs along the last axis, (..., d_model) → (..., d_output)."""
        y: Tensor = self.down(super().forward(x))
        return y

    def quadratic_map(self) -> QuadraticMap:
        """Return f as a `QuadraticMap`, exact, sharing the weights; biases multiplied out.

        Raises:
            NotQuadraticError: If the block is gated.
        """
        return self.product_map(self.down.weight).plus_affine(
            constant=self.down.bias if self.has_bias else None
        )
