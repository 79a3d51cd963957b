"""The four corners of regularisation: input noise and weight decay, alone and together."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import stdev

import torch

from bilens import ImageDataset
from bilens.train import ImageRecipe, accuracy
from bilens_studies.published import Reproduced
from bilens_studies.study import CellContext, Measure, Record, StudyOptions, with_images
from bilens_studies.vision import Model, SeedStudy, by_name, read_classifier, recipe_of

CORNERS = {  # standard deviation of the noise, weight decay
    "none": (0.0, 0.0),
    "noise": (0.5, 0.0),
    "decay": (0.0, 1.0),
    "both": (0.5, 1.0),
}
EPOCHS, WIDTH = 100, 256
QUANTITIES = ("accuracy", "effective_rank_embedding", "top_share_embedding")
FASHION, SPLITS = "fashion-mnist", 5  # random splits, one seed
OFFICIAL = 0.3530  # standard deviation of its training pixels, as it is normalised everywhere


class CornerStudy(SeedStudy):
    """Accuracy, spectra and eigenvectors of the four corners, on two data sets."""

    name = "vision/corners"
    title = "Input noise and weight decay: accuracy, spectra and eigenvectors"

    def recipes(self, options: StudyOptions, seed: int) -> dict[str, ImageRecipe]:
        recipe = partial(recipe_of, options, d_hidden=WIDTH, epochs=EPOCHS, seed=seed)
        corners = CORNERS.items()
        return {name: recipe(noise=noise, weight_decay=decay) for name, (noise, decay) in corners}

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        split = partial(measure_split, options, recipes=self.recipes(options, 0))
        splits = range(SPLITS if FASHION in self.images_read(options) else 0)
        return {
            **super().cells(options),
            **{f"split-{number}": partial(split, number) for number in splits},
        }

    def read_model(self, _options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        return read_classifier(model, data)

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        splits = [cell for cell in cells.values() if "pixels" in cell]
        return {
            "data": {
                data: {corner: by_name([run[corner] for run in runs]) for corner in CORNERS}
                for data, runs in super().document(options, cells).items()
            },
            "splits": {corner: [one[corner] for one in splits] for corner in CORNERS},
            "pixels": splits[0]["pixels"] if splits else None,
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {
            f"{data} {corner} {quantity}": Reproduced(tuple(found[quantity]))
            for data, corners in result["data"].items()
            for corner, found in corners.items()
            for quantity in QUANTITIES
        }
        other = "" if round(result["pixels"] or OFFICIAL, 4) == OFFICIAL else "other test images: "
        for corner, right in result["splits"].items():
            if right:
                key = f"{FASHION} {corner} accuracy"
                note = f"{other}between {len(right)} random splits standard deviation "
                found[key] = replace(found[key], note=f"{note}{stdev(right):.4f}")
        return found


def measure_split(
    options: StudyOptions, number: int, context: CellContext, recipes: Mapping[str, ImageRecipe]
) -> Record:
    """Train on a random split of all images of Fashion-MNIST."""
    data = options.images(FASHION)
    anew = split_anew(data, number)
    models = zip(recipes, context.classifiers(anew, list(recipes.values())), strict=True)
    right = {name: accuracy(one, anew.test_images, anew.test_labels) for name, one in models}
    return {"data": "split", "pixels": round(float(data.train_images.std()), 4), **right}


def split_anew(data: ImageDataset, number: int) -> ImageDataset:
    """Return the same images, others of them held out: of each class as many as the mean was."""
    images = torch.cat([data.train_images, data.test_images])
    labels = torch.cat([data.train_labels, data.test_labels])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(number))
    each = len(data.test_labels) // len(data.class_names)
    test = torch.cat([order[labels[order] == c][:each] for c in range(len(data.class_names))])
    train = order[~torch.isin(order, test)]
    return with_images(data, (images[train], labels[train]), (images[test], labels[test]))
