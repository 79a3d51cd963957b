"""A task whose answer is known: is an image similar to a target? The target, read from the weights.

Of the contrast True − False, u = (−1, 1), with biases folded in. x is similar to t where
(t̂·x)² > cos² ‖x‖², so the answer is a quadratic form, one large eigenvalue with the vector t̂.

The added coordinate is as long as a typical image, not 1: some unit is chosen in any case, and in
this one the constant and the linear part hardly enter the leading eigenvectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bilens import ImageDataset, QuadraticForm
from bilens.nn import BilinearClassifier
from bilens.report import Painter
from bilens.train import accuracy
from bilens_studies.drawings import Tile, TileRow, tile_plate, vector_image
from bilens_studies.published import Reproduced
from bilens_studies.study import CellContext, Measure, Record, StudyOptions
from bilens_studies.vision import VisionStudy, recipe_of

SIMILAR = 0.4  # cosine with the target
FIRST = 6  # the published target: of each class the first training image from this one on
DECAYS = (0.5, 1.0, 2.0)  # the published ones, and a lower one, which leaves more directions
DIGITS, PUBLISHED_DIGIT = range(10), 1
READINGS = ("folded", "unit")
SHOWN = 6  # eigenvalues in the record
CLOSE, SECOND, MOST_TARGETS = 0.9, 1 / 3, 8  # what one large eigenvalue with the target means


class TargetStudy(VisionStudy):
    """Targets beside the top eigenvectors of classifiers that say what is similar to them."""

    name = "vision/targets"
    title = "A known answer: similarity to a target image"
    uses = frozenset({"data_dir", "quick"})
    datasets = ("mnist",)

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        cells = {f"digit-{digit}": partial(measure, options, digit, False) for digit in DIGITS}
        return {**cells, "complement": partial(measure, options, PUBLISHED_DIGIT, True)}

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {"targets": list(cells.values())}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        targets = [row["decays"] for row in result["targets"] if not row["complement"]]
        (either,) = (row["decays"] for row in result["targets"] if row["complement"])
        found = {}
        for index, decay in enumerate(DECAYS):
            held = [claims_held(target[index]) for target in targets]
            for key in held[0]:
                count = sum(one[key] for one in held)
                note = f"{count} of {len(targets)} (holds from {MOST_TARGETS} on)"
                found[f"{key}-{decay:g}"] = Reproduced(
                    holds=count >= MOST_TARGETS, note=note, runs=len(targets)
                )
            one = either[index]["folded"]
            note = f"|cos| {one['cosines'][0]:.3f}, second over first {one['ratio']:.2f}"
            both = claims_held(either[index])
            found[f"either-{decay:g}"] = Reproduced(
                holds=both["cosine"] and both["second"], note=note
            )
        every = [one for target in targets for one in target]
        added = [(x["constant"] + x["linear_part"]) / abs(x["quadratic_part"]) for x in every]
        note = f"mean {mean(added):.2f}, largest {max(added):.2f} of all targets and decays"
        return {**found, "bias": Reproduced(holds=max(added) < 0, note=note, runs=len(targets))}

    def figures(self, result: Record) -> Mapping[str, str]:
        targets, shape, rows = result["targets"], (28, 28), []
        for row in targets:
            read = (one[reading] for one in row["decays"] for reading in READINGS)
            tiles = [Tile(vector_image(x["vector"], shape), f"{x['cosines'][0]:.2f}") for x in read]
            target = Tile(Painter(28, 28, 1.0).image(row["target"]), "target")
            rows.append(TileRow(row["name"], [target, *tiles]))
        columns = ", ".join(f"weight decay {decay:g}" for decay in DECAYS)
        note = f"Top eigenvectors and |cos|; {columns}; each: {', '.join(READINGS)}"
        return {"targets.svg": tile_plate(self.title, note, rows)}


def claims_held(read: Record) -> dict[str, bool]:
    """Return which claims hold of what is read of one target with one weight decay."""
    alone = {
        name: bool(read[name]["ratio"] < SECOND and read[name]["eigenvalues"][0] > 0)
        for name in READINGS
    }
    close = bool(read["folded"]["cosines"][0] >= CLOSE)
    return {"cosine": close, "second": alone["folded"], "unit": alone["unit"]}


def target_of(data: ImageDataset, digit: int) -> int:
    """Return the place of the first training image of a class from the published target on."""
    return FIRST + int((data.train_labels[FIRST:] == digit).nonzero()[0])


def similar_images(data: ImageDataset, targets: Sequence[Tensor]) -> ImageDataset:
    """Return the images with the label whether they are similar to one of the targets."""

    def labels(images: Tensor) -> Tensor:
        cosines = [cosine_similarity(images, one[None]) for one in targets]
        return (torch.stack(cosines) > SIMILAR).any(dim=0).long()

    train, test = labels(data.train_images), labels(data.test_images)
    names = ("other", "similar")
    return replace(data, train_labels=train, test_labels=test, class_names=names)


def measure(options: StudyOptions, digit: int, complement: bool, context: CellContext) -> Record:
    """Train on one target, or it and its complement, with each weight decay; read the contrast."""
    images = options.images("mnist")
    target = images.train_images[target_of(images, digit)]
    data = similar_images(images, [target, 1 - target] if complement else [target])
    recipe = partial(recipe_of, options, d_hidden=64, bias=True, noise=0.1)
    models = context.classifiers(data, [recipe(weight_decay=decay) for decay in DECAYS])
    length = float(images.train_images.square().sum(dim=1).mean().sqrt())
    return {
        "name": f"{digit} or not" if complement else str(digit),
        "complement": complement,
        "share": float(data.test_labels.double().mean()),
        "length": length,
        "target": round_pixels(target),
        "decays": [
            {"weight_decay": decay, **read_contrast(model, data, target, length)}
            for decay, model in zip(DECAYS, models, strict=True)
        ],
    }


@torch.no_grad()
def read_contrast(
    model: BilinearClassifier, data: ImageDataset, target: Tensor, length: float
) -> Record:
    """Return accuracy, the parts of the score, and the spectrum of True − False, read two ways.

    Folded: with a coordinate of the length of an image. Unit: with one of length 1.
    """
    f = model.quadratic_map().detach().to(torch.float64)
    form, x = f.form(torch.tensor([-1.0, 1.0], dtype=torch.float64)), data.test_images.double()
    linear = x @ form.linear
    centred = target - data.train_images.mean(dim=0)
    return {
        "accuracy": accuracy(model, data.test_images, data.test_labels),
        "constant": float(form.constant),
        "linear_part": float(linear.mean()),
        "quadratic_part": float((form(x) - linear - form.constant).mean()),
        "folded": spectrum(form, target, centred, length),
        "unit": spectrum(form, target, centred, 1.0),
    }


def spectrum(form: QuadraticForm, target: Tensor, centred: Tensor, length: float) -> Record:
    """Return the leading eigenpairs of a form with a coordinate `length` added.

    Cosines are of the part of the vectors that is an image.
    """
    column = form.linear[:, None] / (2 * length)
    corner = (form.constant / length**2).reshape(1, 1)
    rows = torch.cat([form.dense(), column], dim=1), torch.cat([column.T, corner], dim=1)
    values, vectors = torch.linalg.eigh(torch.cat(rows))
    order = values.abs().argsort(descending=True)[:SHOWN]
    values, images = values[order], vectors.T[order, : form.d_in]
    return {
        "eigenvalues": values.tolist(),
        "ratio": float(values[1].abs() / values[0].abs()),
        "cosines": cosine_similarity(images, target.double()[None]).abs().tolist(),
        "centred": float(cosine_similarity(images[:1], centred.double()[None]).abs()),
        "vector": round_pixels(images[0] * (images[0] @ target.double()).sign()),
    }


def round_pixels(image: Tensor) -> list[float]:
    return [round(value, 4) for value in image.tolist()]
