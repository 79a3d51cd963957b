"""The share of a layer's ‖B‖² that adds modulo p: the blocks of the Fourier basis that join waves.

What adds modulo p is a sum of waves, cos(2πk(a + b − c)/p): each frequency of an output meets the
same frequency of both inputs and no other, so ‖B‖² lies on (p − 1)/2 blocks. The share on them is
read from the factors; an input is two one-hot numbers side by side.

Axes in this file: K frequencies, H products, p numbers; an input has 2p entries.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.random_rotations import random_frame
from bilens.nn import BilinearMLP
from bilens.train.randomness import STEP, stream

ROTATIONS = 19  # the largest of them is the edge at p = 0.05


class FourierBlocks(NamedTuple):
    """The real Fourier basis as features of both numbers and of the answer."""

    outputs: Tensor  # (K, 2, p): cosine and sine, orthonormal; those of a number are the same
    rotations: Tensor  # (ROTATIONS, 2p, 2p), Haar

    @classmethod
    def of(cls, p: int) -> FourierBlocks:
        angle = 2 * math.pi * torch.arange(1, (p + 1) // 2)[:, None].double() * torch.arange(p) / p
        waves = torch.stack([angle.cos(), angle.sin()], dim=1) * math.sqrt(2 / p)
        draws = stream(0, STEP)
        turns = [random_frame(2 * p, 2 * p, draws) for _ in range(ROTATIONS)]
        return cls(waves, torch.stack(turns))

    @torch.no_grad()
    def shares(self, model: BilinearMLP, rotation: Tensor | None = None) -> Tensor:
        """Return the share of ‖B‖² on the block of each frequency, (K,).

        Of B only what the answers depend on counts: centred over the answers, for the softmax
        does not see what all share; and of the products of a number with itself the diagonal, for
        one entry of a one-hot number is 1.
        """
        down, left, right = factors(model)
        right = right if rotation is None else right @ rotation
        (left_a, left_b), (right_a, right_b) = (x.chunk(2, dim=1) for x in (left, right))
        gram = down.mT @ down
        squares = sum((gram * (own @ own.mT)).sum() for own in (left_a * right_a, left_b * right_b))
        kernel = (left_a @ left_a.mT) * (right_b @ right_b.mT)
        kernel = kernel + (right_a @ right_a.mT) * (left_b @ left_b.mT)
        kernel = kernel + 2 * (left_a @ right_a.mT) * (right_b @ left_b.mT)
        whole = squares + (gram * kernel).sum() / 2  # both halves of B that join a and b
        return self.joining(down, left, right) / whole

    @torch.no_grad()
    def share_of_all(self, model: BilinearMLP) -> float:
        """Return the same of the whole of B, the products of a number with itself included."""
        down, left, right = factors(model)
        on_blocks = self.joining(down, left, right).sum()
        for parts in zip(left.chunk(2, dim=1), right.chunk(2, dim=1), strict=True):
            own = self.block(down, *parts)
            on_blocks += ((own + own.mT) / 2).square().sum()
        return float(on_blocks / squared_norms(down, left, right).sum())

    def joining(self, down: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return ‖B‖² where both numbers meet, by frequency, (K,)."""
        (left_a, left_b), (right_a, right_b) = (x.chunk(2, dim=1) for x in (left, right))
        joined = self.block(down, left_a, right_b) + self.block(down, right_a, left_b)
        return joined.square().sum(dim=(1, 2, 3)) / 2

    def block(self, down: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return Σ_h down ⊗ first ⊗ second in the waves of each frequency, (K, 2, 2, 2)."""
        legs = (part @ self.outputs.mT for part in (first, second))
        return torch.einsum("kuh,khv,khw->kuvw", self.outputs @ down, *legs)


def factors(model: BilinearMLP) -> tuple[Tensor, Tensor, Tensor]:
    """Return down, centred over the answers, left and right."""
    down, left, right = (part.weight.double() for part in (model.down, model.left, model.right))
    return down - down.mean(dim=0), left, right
