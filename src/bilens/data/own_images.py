"""One's own images: tensors, arrays or files, as a data set with a part that is held out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import DataError, ShapeError
from bilens.base.files import check_path
from bilens.data.arrays import KINDS, Array, read_arrays
from bilens.data.idx import read_idx
from bilens.data.images import ImageDataset, every_fifth

Given: TypeAlias = "Tensor | Array | Sequence[int] | str | Path"


def own_images(
    images: Given,
    labels: Given,
    test: tuple[Given, Given] | None = None,
    class_names: Sequence[str] | None = None,
) -> ImageDataset:
    """Return images with a class each; without `test`, every fifth of each class is held out."""
    x, shape = pixels_of("images", images)
    y = labels_of("labels", labels, len(x))
    if test is None:
        held_out = torch.from_numpy(every_fifth(y.numpy()))
        parts = (x[~held_out], y[~held_out], x[held_out], y[held_out])
        said = f"{len(x):,} images of the caller; every fifth of each class is held out"
    else:
        other, test_shape = pixels_of("the test images", test[0])
        if test_shape != shape:
            raise ShapeError(f"images are {shape}, the test images {test_shape}: they must agree.")
        parts = (x, y, other, labels_of("the test labels", test[1], len(other)))
        said = f"{len(x):,} training and {len(other):,} test images of the caller"
    named = None if class_names is None else tuple(map(str, class_names))
    most = 1 + int(max(part.max() for part in parts[1::2] if len(part)))
    return ImageDataset(
        "own images", *parts, shape, named or tuple(map(str, range(most))), said, "tensors"
    )


def pixels_of(name: str, given: Given) -> tuple[Tensor, tuple[int, int]]:
    """Return images as rows of float32 from 0 to 1, and their rows and columns."""
    found = tensor_of(name, given)
    if found.ndim == 4 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim not in (2, 3) or 0 in found.shape:
        raise ShapeError(
            f"{name} have shape {tuple(found.shape)}; expected grey images (images, rows, columns) "
            "or (images, pixels), and at least one."
        )
    side = math.isqrt(found.shape[-1])
    flat = (side, side) if side * side == found.shape[-1] else (1, found.shape[-1])
    shape = flat if found.ndim == 2 else (found.shape[1], found.shape[2])
    scale = 255 if found.dtype == torch.uint8 else 1
    return found.detach().cpu().flatten(start_dim=1).float() / scale, shape


def labels_of(name: str, given: Given, count: int) -> Tensor:
    """Return the number of the class of each image."""
    found = tensor_of(name, given).detach().cpu()
    if found.shape != (count,) or found.is_floating_point() or found.dtype == torch.bool:
        raise ShapeError(
            f"{name} have shape {tuple(found.shape)} and dtype {found.dtype}; expected {count} "
            "whole numbers, the class of each image from 0."
        )
    return found.long()


def tensor_of(name: str, given: Given) -> Tensor:
    """Return a tensor, array or list as a tensor; a text is the path of a file of one array."""
    if isinstance(given, str | Path):
        path = check_path(name, given)
        arrays = read_arrays(path) if path.suffix in KINDS else {"": read_idx(path)}
        if len(arrays) != 1:
            raise DataError(f"{path}: holds {len(arrays)} arrays; expected one, of {name}.")
        given = next(iter(arrays.values()))
    try:
        return given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} is no tensor, array or path of one ({error}).") from None
