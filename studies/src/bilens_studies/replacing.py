"""The cost of a bilinear layer in the place of an ordinary or a gated one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import nn

from bilens.train import (
    STEP,
    ImageRecipe,
    ImageTask,
    Run,
    accuracy,
    seeded_initialisation,
    stream,
    train_classifier,
)
from bilens_studies.published import Reproduced
from bilens_studies.study import CellContext, Measure, Record, StudyOptions
from bilens_studies.vision import VisionStudy, recipe_of

LAYERS = {"bilinear": "bilinear", "relu": "ReLU MLP", "silu": "SwiGLU"}
OTHERS = ("relu", "silu")
NOISE = 0.5  # standard deviation on every pixel, in training and in testing
TRAINED = {"clean": 0.0, "noise": NOISE}
TESTED = ("clean", "noise")
SETTINGS = list(product(TRAINED, TESTED))


class ReplacingStudy(VisionStudy):
    """Accuracy of bilinear, ReLU and SwiGLU classifiers with as many weights."""

    name = "vision/replacing"
    title = "Replacing the MLP: bilinear beside ReLU and SwiGLU at equal parameters"

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        recipe = partial(recipe_of, options, epochs=options.choose(10, 50, 100))
        return {
            f"{data}-seed-{seed}": partial(measure, options, data, recipe(seed=seed))
            for data, seed in product(self.images_read(options), self.seeds(options))
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {}
        for (data, runs), other, setting in product(result.items(), OTHERS, TRAINED):
            found[f"{data} {other} {setting}"] = Reproduced(costs(runs, other, setting, setting))
        return found


def costs(runs: Sequence[Record], other: str, trained: str, tested: str) -> tuple[float, ...]:
    """Return by how many points bilinear is better than another layer, seed by seed."""
    return tuple(
        100 * (run["bilinear"][trained][tested] - run[other][trained][tested]) for run in runs
    )


def relu_width(d_hidden: int, d_output: int) -> int:
    """Return how many ReLU neurons have as many weights as `d_hidden` products, head included."""
    return round((2 * d_hidden**2 + d_hidden * d_output) / (d_hidden + d_output))


class ReluTask(ImageTask):
    """The same training of a classifier whose bilinear layer is replaced by ReLU neurons."""

    def start(self) -> Run:
        run = super().start()
        model, optimizer = run.model, run.optimizer
        d_hidden, d_output = self.recipe.d_hidden, model.head.out_features
        width = relu_width(d_hidden, d_output)
        with seeded_initialisation(self.recipe.seed, 1):
            up = nn.Linear(d_hidden, width, bias=False)
            model.layers = nn.ModuleList([nn.Sequential(up, nn.ReLU())])
            model.head = nn.Linear(width, d_output, bias=False)
        model.to(self.device)
        optimizer.param_groups[0]["params"] = list(model.parameters())
        return run


def measure(options: StudyOptions, name: str, recipe: ImageRecipe, context: CellContext) -> Record:
    """Train all layers, clean and with noise, from one seed; test each in both ways."""
    data = options.images(name)
    draws = torch.randn(data.test_images.shape, generator=stream(recipe.seed, STEP))
    tests = dict(zip(TESTED, (data.test_images, data.test_images + NOISE * draws), strict=True))
    recipes = {
        (kind, trained): replace(own, noise=noise)
        for kind, own in (("bilinear", recipe), ("silu", replace(recipe, gate="silu")))
        for trained, noise in TRAINED.items()
    }
    models = dict(zip(recipes, context.classifiers(data, list(recipes.values())), strict=True))
    for trained, noise in TRAINED.items():
        context.say(f"ReLU, trained {trained}")
        models["relu", trained] = train_classifier(data, replace(recipe, noise=noise), ReluTask)
    found: Record = {"data": name, "epochs": recipe.epochs, "weights": {}}
    for (kind, trained), model in models.items():
        found["weights"][kind] = sum(part.numel() for part in model.parameters())
        found.setdefault(kind, {})[trained] = {
            tested: accuracy(model, images, data.test_labels) for tested, images in tests.items()
        }
    return found
