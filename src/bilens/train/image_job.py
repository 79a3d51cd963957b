"""Training an image classifier in a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bilens.data.images import ImageDataset
from bilens.io.model_folder import save
from bilens.nn import BilinearClassifier
from bilens.train.job import TrainingJob
from bilens.train.loop import EpochMetrics, Run, start_run, steps_per_epoch, train
from bilens.train.recipe import Recipe
from bilens.train.run_folder import TrainingResult, run_in_folder


class ImageJob(TrainingJob[BilinearClassifier, EpochMetrics]):
    """A classifier, from a recipe and images.

    Raises:
        UsageError: If the training set holds less than one batch.
    """

    data_noun = "images"

    def __init__(self, data: ImageDataset, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe.resolved()
        self.epochs = recipe.epochs
        steps_per_epoch(recipe, len(data.train_images))
        self.about = {"recipe": self.recipe.to_dict(), "data": data.fingerprint}

    def start(self) -> Run:
        """Return the run at its beginning."""
        return start_run(self.recipe, self.data.train_images.shape[1], len(self.data.class_names))

    def train(self, run: Run, after_step: Callable[[Run], None]) -> Iterator[EpochMetrics]:
        """Continue a run to its end."""
        return train(run, self.data, self.recipe, after_step)

    def line(self, content: dict[str, Any]) -> EpochMetrics:
        """Return a line of the history from its JSON values."""
        return EpochMetrics(**content)

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        """Write the model folder."""
        data = self.data
        details = {"recipe": json.dumps(self.recipe.to_dict()), "data_source": data.source}
        details |= {"data_sha256": data.fingerprint, "data_name": data.name}
        save(
            run.model,
            folder,
            input_shape=data.image_shape,
            output_names=data.class_names,
            provenance={**details, "seed": str(self.recipe.seed), **provenance},
            overwrite=True,
        )


def train_in_folder(
    folder: Path, data: ImageDataset, recipe: Recipe, **options: Any
) -> TrainingResult[EpochMetrics]:
    """Train a classifier and leave a model folder; the options are those of `run_in_folder`.

    Raises:
        UsageError: If the training set holds less than one batch; see `run_in_folder` for more.
    """
    return run_in_folder(folder, ImageJob(data, recipe), **options)
