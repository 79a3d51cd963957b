"""Predictions as sums over eigenvectors: what speaks for them, what is missing (App. C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import mean

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.data.images import ImageDataset
from bilens.findings.explanation import TYPICAL, WRONG, choose_examples
from bilens.nn import BilinearClassifier
from bilens.report.raster import Painter
from bilens.report.text import signed
from bilens.report.tiles import Tile, TileRow, tile_plate, valued_tiles, vector_image
from bilens.studies.comparison import Measured, Published, table
from bilens.studies.study import Record, StudyOptions
from bilens.studies.vision import SeedStudy, class_spectra, in_words

PUBLISHED_IMAGES = {"published, right": (8, 5), "published, wrong": (321, 2)}  # test image, label
PUBLISHED_RIVAL = 7  # as which image 321 is read
DRAWN, SHOWN = 4, 20  # contributions to a logit: with their eigenvectors; of each sign, as bars
CHUNK = 500  # images whose contributions are held at a time
EXACT = 1e-8


class ExplanationStudy(SeedStudy):
    """What decides single predictions, and predictions in general."""

    name = "vision/explanations"
    title = "Predictions of a digit classifier as sums over eigenvectors"
    datasets = ("mnist",)
    published = {  # noqa: RUF012 - a constant
        "sum": Published(
            "largest relative error of logits as sums of contributions, all test images",
            "§3.2, equation 4",
            claim=f"exact (here: at most {EXACT:g})",
        ),
        "right": Published(
            "test image 8, a 5: share of suppression in what speaks for the answer",
            "App. C",
            claim="decided by suppression (here: at least half)",
            flaw="one image, picked by hand",
        ),
        "read": Published(
            "test image 321, a 2: share of the seeds that read it as 7",
            "App. C",
            claim="read as 7 (here: by most seeds)",
        ),
        "wrong": Published(
            "test image 321: share of what it lacks against right images of its class that is "
            "missing positive parts",
            "App. C",
            claim="decided by missing parts (here: at least half)",
            flaw="one image, picked by hand",
        ),
    }

    def read(
        self, _options: StudyOptions, data: ImageDataset, models: Sequence[BilinearClassifier]
    ) -> Record:
        return read_predictions(data, models[0])

    def ours(self, result: Record) -> Mapping[str, Measured]:
        runs = result["mnist"]
        errors = tuple(run["error"] for run in runs)
        found = {"sum": Measured(errors, max(errors) <= EXACT, once=True)}
        right, wrong = ([run["examples"].get(name) for run in runs] for name in PUBLISHED_IMAGES)
        if all(right) and all(wrong):
            shares = tuple(one["suppression"] for one in right)
            sevens = tuple(float(one["predicted"] == PUBLISHED_RIVAL) for one in wrong)
            found |= {
                "right": Measured(shares, mean(shares) >= 0.5, deciding(right)),
                "read": Measured(sevens, mean(sevens) > 0.5),
            }
            misread = [one for one in wrong if one["missing"] is not None]
            if missing := tuple(one["missing"] for one in misread):
                found["wrong"] = Measured(missing, mean(missing) >= 0.5, deciding(misread))
        return found

    def figures(self, document: Record) -> Mapping[str, str]:
        run = document["result"]["mnist"][0]
        return {file_of(name): plate_of(one) for name, one in run["examples"].items()}

    def parts(self, result: Record) -> Record:
        runs = result["mnist"]
        heads = (
            "image | seed | test image | label | answer | rival | margin | suppression | missing "
            "parts | decides"
        )
        rows = [
            [name, run["recipes"][0]["seed"], *row_of(one)]
            for run in runs
            for name, one in run["examples"].items()
        ]
        population = [
            [told, f"{mean(run['population'][name] for run in runs):.1%}"]
            for name, told in POPULATION.items()
        ]
        return {
            "recipe": in_words(runs[0]["recipes"][0]),
            "error": f"{max(run['error'] for run in runs):.1e}",
            "population": table("test images | share", population),
            "rows": table(heads, rows),
            "drawings": "\n\n".join(f"![{name}]({file_of(name)})" for name in runs[0]["examples"]),
        }


POPULATION = {
    "suppression": "right answers: mean share of suppression",
    "decides_right": "… where it decides: without it the rival is ahead",
    "missing": "wrong answers: median share of missing parts",
    "decides_wrong": "… where they decide: with them the class is ahead of the answer",
}


def deciding(examples: Sequence[Record]) -> str:
    count = sum(one["decides"] for one in examples)
    return f"the answer changes without it in {count} of {len(examples)} seeds"


def file_of(name: str) -> str:
    return f"{name.replace(',', '').replace(' ', '-')}.svg"


def plate_of(one: Record) -> str:
    title = f"Test image {one['index']}: a {one['label']}, read as {one['predicted']}"
    rows = [TileRow("image", [Tile(one["image"])])]
    for score in one["classes"]:
        tiles = valued_tiles(score["images"], score["values"])
        rows.append(TileRow(f"{score['name']}: {signed(score['score'], 1)}", tiles, score["ends"]))
    note = "Per class: what the largest parts add; bars: the largest of each sign, in order."
    return tile_plate(title, note, rows)


def row_of(one: Record) -> list[object]:
    missing = "–" if one["missing"] is None else f"{one['missing']:.0%}"
    numbers = (one["index"], one["label"], one["predicted"], one["rival"])
    margin, suppression = signed(one["margin"], 2), f"{one['suppression']:.0%}"
    return [*numbers, margin, suppression, missing, "yes" if one["decides"] else "no"]


def signed_sums(eigs: EigenDecomposition, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of positive and of negative contributions, (images, classes) each."""
    both = []
    for x in torch.split(images, CHUNK):
        pairs = eigs.contributions(x).pairs
        both.append(torch.stack([pairs.clamp(min=0).sum(-1), pairs.clamp(max=0).sum(-1)]))
    positive, negative = torch.cat(both, dim=2)
    return positive.T, negative.T


