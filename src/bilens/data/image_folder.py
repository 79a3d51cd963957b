"""Folders of images: a subfolder for each class, PNG or JPEG, of the size that a model reads."""

from pathlib import Path

import numpy as np

from bilens.base.errors import DataError, MissingExtraError
from bilens.base.memory import check_memory
from bilens.data.arrays import Array
from bilens.data.model_interface import ModelInterface

SUFFIXES = (".png", ".jpg", ".jpeg")
# of files that lie beside images, and are none
BESIDE = (".csv", ".tsv", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".html", ".db", ".ini")
EIGHT_BITS = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # pixels, as Pillow has them


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
                if image.mode not in EIGHT_BITS:
                    raise DataError(f"{path}: has {image.mode} pixels; expected 8 bits a colour.")
                mode = "RGB" if len(shape) == 3 and 3 in (shape[0], shape[-1]) else "L"
                changed += image.mode != mode
                array = np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: is no image, or is damaged ({error}).") from error
        found.append(np.moveaxis(array, -1, 0) if mode == "RGB" and shape[0] == 3 else array)
    if changed:
        model.note("rgb" if mode == "RGB" else "grey", count=changed)
    return files, np.stack(found)
