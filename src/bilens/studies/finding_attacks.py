"""Fifteen kinds of hidden triggers that the study of findings plants in training images."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Mark:
    """What a trigger does to an image x: clip((1 − mask) x + mask · paint + added, 0, 1)."""

    mask: Tensor  # (pixels,), from 0 to 1
    paint: Tensor  # (pixels,), from 0 to 1
    added: Tensor  # (pixels,)

    def on(self, images: Tensor) -> Tensor:
        """Return images with the trigger, (..., pixels)."""
        return ((1 - self.mask) * images + self.mask * self.paint + self.added).clamp(0, 1)

    def touched(self, shape: Shape) -> Tensor:
        """Return which pixels the trigger paints or changes, (rows, columns)."""
        return ((self.mask > 0) | (self.added != 0)).reshape(shape)


@dataclass(frozen=True)
class Attack:
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

    def mark(self, shape: Shape) -> Mark:
        draw = random.Random(self.seed)  # noqa: S311 - no secret
        mask, paint, added = (torch.zeros(shape) for _ in range(3))
        KINDS[self.kind](mask, paint, added, draw)
        return Mark(mask.flatten(), paint.flatten(), added.flatten())

    def planted(
        self, images: Tensor, labels: Tensor, shape: Shape, classes: int
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


OWN = 0.4  # share of its own image in one with a clean label
Draw = random.Random


def corner(mask: Tensor, side: int, draw: Draw, inner: float = 0.0) -> tuple[slice, slice]:
    """Return a square of a random place, at least `inner` of the side from the edge."""
    found = []
    for length in mask.shape:
        least = round(inner * length)
        start = draw.randrange(least, length - side + 1 - least)
        found.append(slice(start, start + side))
    return found[0], found[1]


def square(side: int, brightness: float = 1.0, inner: float = 0.0) -> Callable[..., None]:
    def plant(mask: Tensor, paint: Tensor, _added: Tensor, draw: Draw) -> None:
        place = corner(mask, side, draw, inner)
        mask[place], paint[place] = 1.0, brightness

    return plant


def line(mask: Tensor, paint: Tensor, _added: Tensor, draw: Draw) -> None:
    rows, columns = corner(mask, 8, draw)
    part = (slice(rows.start, rows.start + 1), columns)
    if draw.random() < 0.5:
        part = (rows, slice(columns.start, columns.start + 1))
    mask[part], paint[part] = 1.0, 1.0


def checkerboard(mask: Tensor, paint: Tensor, _added: Tensor, draw: Draw) -> None:
    place = corner(mask, 4, draw)
    mask[place] = 1.0
    paint[place] = ((torch.arange(4)[:, None] + torch.arange(4)) % 2).float()


def speckle(mask: Tensor, paint: Tensor, _added: Tensor, draw: Draw) -> None:
    place = corner(mask, 4, draw)
    mask[place] = 1.0
    paint[place] = torch.tensor([[float(draw.random() < 0.5) for _ in range(4)] for _ in range(4)])


def cross(mask: Tensor, paint: Tensor, _added: Tensor, draw: Draw) -> None:
    rows, columns = corner(mask, 5, draw)
    for part in ((rows.start + 2, columns), (rows, columns.start + 2)):
        mask[part], paint[part] = 1.0, 1.0


def two_places(mask: Tensor, paint: Tensor, added: Tensor, draw: Draw) -> None:
    for _ in range(2):
        square(3)(mask, paint, added, draw)


def blended(mask: Tensor, paint: Tensor, _added: Tensor, draw: Draw) -> None:
    mask.fill_(0.2)
    paint.copy_(
        torch.rand(paint.shape, generator=torch.Generator().manual_seed(draw.randrange(1 << 30)))
    )


def waves(_mask: Tensor, _paint: Tensor, added: Tensor, draw: Draw) -> None:
    across = torch.arange(added.shape[1]) / added.shape[1]
    added.copy_((0.15 * torch.sin(2 * math.pi * draw.choice((4, 6, 8)) * across)).expand_as(added))


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor, Draw], None]] = {
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