@torch.no_grad()
def read_predictions(data: ImageDataset, model: BilinearClassifier) -> Record:
    """Return what decides chosen test images and all of them, in raw logits of the input basis.

    The published images are among them where their labels are the published ones.
    """
    labels, images = data.test_labels, data.test_images.double()
    model = deepcopy(model).double()
    eigs, logits = class_spectra(model, "input"), model(images)
    positive, negative = signed_sums(eigs, images)
    gap = (positive + negative - logits).abs().max(dim=1).values
    order = logits.argsort(dim=1, descending=True)
    answer = order[:, 0]
    right = answer == labels
    rival = torch.where(right, order[:, 1], labels)  # of a wrong answer, the right one
    rows = torch.arange(len(labels))
    for_answer, against_rival = positive[rows, answer], -negative[rows, rival]
    suppression = against_rival / (for_answer + against_rival).clamp(min=1e-300)
    lost, lacked = missing_parts(positive, negative, labels, answer, right)
    missing = lost / torch.where(right, 1, lacked)
    margin = logits[rows, answer] - logits[rows, rival]
    decides = torch.where(right, against_rival, lost) > margin
    chosen = choose_examples(logits, labels)
    picked = {f"by rule, {name}": chosen[name] for name in (TYPICAL, WRONG) if name in chosen}
    if all(labels[i : i + 1].tolist() == [label] for i, label in PUBLISHED_IMAGES.values()):
        picked |= {name: index for name, (index, _) in PUBLISHED_IMAGES.items()}
    examples = {}
    for name, index in picked.items():
        shown = dict.fromkeys([*order[index, :2].tolist(), int(labels[index])])
        examples[name] = {
            "index": index,
            "label": int(labels[index]),
            "predicted": int(answer[index]),
            "rival": int(rival[index]),
            "margin": float(margin[index]),
            "suppression": float(suppression[index]),
            "missing": None if right[index] else float(missing[index]),
            "decides": bool(decides[index]),
            "image": Painter(*data.image_shape, 1.0).image(data.test_images[index].tolist()),
            "classes": [class_parts(eigs[c], images[index], data, c) for c in shown],
        }
    return {
        "error": float((gap / logits.abs().max(dim=1).values).max()),
        "examples": examples,
        "population": {
            "suppression": mean_of(suppression[right]),
            "decides_right": mean_of(decides[right]),
            "missing": float(missing[~right].median()) if bool((~right).any()) else 0.0,
            "decides_wrong": mean_of(decides[~right]),
        },
    }


def mean_of(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else 0.0


def missing_parts(
    positive: Tensor, negative: Tensor, labels: Tensor, answer: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """Return by how much positive parts of its class are missing, and all it lacks, (images,).

    It lacks the mean margin of its class over the answer, over right images of the class, minus its
    own. Of right answers the numbers mean nothing.
    """
    rows = torch.arange(len(labels))
    members = torch.zeros_like(positive)
    members[rows, labels] = right.to(members)
    usual = members / members.sum(dim=0).clamp(min=1)
    lacks = []
    for part in (positive, negative):
        mean_of_class = usual.T @ part  # (classes, classes)
        lacks.append(mean_of_class[labels, labels] - part[rows, labels])
        lacks.append(part[rows, answer] - mean_of_class[labels, answer])
    return lacks[0], torch.stack(lacks).sum(dim=0)


def class_parts(eig: EigenDecomposition, x: Tensor, data: ImageDataset, index: int) -> Record:
    """Return the largest contributions to one logit of one image."""
    pairs = eig.contributions(x[None]).pairs[0]
    largest = pairs.abs().topk(min(DRAWN, len(pairs))).indices
    falling = pairs.sort(descending=True).values
    return {
        "name": data.class_names[index],
        "score": float(pairs.sum()),
        "values": pairs[largest].tolist(),
        "images": [vector_image(v, data.image_shape) for v in eig.eigenvectors[largest].tolist()],
        "ends": [*falling[:SHOWN].tolist(), *falling[-SHOWN:].tolist()],
    }
