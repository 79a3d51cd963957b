"""One's own images, tensors, arrays, files or folders, as a data set or as a model reads them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import DataError, MissingExtraError, ShapeError
from bilens.base.files import check_path
from bilens.base.memory import check_memory
from bilens.data.arrays import KINDS, Array, read_arrays
from bilens.data.idx import read_idx
from bilens.data.images import ImageDataset, every_fifth
from bilens.data.model_interface import ONLY_0_AND_1, ModelInterface
from bilens.data.sample_files import check_pixels

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
        said = f"{len(x):,} images of the caller; every fifth of each class is held out"
        held_out = torch.from_numpy(every_fifth(y.numpy()))
        x, y, test_x, test_y = x[~held_out], y[~held_out], x[held_out], y[held_out]
    else:
        test_x, test_shape = pixels_of("the test images", test[0])
        if test_shape != shape:
            raise ShapeError(f"images are {shape}, the test images {test_shape}: they must agree.")
        test_y = labels_of("the test labels", test[1], len(test_x))
        said = f"{len(x):,} training and {len(test_x):,} test images of the caller"
    most = 1 + int(max(part.max() for part in (y, test_y) if len(part)))
    names, named = tuple(map(str, class_names or range(most))), bool(class_names)
    return ImageDataset("own images", x, y, test_x, test_y, shape, names, said, "tensors", named)


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
    if scale == 255 and int(found.max()) == 1:
        raise DataError(f"{name}: {ONLY_0_AND_1}")
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


# ---- folders of images: a subfolder for each class

SUFFIXES = (".png", ".jpg", ".jpeg")
# of files that lie beside images, and are none
BESIDE = (".csv", ".tsv", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".html", ".db", ".ini")


def read_images(folder: Path, model: ModelInterface) -> tuple[list[Path], Array]:
    """Return the images in the subfolders of a folder, and their bytes as a model reads them."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("Pillow", "images", "Reading folders of images") from None
    files = [path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(
            f"{folder}: holds no data; expected a subfolder with PNG or JPEG images for each "
            "class, or the IDX files of MNIST or Fashion-MNIST."
        )
    left = [
        f"{path.relative_to(folder)}"
        for path in sorted({*folder.rglob("*"), *folder.glob("*/*")} - {*files})
        if path.is_file() and path.suffix.lower() not in BESIDE
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if left:
        raise DataError(
            f"{folder}: {len(left)} file{'s' if len(left) > 1 else ''} would not be read "
            f"({', '.join(left[:5])}{', …' if len(left) > 5 else ''}); expected PNG or JPEG images "
            "right in the subfolder of their class: convert, move or remove the others."
        )
    check_memory(16 * len(files) * model.d_input, f"{folder}", "pass fewer images")
    found, changed, shape = [], 0, model.input_shape or ()
    for path in files:
        try:
            with Image.open(path) as image:
                columns, rows = image.size
                if len(shape) < 2:
                    planes = (3,) if model.d_input == 3 * rows * columns else ()
                    shape = (*planes, rows, columns)
                    model.note("assumed_image", shape=" × ".join(map(str, shape)))
                if (rows, columns) not in (shape, shape[1:], shape[:-1]):
                    raise DataError(
                        f"{path}: is {rows} × {columns} pixels; the model reads {shape}: scale it."
                    )
                check_pixels(path, image.mode)
                if len(shape) == 3 and shape[0] == shape[-1] == 3:
                    raise DataError(
                        f"{path}: the model reads {shape}, and nothing says whether colours or "
                        "columns are last: pass arrays, as it reads them."
                    )
                mode = "RGB" if len(shape) == 3 and 3 in (shape[0], shape[-1]) else "L"
                changed += image.mode != mode
                array = np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: is no image, or is damaged ({error}).") from error
        found.append(np.moveaxis(array, -1, 0) if mode == "RGB" and shape[0] == 3 else array)
    if changed:
        model.note("rgb" if mode == "RGB" else "grey", count=changed)
    return files, np.stack(found)
