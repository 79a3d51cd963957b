"""The four IDX files of an MNIST-like data set: their names, and where a folder keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bilens.base.errors import DataError
from bilens.data.idx import ByteArray, read_images, read_labels

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Data set -> names of its own subfolder; the first one is torchvision's.
SUBFOLDERS = {"mnist": ("MNIST", "mnist"), "fashion-mnist": ("FashionMNIST", "fashion-mnist")}


class RawSplits(NamedTuple):
    """The arrays of the four files, as stored."""

    train_images: ByteArray  # (images, rows, columns)
    train_labels: ByteArray  # (images,)
    test_images: ByteArray
    test_labels: ByteArray


def read_folder(name: str, folder: Path) -> tuple[Path, RawSplits]:
    """Return the place inside `folder` that holds the four files, and what they hold.

    Raises:
        DataError: If the folder is missing or unreadable, lacks a file, a file is damaged, or two
            files do not belong together.
    """
    try:
        place, (train_images, train_labels, test_images, test_labels) = locate(name, folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be searched ({error.strerror}); a folder with the four IDX files of "
            f"{name} was expected: check its permissions."
        ) from None
    training = read_split(train_images, train_labels)
    return place, RawSplits(*training, *read_split(test_images, test_labels))


def read_split(image_file: Path, label_file: Path) -> tuple[ByteArray, ByteArray]:
    """Return the images of one file and their labels from another.

    Raises:
        DataError: If a file is damaged, or there is not one label for each image.
    """
    images, labels = read_images(image_file), read_labels(label_file)
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} holds {len(images):,} images and {label_file} {len(labels):,} labels; "
            "one label for each image was expected: check that the two files belong together."
        )
    return images, labels


def locate(name: str, folder: Path) -> tuple[Path, list[Path]]:
    """Return the first complete place and the paths of its four files, in the order of FILES.

    The data set's own subfolders come first: a folder may hold MNIST and, inside, FashionMNIST.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {problem}; a folder with the four IDX files of {name} was expected: "
            "check the path."
        )
    inside = [Path(own, raw) for own in (*SUBFOLDERS[name], "") for raw in ("raw", "")]
    found = {place: find_files(folder / place) for place in inside}
    best = max(inside, key=lambda place: len(found[place]))  # the first one of the fullest
    missing = [file for file in FILES if file not in found[best]]
    if missing:
        searched = ", ".join(str(place) for place in inside if place != Path())
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; the four IDX files of {name} were expected in "
            f"it or in one of {searched}: add the missing files, with or without .gz."
        )
    return folder / best, [found[best][file] for file in FILES]


def find_files(place: Path) -> dict[str, Path]:
    """Return standard name -> path of those of the four files that are in `place`."""
    found: dict[str, Path] = {}
    for file in FILES:
        for spelling in (file, file.replace("-idx", ".idx")):
            for path in (place / spelling, place / f"{spelling}.gz"):
                if path.exists():
                    found.setdefault(file, path)
    return found
