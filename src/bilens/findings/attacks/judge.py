"""What masks do to images: accuracy, mean margin, share taken for the target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.attacks.objective import products_of
from bilens.records.attack import Effect

CLIPPED_IMAGES = 1000  # that the clipped effect is measured on, at most
LOWEST, HIGHEST = 0.0, 1.0  # the box of pixels


@dataclass(frozen=True, eq=False)
class Judge:
    """The images that an attack is judged on, with what the model says of them.

    Attributes:
        f: the model, float64.
        images: (num, in) float64.
        labels: (num,), none of them the target.
        scores: (num, out), f of the images.
        target: the class that should win.
    """

    f: QuadraticMap
    images: Tensor
    labels: Tensor
    scores: Tensor
    target: int

    def effect(self, deltas: Tensor) -> Effect:
        """Return what each row of (num, in) does, without a box.

        Math: f(x + δ) = f(x) + 2 (Qδ)·x + b·δ + δᵀQδ for each output: one product for all images.
        Cost: O(images · deltas · out · in).
        """
        slopes = 2 * products_of(self.f, deltas)  # (deltas, out, in)
        shifts = self.f(deltas)
        if self.f.constant is not None:
            shifts = shifts - self.f.constant
        moved = (self.images @ slopes.flatten(0, 1).T).reshape(-1, *shifts.shape)
        moved += shifts
        moved += self.scores[:, None]
        return self.read(moved.unbind(1), self.labels)

    @property
    def sample(self) -> Tensor:
        """Indices of the images that the clipped effect is measured on, evenly spread."""
        step = max(len(self.labels) // CLIPPED_IMAGES, 1)
        return torch.arange(0, len(self.labels), step)[:CLIPPED_IMAGES]

    def clipped_effect(self, deltas: Tensor) -> Effect:
        """Return the same with pixels cut to the box, on the sample.

        Cost: O(sample · deltas · hidden · in).
        """
        images, labels = self.images[self.sample], self.labels[self.sample]
        moved = [self.f((images + delta).clamp(LOWEST, HIGHEST)) for delta in deltas]
        return self.read(moved, labels)

    def read(self, moved: tuple[Tensor, ...] | list[Tensor], labels: Tensor) -> Effect:
        """Return the numbers of scores (images, out) for each delta."""
        accuracy, margin, rate = [], [], []
        for scores in moved:
            answers = scores.argmax(dim=1)
            own = scores.gather(1, labels[:, None])[:, 0]
            accuracy.append(float((answers == labels).double().mean()))
            margin.append(float((own - scores[:, self.target]).mean()))
            rate.append(float((answers == self.target).double().mean()))
        return Effect(tuple(accuracy), tuple(margin), tuple(rate))
