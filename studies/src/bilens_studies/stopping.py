"""Where the weights of a training say that it should end, beside what held-out images say."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import pairwise
from statistics import mean
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from bilens import ImageDataset
from bilens.findings import share_of, watch_of
from bilens.nn import BilinearClassifier
from bilens.train import ImageRecipe, ImageTask, Run, accuracy, average, train, turned
from bilens_studies.finding_models import Setting, drawn_setting, training_images
from bilens_studies.page_writer import formatted
from bilens_studies.published import Reproduced
from bilens_studies.study import (
    CellContext,
    Measure,
    Record,
    Study,
    StudyOptions,
    to_json,
    with_images,
)

FIRST_JUDGED, RUNS = 1000, 20  # seeds of each data set; smaller ones fixed the rule
HELD_OUT, FEWER = 2000, 1000  # images that no run is trained on
BATCH_SIZE = 64
NEAR_POINTS = 0.3  # of the accuracy, in per cent: what counts as no worse
NEAR = NEAR_POINTS / 100
PEAK = 0.005  # of the accuracy, lost from the best epoch to the last: a real peak
FIXED_EPOCH = 17  # the best of those that were tried on runs that fixed the rule
WAYS = {  # name: what it is, weights after an epoch or their average until then
    "weights": "the weights end it, averaged where they do",
    "weights, last": "the same epoch, not averaged",
    "end": "all epochs",
    "end, averaged": "all epochs, averaged",
    "fixed": f"epoch {FIXED_EPOCH}, averaged",
    "fewer held out": f"best of {FEWER:,} held-out images",
    "held out, averaged": f"best average of {HELD_OUT:,} held-out images",
}
JUDGE = "held out"
AIM = 0.8  # share of runs

Weights: TypeAlias = dict[str, Tensor]


class StoppingStudy(Study):
    """Accuracy where the weights end a training, where held-out images do, and at its end."""

    name = "findings/stopping"
    title = "Where to end a training: weights alone beside held-out images"
    uses = frozenset({"data_dir", "quick"})
    datasets = ("mnist", "fashion-mnist")

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        images = cache(options.images)
        seeds = range(FIRST_JUDGED, FIRST_JUDGED + (2 if options.quick else RUNS))
        return {
            f"{name}-{seed}": partial(measure, options, partial(images, name), seed)
            for name in self.images_read(options)
            for seed in seeds
        }

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        runs = [{"run": name, **cell} for name, cell in cells.items()]
        parts = {"all": runs, "a peak": [one for one in runs if one["peak"]]}
        parts["no peak"] = [one for one in runs if not one["peak"]]
        parts |= {name: [x for x in runs if x["data"] == name] for name in self.datasets}
        found = {name: compare_ways(part) for name, part in parts.items() if part}
        return {"compared": found, "runs": runs}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        one = result["compared"]["all"]["weights"]
        within = one["within"]
        note = f"{within['right']} of {within['total']}: {formatted(within, '.1%')}"
        return {
            "weights": Reproduced(holds=within["value"] >= AIM, note=note, runs=within["total"])
        }


class Onward(ImageTask):
    """A training that goes on where it could end."""

    def stopped(self, run: Run) -> bool:  # noqa: ARG002
        return False


class WholeTraining(NamedTuple):
    """The weights after each epoch, their average until then, and the readings of them."""

    model: BilinearClassifier
    last: list[Weights]
    averaged: list[Weights]
    left: list[float]  # to learn, as the weights say
    seconds: list[float]  # of reading them

    def accuracy_of(self, weights: Weights, images: Tensor, labels: Tensor) -> float:
        self.model.load_state_dict(weights)
        return accuracy(self.model, images, labels)


def train_to_the_end(data: ImageDataset, recipe: ImageRecipe) -> WholeTraining:
    """Train for all epochs, and keep what each of them leaves."""
    watch, seconds = watch_of(data, recipe), list[float]()

    def timed(model: BilinearClassifier) -> dict[str, float]:
        began = time.process_time()
        found = watch(model)
        seconds.append(time.process_time() - began)
        return found

    task = Onward(data, recipe, watch=timed, stop=True)
    run = task.start()
    kept = WholeTraining(run.model, [], [], [], seconds)
    for line in train(run, task):
        kept.last.append({name: one.clone() for name, one in run.model.state_dict().items()})
        kept.averaged.append({name: one.clone() for name, one in average(run).items()})
        kept.left.append((line.weights or {})["left"])
    return kept


def measure(
    options: StudyOptions, images: Callable[[], ImageDataset], seed: int, _context: CellContext
) -> Record:
    """Train to the last epoch, and return accuracies on test images where each way ends."""
    data, setting = images(), drawn_setting("stopping", seed)
    if options.quick:
        setting = replace(setting, num_training=500, epochs=6)
    own = held_out_of(data, setting)
    run = train_to_the_end(own, replace(setting.recipe(), batch_size=BATCH_SIZE))
    epochs = range(len(run.left))
    turns = [index for index, pair in enumerate(pairwise([0.0, *run.left])) if turned(*pair)]
    first = turns[0] if turns else epochs[-1]
    fixed = min(FIXED_EPOCH, len(epochs)) - 1
    held = own.test_images, own.test_labels

    def best(states: Sequence[Weights], count: int | None = None) -> int:
        images, labels = (part[:count] for part in held)
        return max(epochs, key=[run.accuracy_of(x, images, labels) for x in states].__getitem__)

    ends = {
        "weights": (first, run.averaged if turns else run.last),
        "weights, last": (first, run.last),
        "end": (epochs[-1], run.last),
        "end, averaged": (epochs[-1], run.averaged),
        "fixed": (fixed, run.averaged),
        "fewer held out": (best(run.last, FEWER), run.last),
        "held out, averaged": (best(run.averaged), run.averaged),
        JUDGE: (best(run.last), run.last),
    }
    found: Record = {}
    for name, (index, states) in ends.items():
        right = run.accuracy_of(states[index], data.test_images, data.test_labels)
        found[name] = {"epoch": index + 1, "accuracy": right}
    return {
        "data": data.name,
        **asdict(setting),
        "ends": found,
        "peak": found[JUDGE]["accuracy"] - found["end"]["accuracy"] >= PEAK,
        "left": [round(value, 3) for value in run.left],
        "milliseconds": 1000 * mean(run.seconds),
    }


def held_out_of(data: ImageDataset, setting: Setting) -> ImageDataset:
    """Return the training images of a setting, and held-out ones in the place of test images."""
    order = torch.randperm(
        len(data.train_images), generator=torch.Generator().manual_seed(setting.seed)
    )
    held = order[setting.num_training :][:HELD_OUT]  # the first ones are those of the training
    held_out = data.train_images[held], data.train_labels[held]
    return with_images(data, training_images(setting, data), held_out)


def compare_ways(runs: Sequence[Record]) -> Record:
    """Return of each way how many runs come near those that held-out images end, or above them."""
    found = {}
    for way in WAYS:
        leads = [one["ends"][way]["accuracy"] - one["ends"][JUDGE]["accuracy"] for one in runs]
        within = share_of(sum(map(is_near, leads)), len(leads))
        found[way] = {"within": to_json(within), "lead": mean(leads)}
    return found


def is_near(lead: float) -> bool:
    """Return whether an accuracy lies no more than `NEAR` below another one."""
    return lead >= -NEAR - 1e-9  # of which rounding decides nothing
