"""Predictions as sums over eigenvectors: what speaks for them, what is missing (App. C)."""

from collections.abc import Mapping
from copy import deepcopy
from statistics import mean

import torch
from torch import Tensor

from bilens import EigenDecomposition, ImageDataset
from bilens.findings import TYPICAL, WRONG, choose_examples
from bilens.report import Painter, signed
from bilens_studies.drawings import Tile, TileRow, tile_plate, valued_tiles, vector_image
from bilens_studies.published import Reproduced
from bilens_studies.study import Record, StudyOptions
from bilens_studies.vision import Model, SeedStudy, class_spectra

PUBLISHED_IMAGES = {"published, right": (8, 5), "published, wrong": (321, 2)}  # test image, label
PUBLISHED_RIVAL = 7  # as which image 321 is read
DRAWN, SHOWN = 4, 20  # contributions to a logit: with their eigenvectors; of each sign, as bars
CHUNK = 500  # images whose contributions are held at a time
EXACT = 1e-8


class ExplanationStudy(SeedStudy):
    """Takes single predictions apart, and counts over all of them."""

    name = "vision/explanations"
    title = "Predictions of a digit classifier as sums over eigenvectors"
    datasets = ("mnist",)

    @torch.no_grad()
    def read_model(self, _options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        """Take chosen test images apart, in raw logits of the input basis.

        The published images are among them where their labels are the published ones.
        """
        labels, images = data.test_labels, data.test_images.double()
        model = deepcopy(model).double()
        eigs, logits = class_spectra(model, "input"), model(images)
        parts = (eigs.contributions(x).pairs for x in torch.split(images, CHUNK))
        signs = [torch.stack([x.clamp(min=0).sum(-1), x.clamp(max=0).sum(-1)]) for x in parts]
        positive, negative = torch.cat(signs, dim=2).mT  # (images, classes) each
        sums = positive + negative
        right = logits.argmax(dim=1) == labels

        rows, columns = data.image_shape
        painter = Painter(rows, columns, 1.0)

        def read_image(index: int) -> Record:
            label, (answer, second) = int(labels[index]), logits[index].topk(2).indices.tolist()
            rival, lacks = second, None
            if answer != label:
                rival, alike = label, right & (labels == label)
                usual, usual_positive = (
                    x[alike].sum(dim=0) / max(int(alike.sum()), 1) for x in (sums, positive)
                )
                lacking = usual - sums[index]
                lacks = float(
                    (usual_positive - positive[index])[label] / (lacking[label] - lacking[answer])
                )
            speaks, against = positive[index, answer], -negative[index, rival]
            return {
                "index": index,
                "label": label,
                "predicted": answer,
                "rival": rival,
                "margin": float(logits[index, answer] - logits[index, rival]),
                "suppression": float(against / (speaks + against).clamp(min=1e-300)),
                "missing": lacks,
                "image": painter.image(data.test_images[index].tolist()),
                "classes": [
                    class_parts(eigs[c], images[index], data, c)
                    for c in dict.fromkeys([answer, second, label])
                ],
            }

        chosen = choose_examples(logits, labels)
        picked = {f"by rule, {name}": chosen[name] for name in (TYPICAL, WRONG) if name in chosen}
        if all(labels[i : i + 1].tolist() == [label] for i, label in PUBLISHED_IMAGES.values()):
            picked |= {name: index for name, (index, _) in PUBLISHED_IMAGES.items()}
        errors = (sums - logits).abs().amax(dim=1) / logits.abs().amax(dim=1)
        return {
            "error": float(errors.max()),
            "examples": {k: read_image(i) for k, i in picked.items()},
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        runs = result["mnist"]
        errors = tuple(run["error"] for run in runs)
        found = {"sum": Reproduced(errors, max(errors) <= EXACT, once=True)}
        right, wrong = ([run["examples"].get(name) for run in runs] for name in PUBLISHED_IMAGES)
        if all(right) and all(wrong):
            shares = tuple(one["suppression"] for one in right)
            sevens = tuple(float(one["predicted"] == PUBLISHED_RIVAL) for one in wrong)
            found["right"] = Reproduced(shares, mean(shares) >= 0.5)
            found["read"] = Reproduced(sevens, mean(sevens) > 0.5)
            if missing := tuple(one["missing"] for one in wrong if one["missing"] is not None):
                found["wrong"] = Reproduced(missing, mean(missing) >= 0.5)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        run = result["mnist"][0]
        return {f"{n}.svg": plate_of(one) for n, one in enumerate(run["examples"].values())}


def plate_of(one: Record) -> str:
    title = f"Test image {one['index']}: a {one['label']}, read as {one['predicted']}"
    rows = [TileRow("image", [Tile(one["image"])])]
    for score in one["classes"]:
        tiles = valued_tiles(score["images"], score["values"])
        rows.append(TileRow(f"{score['name']}: {signed(score['score'], 1)}", tiles, score["ends"]))
    note = "Per class: what the largest parts add; bars: the largest of each sign, in order."
    return tile_plate(title, note, rows)


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
