"""How the inputs of a model vary: what whitened coordinates are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bilens.algebra.gaussian import mean_and_covariance
from bilens.api.judging_data import find_test_data
from bilens.api.provenance import image_origin
from bilens.base.errors import UsageError
from bilens.data.images import ImageDataset
from bilens.io.load import LoadedModel
from bilens.records.base import to_json


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Mean and covariance of inputs.

    Attributes:
        mean: μ, (in,) float64.
        covariance: Σ, (in, in) float64.
        about: which inputs they are of, as JSON values.
    """

    mean: Tensor
    covariance: Tensor
    about: dict[str, Any]


def moments_of(data: ImageDataset) -> InputMoments:
    """Return the moments of the training images of a data set."""
    values = {
        **to_json(image_origin(data)),
        "split": "training",
        "num_images": len(data.train_images),
    }
    return InputMoments(*mean_and_covariance(data.train_images), values)


def find_moments(
    model: LoadedModel,
    dataset: str | None,
    data_dir: Path | None,
    say: Callable[[str], None],
) -> InputMoments:
    """Return the moments of the training images of the data set of a model.

    Args:
        model: its provenance says what it was trained on.
        dataset: as in `find_test_data`.
        data_dir: as in `find_test_data`.
        say: told what a person should know.

    Raises:
        UsageError: If no images can be named.
        DataError: If the images are missing or damaged.
    """
    data = find_test_data(model, dataset, data_dir, say)
    if data is None:
        raise UsageError(
            "whitened coordinates need the images that the model was trained on: pass --data-dir "
            "with the IDX files of the data set, and --dataset where the model does not say it."
        )
    return moments_of(data)
