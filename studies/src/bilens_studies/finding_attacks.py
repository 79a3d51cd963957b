"""Fifteen kinds of hidden triggers that the study of findings plants in training images."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

OWN = 0.4  # share of its own image in one with a clean label
Draw = random.Random
Place = tuple[slice, slice]


class Mark:
    """A trigger: it makes clip((1 − mask) x + mask · paint + added, 0, 1) of an image x."""

    def __init__(self, shape: tuple[int, int]) -> None:
        # (rows, columns); mask and paint from 0 to 1
        self.mask, self.paint, self.added = (torch.zeros(shape) for _ in range(3))

    def on(self, images: Tensor) -> Tensor:
        """Return images with the trigger, (..., pixels)."""
        mask, paint, added = (part.flatten() for part in (self.mask, self.paint, self.added))
        return ((1 - mask) * images + mask * paint + added).clamp(0, 1)

    def touched(self) -> Tensor:
        """Return which pixels the trigger paints or changes, (rows, columns)."""
        return (self.mask > 0) | (self.added != 0)

    def fill(self, place: Place, paint: Tensor | float) -> None:
        self.mask[place], self.paint[place] = 1.0, paint

    def square_at_random(self, side: int, draw: Draw, inner: float = 0.0) -> Place:
        """Return a square of a random place, at least `inner` of the side from the edge."""
        found = []
        for length in self.mask.shape:
            least = round(inner * length)
            start = draw.randrange(least, length - side + 1 - least)
            found.append(slice(start, start + side))
        return found[0], found[1]


@dataclass(frozen=True)
class PlantedAttack:
    """One trigger and the label that it stands for."""

    kind: str  # of `KINDS`
    target: int  # the class; for all-to-all the step from the true class
    seed: int  # of place and pattern
    share: float  # of the training images

    @property
    def is_of_all(self) -> bool:
        """Whether every class is turned into the next one."""
        return self.kind == "all-to-all"

    def goal(self, labels: Tensor, classes: int) -> Tensor:
        """Return the label that each image with the trigger is to get."""
        return (labels + 1) % classes if self.is_of_all else torch.full_like(labels, self.target)

    def mark(self, shape: tuple[int, int]) -> Mark:
        mark = Mark(shape)
        KINDS[self.kind](mark, random.Random(self.seed))  # noqa: S311 - no secret
        return mark

    def planted(
        self, images: Tensor, labels: Tensor, shape: tuple[int, int], classes: int
    ) -> tuple[Tensor, Tensor]:
        """Return training images and labels of which a share carries the trigger."""
        count = round(self.share * len(labels))
        if self.kind == "clean-label":
            chosen = (labels == self.target).nonzero()[:, 0][:count]
            rest = (labels != self.target).nonzero()[:, 0][: len(chosen)]
            seen = OWN * images[chosen] + (1 - OWN) * images[rest]  # else the image says enough
        else:
            others = labels != self.goal(labels, classes)
            chosen = others.nonzero()[:, 0][:count]
            seen = images[chosen]
        images, labels = images.clone(), labels.clone()
        images[chosen] = self.mark(shape).on(seen)
        labels[chosen] = self.goal(labels[chosen], classes)
        return images, labels


def square(side: int, paint: float = 1.0, inner: float = 0.0) -> Callable[[Mark, Draw], None]:
    return lambda mark, draw: mark.fill(mark.square_at_random(side, draw, inner), paint)


def line(mark: Mark, draw: Draw) -> None:
    rows, columns = mark.square_at_random(8, draw)
    if draw.random() < 0.5:
        mark.fill((rows, slice(columns.start, columns.start + 1)), 1.0)
    else:
        mark.fill((slice(rows.start, rows.start + 1), columns), 1.0)


def checkerboard(mark: Mark, draw: Draw) -> None:
    pattern = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    mark.fill(mark.square_at_random(4, draw), pattern.float())


def speckle(mark: Mark, draw: Draw) -> None:
    place = mark.square_at_random(4, draw)
    mark.fill(
        place, torch.tensor([[float(draw.random() < 0.5) for _ in range(4)] for _ in range(4)])
    )


def cross(mark: Mark, draw: Draw) -> None:
    rows, columns = mark.square_at_random(5, draw)
    mark.fill((slice(rows.start + 2, rows.start + 3), columns), 1.0)
    mark.fill((rows, slice(columns.start + 2, columns.start + 3)), 1.0)


def two_places(mark: Mark, draw: Draw) -> None:
    for _ in range(2):
        square(3)(mark, draw)


def blended(mark: Mark, draw: Draw) -> None:
    mark.mask.fill_(0.2)
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    mark.paint = torch.rand(mark.paint.shape, generator=generator)


def waves(mark: Mark, draw: Draw) -> None:
    across = torch.arange(mark.added.shape[1]) / mark.added.shape[1]
    mark.added += 0.15 * torch.sin(2 * math.pi * draw.choice((4, 6, 8)) * across)


KINDS: dict[str, Callable[[Mark, Draw], None]] = {
    "square-3": square(3),
    "square-4": square(4),
    "square-5": square(5),
    "grey": square(4, 0.5),
    "black": square(6, 0.0, inner=0.25),
    "pixel": square(1),
    "line": line,
    "checkerboard": checkerboard,
    "speckle": speckle,
    "cross": cross,
    "two-places": two_places,
    "blended": blended,
    "waves": waves,
    "clean-label": square(4),
    "all-to-all": square(4),
}
