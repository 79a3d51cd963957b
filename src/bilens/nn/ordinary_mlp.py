"""The block of an ordinary transformer: one branch, one activation."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor, nn
from torch.nn import functional

from bilens.base.checks import check_count
from bilens.base.errors import NotQuadraticError


class MLP(nn.Module):
    """f(x) = down(gelu(up x)), (..., d_model) → (..., d_model): what gated blocks are compared to.

    Args:
        d_model: width of the input and of the output.
        d_hidden: number of neurons; 3/2 of a gated block's has as many weights.
        bias: whether up and down have biases.

    Raises:
        UsageError: If a width is not a positive integer.
    """

    def __init__(self, d_model: int, d_hidden: int, bias: bool = False) -> None:
        super().__init__()
        d_model = check_count("d_model", d_model, minimum=1)
        d_hidden = check_count("d_hidden", d_hidden, minimum=1)
        self.has_bias = bias
        self.up = nn.Linear(d_model, d_hidden, bias=bias)
        self.down = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x) for inputs along the last axis."""
        y: Tensor = self.down(functional.gelu(self.up(x)))
        return y

    def quadratic_map(self) -> NoReturn:
        """Refuse: the activation is no polynomial.

        Raises:
            NotQuadraticError: Always.
        """
        raise NotQuadraticError(
            "an ordinary MLP with GELU is not a quadratic form of its input: build or train the "
            'model with mlp_type="gated" and gate=None.'
        )
