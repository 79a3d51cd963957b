"""Geometry and blur of a batch of images, with other parameters for each image.

torchvision's functions take one set of parameters a call; a loop over 2,048 digits of 28 x 28
takes 140 ms there, one batched call of grid_sample 15 ms. The results agree, which is tested.

Axes in this file: B batch, H rows, W columns, K kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import ShapeError

SMALLEST_SIGMA = 1e-3  # pixels; so weak a blur is the identity, and 0 / 0 is avoided


def warp(images: Tensor, image_shape: tuple[int, int], degrees: Tensor, shift: Tensor) -> Tensor:
    """Return images turned clockwise about their centre, then shifted.

    Math: the output at p is the input at R^-1 (p - shift), p measured from the centre, bilinear;
        0 outside. affine_grid wants p in units of half the width and half the height.

    Args:
        images: (B, H * W) in any floating-point type; the geometry is computed in float32.
        image_shape: (H, W).
        degrees: (B,).
        shift: (B, 2), in pixels to the right and down.
    """
    H, W = image_shape
    angle, shift = degrees.to(images.device).deg2rad(), shift.to(images.device)
    cos, sin = angle.cos(), angle.sin()
    right, down = 2 * shift[:, 0] / W, 2 * shift[:, 1] / H
    to_source_x = torch.stack([cos, sin * H / W, -cos * right - sin * H / W * down], dim=1)
    to_source_y = torch.stack([-sin * W / H, cos, sin * W / H * right - cos * down], dim=1)
    inverse = torch.stack([to_source_x, to_source_y], dim=1)  # (B, 2, 3)
    grid = functional.affine_grid(inverse, [len(images), 1, H, W], align_corners=False)
    pixels = images.float().view(-1, 1, H, W)
    return (
        functional.grid_sample(pixels, grid, align_corners=False).view(-1, H * W).to(images.dtype)
    )


def blur(images: Tensor, image_shape: tuple[int, int], sigma: Tensor, kernel_size: int) -> Tensor:
    """Return images smoothed by a Gaussian kernel of unit sum, mirrored at the border.

    Args:
        images: (B, H * W) in any floating-point type; the sums are computed in float32.
        image_shape: (H, W).
        sigma: (B,), in pixels.
        kernel_size: Odd.

    Raises:
        ShapeError: If half the kernel is not smaller than the image.
    """
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
