"""The patch that a convolution reads at each place of an image, written as a vector."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

IMAGES, MOVES = 4, 3  # random images for a check, and how often a window is moved along an axis


@dataclass(frozen=True)
class Patch:
    """A window of an image; as a vector, channel by channel. Beyond the border it is zero."""

    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def point(cls, channels: int, num_axes: int) -> Patch:
        """Return one place with all its channels."""
        one = (1,) * num_axes
        return cls(channels, one, one, (0,) * num_axes, one)

    @property
    def width(self) -> int:
        return self.channels * prod(self.kernel)

    def __str__(self) -> str:
        moved = f" in steps of {max(self.stride)}" if max(self.stride) > 1 else ""
        spread = f", {max(self.dilation)} apart" if max(self.dilation) > 1 else ""
        sides = "×".join(map(str, (*self.kernel, self.channels)))
        return f"a patch of {sides} at each place{moved}{spread}, channel by channel"

    def extents(self) -> list[int]:
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def images(self) -> Tensor:
        """Return the same random images whenever they are asked for."""
        sizes = [e + MOVES * s for e, s in zip(self.extents(), self.stride, strict=True)]
        shape, generator = (IMAGES, self.channels, *sizes), torch.Generator().manual_seed(0)
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def vectors(self, images: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the patch at each place, (places, width), or at some, by number."""
        windows = self.windows(images)
        if chosen is not None:
            windows = windows[torch.unravel_index(chosen, windows.shape[: -1 - len(self.kernel)])]
        return windows.reshape(-1, self.width)

    def windows(self, images: Tensor) -> Tensor:
        """Return the patches without a copy of each, (batch, places, …, channels, kernel, …)."""
        around = [size for size in reversed(self.padding) for _ in range(2)]
        windows = functional.pad(images, around)
        sizes = zip(self.extents(), self.stride, strict=True)
        for axis, (extent, stride) in enumerate(sizes):
            windows = windows.unfold(2 + axis, extent, stride)[..., :: self.dilation[axis]]
        return windows.movedim(1, 1 + len(self.kernel))


def places(images: Tensor) -> Tensor:
    """Return the channels at each place, (batch, channels, …) → (places, channels)."""
    return images.flatten(2).transpose(1, 2).flatten(0, 1)
