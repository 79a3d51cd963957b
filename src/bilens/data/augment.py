"""Random changes to images: noise, shifts, turns and blur, each image drawn on its own.

torchvision's functions take one set of parameters a call; a loop over 2,048 digits of 28 x 28
takes 140 ms there, one batched call of grid_sample 15 ms. The results agree, which is tested.

Axes in this file: B batch, H rows, W columns, K kernel; P = H * W pixels, from 0 to 1.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import ShapeError, UsageError

ImageShape: TypeAlias = tuple[int, int]
SMALLEST_SIGMA = 1e-3  # pixels; so weak a blur is the identity, and 0 / 0 is avoided
SHORTEST_LENGTH = 0.01  # pixels; noise is white long before, and 0 / 0 is avoided


class Augmentation(ABC):
    """A random change of a batch of images."""

    def __call__(
        self, images: Tensor, image_shape: ImageShape, generator: torch.Generator
    ) -> Tensor:
        num_pixels = math.prod(image_shape)
        if images.ndim != 2 or images.shape[1] != num_pixels or images.shape[0] == 0:
            raise ShapeError(
                f"images has shape {tuple(images.shape)}; (batch, {num_pixels}) with a batch of at "
                f"least 1 was expected for images of {image_shape}: use images.flatten(1)."
            )
        if not images.is_floating_point():
            raise ShapeError(
                f"images has dtype {images.dtype}; a floating-point type was expected: divide "
                "bytes by 255."
            )
        return self.change(images, image_shape, generator)

    @abstractmethod
    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:
        """Return changed images; the arguments are checked."""


@dataclass(frozen=True)
class GaussianNoise(Augmentation):
    """Adds independent normal noise to each pixel; `std` is absolute, in units of a pixel."""

    std: float

    def __post_init__(self) -> None:
        check_range("std", self.std, 0, math.inf)

    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        # two passes over one new tensor: training does this often
        return normal(images.shape, generator).mul_(self.std).to(images).add_(images)


@dataclass(frozen=True)
class SaltAndPepper(Augmentation):
    """Sets each pixel, with a probability, to 0 or to 1 (equally often)."""

    probability: float

    def __post_init__(self) -> None:
        check_range("probability", self.probability, 0, 1)

    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        draw = uniform(images.shape, 0, 1, generator).to(images.device)
        half = self.probability / 2
        return images.masked_fill(draw < half, 0).masked_fill_(draw >= 1 - half, 1)


@dataclass(frozen=True)
class CorrelatedNoise(Augmentation):
    """Adds normal noise that is alike in neighbouring pixels."""

    std: float  # absolute, in units of a pixel
    correlation_length: float  # L, in pixels: where the correlation has fallen to 1 / e

    def __post_init__(self) -> None:
        check_range("std", self.std, 0, math.inf)
        check_range("correlation_length", self.correlation_length, SHORTEST_LENGTH, math.inf)

    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:
        # the kernel is separable, so a matrix smooths each axis
        H, W = image_shape
        white = normal((len(images), H, W), generator).to(images.device)
        rows, columns = (self.smoother(size).to(images.device) for size in (H, W))
        noise = rows @ white @ columns.T
        return noise.mul_(self.std).flatten(1).to(images).add_(images)

    def smoother(self, size: int) -> Tensor:
        """Return the matrix (size, size) that smooths an axis."""
        position = torch.arange(size, dtype=torch.float64)
        distance = position[:, None] - position
        kernel = torch.exp(-2 * (distance / self.correlation_length).square())
        return functional.normalize(kernel, dim=1).float()


@dataclass(frozen=True)
class Translation(Augmentation):
    """Shifts each image by a uniform draw, at most `max_fraction` of its width and height."""

    max_fraction: float

    def __post_init__(self) -> None:
        check_range("max_fraction", self.max_fraction, 0, 1)

    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:
        H, W = image_shape
        fraction = uniform((len(images), 2), -self.max_fraction, self.max_fraction, generator)
        shift = fraction * fraction.new_tensor([W, H])
        return warp(images, image_shape, torch.zeros(len(images)), shift)


@dataclass(frozen=True)
class Rotation(Augmentation):
    """Turns each image about its centre by a uniform draw of at most `max_degrees`, either way."""

    max_degrees: float

    def __post_init__(self) -> None:
        check_range("max_degrees", self.max_degrees, 0, 180)

    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:
        degrees = uniform((len(images),), -self.max_degrees, self.max_degrees, generator)
        return warp(images, image_shape, degrees, torch.zeros(len(images), 2))


@dataclass(frozen=True)
class Blur(Augmentation):
    """Gaussian blur; each image draws its own sigma, uniform from `sigma_min` to `sigma_max`."""

    sigma_min: float  # pixels
    sigma_max: float
    kernel_size: int = 5  # pixels, odd

    def __post_init__(self) -> None:
        check_range("sigma_max", self.sigma_max, 0, math.inf)
        check_range("sigma_min", self.sigma_min, 0, self.sigma_max)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise UsageError(f"kernel_size must be an odd positive number, got {self.kernel_size}.")

    def change(self, images: Tensor, image_shape: ImageShape, generator: torch.Generator) -> Tensor:
        sigma = uniform((len(images),), self.sigma_min, self.sigma_max, generator)
        return blur(images, image_shape, sigma, self.kernel_size)


SPELLINGS: dict[str, tuple[str, Callable[..., Augmentation]]] = {
    "gaussian-noise": ("STD", GaussianNoise),
    "salt-and-pepper": ("PROBABILITY", SaltAndPepper),
    "correlated-noise": ("STD:LENGTH", CorrelatedNoise),
    "translation": ("MAX_FRACTION", Translation),
    "rotation": ("MAX_DEGREES", Rotation),
    "blur": ("SIGMA", lambda sigma: Blur(sigma, sigma)),
}


def parse_augmentation(text: str) -> Augmentation:
    """Return the augmentation of a spelling such as "rotation:15" or "correlated-noise:0.3:4"."""
    name, *numbers = text.strip().split(":")
    if name not in SPELLINGS:
        known = ", ".join(f"{name}:{values}" for name, (values, _) in SPELLINGS.items())
        raise UsageError(f"{text!r} is not a known augmentation: use one of {known}.")
    values, augmentation = SPELLINGS[name]
    try:
        arguments = [float(number) for number in numbers]
        if len(arguments) != values.count(":") + 1:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{text!r} cannot be read: write {name}:{values} with a number for each word."
        ) from None
    try:
        return augmentation(*arguments)
    except UsageError as error:
        raise UsageError(f"{text!r}: {error}") from None


def warp(images: Tensor, image_shape: tuple[int, int], degrees: Tensor, shift: Tensor) -> Tensor:
    """Return images turned clockwise about their centre, then shifted."""
    H, W = image_shape
    angle, shift = degrees.to(images.device).deg2rad(), shift.to(images.device)
    cos, sin = angle.cos(), angle.sin()
    right, down = 2 * shift[:, 0] / W, 2 * shift[:, 1] / H
    to_source_x = torch.stack([cos, sin * H / W, -cos * right - sin * H / W * down], dim=1)
    to_source_y = torch.stack([-sin * W / H, cos, sin * W / H * right - cos * down], dim=1)
    inverse = torch.stack([to_source_x, to_source_y], dim=1)  # (B, 2, 3)
    grid = functional.affine_grid(inverse, [len(images), 1, H, W], align_corners=False)
    moved = functional.grid_sample(images.float().view(-1, 1, H, W), grid, align_corners=False)
    return moved.view(-1, H * W).to(images.dtype)


def blur(images: Tensor, image_shape: tuple[int, int], sigma: Tensor, kernel_size: int) -> Tensor:
    """Return images smoothed by a Gaussian kernel of unit sum, mirrored at the border."""
    H, W = image_shape
    half = kernel_size // 2
    if half >= min(H, W):
        raise ShapeError(
            f"Images of {image_shape} cannot be blurred with a kernel of {kernel_size} pixels; "
            f"one of at most {2 * min(H, W) - 1} was expected: use a smaller kernel_size."
        )
    offset = torch.arange(-half, half + 1, device=images.device)
    width = sigma.to(images.device).clamp(min=SMALLEST_SIGMA)[:, None]
    kernel = torch.exp(-(offset / width).square() / 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (B, K)
    pixels = functional.pad(images.float().view(1, -1, H, W), [half] * 4, mode="reflect")
    # The batch stands where channels usually do: a group for each image has its own kernel.
    pixels = functional.conv2d(pixels, kernel[:, None, :, None], groups=len(images))
    pixels = functional.conv2d(pixels, kernel[:, None, None, :], groups=len(images))
    return pixels.view(-1, H * W).to(images.dtype)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape, device=generator.device).uniform_(low, high, generator=generator)


def check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        bounds = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise UsageError(f"{name} must be a finite number {bounds}, got {value!r}.")
