"""The two losses of tables, with the derivatives that Newton's method needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

LEAST_CURVATURE = 1e-6  # of a row that is as good as certain

# Axes in this file: (rows, outputs).


@dataclass(frozen=True, eq=False)
class Loss(ABC):
    """A convex loss of the outputs of each row.

    Attributes:
        target: (rows, outputs) float64.
    """

    target: Tensor
    is_quadratic: ClassVar[bool] = False  # whether its curvature is the same everywhere

    @abstractmethod
    def curvature(self, outputs: Tensor) -> Tensor:
        """Return the mean second derivative of each row by its outputs, (rows,), above 0."""

    @abstractmethod
    def values(self, outputs: Tensor) -> Tensor:
        """Return the loss of each row, (rows,)."""

    @abstractmethod
    def gradient(self, outputs: Tensor) -> Tensor:
        """Return the derivative of each row's loss by its outputs."""

    @abstractmethod
    def hessian_product(self, outputs: Tensor, change: Tensor) -> Tensor:
        """Return what a change of the outputs does to `gradient`, to first order."""


class SquaredError(Loss):
    """½ (output − target)², summed over the outputs."""

    is_quadratic: ClassVar[bool] = True

    def curvature(self, outputs: Tensor) -> Tensor:
        """Return 1 for each row: it is the second derivative itself."""
        return outputs.new_ones(len(outputs))

    def values(self, outputs: Tensor) -> Tensor:
        """Return the loss of each row, (rows,)."""
        return (outputs - self.target).square().sum(dim=1) / 2

    def gradient(self, outputs: Tensor) -> Tensor:
        """Return the derivative of each row's loss by its outputs."""
        return outputs - self.target

    def hessian_product(self, outputs: Tensor, change: Tensor) -> Tensor:  # noqa: ARG002 - constant
        """Return what a change of the outputs does to `gradient`, exactly."""
        return change


class CrossEntropy(Loss):
    """−log softmax(outputs) at the target, a row of which is one-hot; in nats."""

    def curvature(self, outputs: Tensor) -> Tensor:
        """Return (1 − Σ p²) / (outputs − 1), of the directions that change a softmax."""
        spread = 1 - torch.softmax(outputs, dim=1).square().sum(dim=1)
        return spread.clamp(min=LEAST_CURVATURE) / (outputs.shape[1] - 1)

    def values(self, outputs: Tensor) -> Tensor:
        """Return the loss of each row, (rows,)."""
        return outputs.logsumexp(dim=1) - (outputs * self.target).sum(dim=1)

    def gradient(self, outputs: Tensor) -> Tensor:
        """Return the derivative of each row's loss by its outputs."""
        return torch.softmax(outputs, dim=1) - self.target

    def hessian_product(self, outputs: Tensor, change: Tensor) -> Tensor:
        """Return what a change of the outputs does to `gradient`, to first order."""
        weighted = torch.softmax(outputs, dim=1)
        product = weighted * change
        return product - weighted * product.sum(dim=1, keepdim=True)
