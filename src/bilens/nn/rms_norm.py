"""Division by the root mean square along the last axis."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε), without a gain: a gain belongs to the weights that read the result.

    Source: arXiv:1910.07467, equation 4 with g = 1.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs, (..., d) → (..., d)."""
        return functional.rms_norm(x, x.shape[-1:], eps=self.epsilon)
