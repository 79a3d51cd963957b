"""Eigenvectors and spectra of every class, in pixels and in the embedding (Fig. 2, 3, App. A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean

import torch
from torch.nn import functional

from bilens.algebra.concentration import effective_rank
from bilens.algebra.rotation_null import rotation_null
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import Basis
from bilens.report.tiles import TileRow, tile_plate, valued_tiles
from bilens.studies.comparison import Measured, Published, table
from bilens.studies.study import Measure, Record, StudyOptions
from bilens.studies.vision import (
    PUBLISHED_WIDTH,
    VisionStudy,
    class_spectra,
    extremes,
    image_cell,
    in_pixels,
    in_words,
    recipe_of,
)
from bilens.train.tasks.image import accuracy

BASES: tuple[Basis, ...] = ("embedding", "input")
SHOWN, DRAWN = 20, 4  # of each sign: eigenvalues, eigenvectors
ROTATIONS = 19  # the most extreme of them is the 95 % edge
FEW = 0.05  # of all eigenvalues
SAME = 0.95  # cosine from which two vectors are called the same


class EigenvectorStudy(VisionStudy):
    """What a class looks like, and how many directions it needs."""

    name = "vision/eigenvectors"
    title = "Eigenvectors and spectra of digits and garments, in two bases"
    published = {  # noqa: RUF012 - a constant
        **{
            f"few-{data}-{basis}": Published(
                f"{data}, {basis} basis: eigenvalues beyond the rotations, mean of a class",
                "§4.1, Fig. 2, 3, App. A",
                claim=f"few non-negligible eigenvalues (here: at most {FEW:.0%})",
                flaw="no null; embedding basis" if basis == "embedding" else "",
            )
            for data in VisionStudy.datasets
            for basis in BASES
        },
        "basis": Published(
            "mnist: absolute cosine of the top eigenvectors of both bases",
            "App. M weights, noise 0, .15, .3",
            claim=f".78, .81, .86, down to .16: not the same (here: below {SAME})",
        ),
        "norm": Published(
            "mnist: average “norm” of a digit, read as the standard deviation of its pixels",
            "§4.1, text",
            0.3,
            tolerance=0.02,
        ),
    }

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        return {
            f"{data}-seed-{seed}": image_cell(
                options,
                data,
                [recipe_of(options, d_hidden=PUBLISHED_WIDTH, seed=seed)],
                partial(read_bases, drawn=seed == 0),
            )
            for data in self.images_read(options)
            for seed in self.seeds(options)
        }

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {
            data: [cell for cell in cells.values() if cell["data"] == data]
            for data in self.images_read(options)
        }

    def ours(self, result: Record) -> Mapping[str, Measured]:
        found = {}
        for data, runs in result.items():
            for basis in BASES:
                counts = tuple(mean(map(sum, run[basis]["beyond"])) for run in runs)
                width = runs[0][basis]["width"]
                few = mean(counts) <= FEW * width
                found[f"few-{data}-{basis}"] = Measured(counts, few, f"of {width}")
        runs = result["mnist"]
        cosines = tuple(mean(run["cosines"]) for run in runs)
        least = min(min(run["cosines"]) for run in runs)
        positive = mean(mean(run["cosines_largest"]) for run in runs)
        note = f"the least {least:.2f}; of the most positive ones {positive:.2f}"
        found["basis"] = Measured(cosines, mean(cosines) < SAME, note)
        deviation, root = runs[0]["pixels"]
        found["norm"] = Measured((deviation,), note=f"root mean square {root:.3f}")
        return found

    def figures(self, document: Record) -> Mapping[str, str]:
        return {
            f"{data}-{basis}.svg": tile_plate(
                f"{data}: eigenvectors in the {basis} basis", NOTE, rows_of(run, basis)
            )
            for data, (run, *_) in document["result"].items()
            for basis in BASES
        }

    def parts(self, result: Record) -> Record:
        heads = "images | basis | accuracy | effective rank | of rotations | beyond, + | … − | of"
        rows = [row_of(data, basis, runs) for data, runs in result.items() for basis in BASES]
        by_class = (
            "class | beyond, embedding + / − | … input | cosine of the top | … of the largest λ"
        )
        classes = (
            f"### {data}, seed 0\n\n{table(by_class, class_rows(runs[0]))}\n\n"
            + "\n\n".join(f"![{data}]({data}-{basis}.svg)" for basis in BASES)
            for data, runs in result.items()
        )
        return {
            "rows": table(heads, rows),
            "classes": "\n\n".join(classes),
            "recipe": in_words(result["mnist"][0]["recipes"][0]),
            "rotations": ROTATIONS,
        }


NOTE = f"Per class: {DRAWN} most positive, {DRAWN} most negative; bars: {SHOWN} λ of each sign."


def rows_of(run: Record, basis: str) -> list[TileRow]:
    found = run[basis]
    each = zip(run["classes"], found["images"], found["eigenvalues"], found["ends"], strict=True)
    return [
        TileRow(name, valued_tiles(images, values, 3), bars) for name, images, values, bars in each
    ]


def row_of(data: str, basis: str, runs: Sequence[Record]) -> list[object]:
    ranks = [
        f"{mean(mean(run[basis][name]) for run in runs):.1f}"
        for name in ("effective_rank", "null_rank")
    ]
    beyond = [
        f"{mean(mean(ends[side] for ends in run[basis]['beyond']) for run in runs):.1f}"
        for side in (0, 1)
    ]
    right = f"{mean(run['accuracy'] for run in runs):.2%}"
    return [data, basis, right, *ranks, *beyond, runs[0][basis]["width"]]


def class_rows(run: Record) -> list[list[object]]:
    return [
        [
            name,
            *("{} / {}".format(*run[basis]["beyond"][index]) for basis in BASES),
            *(f"{run[kind][index]:.2f}" for kind in ("cosines", "cosines_largest")),
        ]
        for index, name in enumerate(run["classes"])
    ]


def read_bases(data: ImageDataset, models: Sequence[BilinearClassifier], *, drawn: bool) -> Record:
    """Return the spectra of all classes in both bases, and how their eigenvectors agree."""
    (model,) = models
    layer = model.quadratic_map("embedding").detach().to(torch.float64)
    embed, pixels = model.embed.weight.detach().double(), data.train_images.double()
    found: Record = {
        "classes": data.class_names,
        "accuracy": accuracy(model, data.test_images, data.test_labels),
        "pixels": [float(pixels.std()), float(pixels.square().mean().sqrt())],
    }
    top, largest = [], []
    for basis in BASES:
        eig = class_spectra(model, basis)
        before = embed if basis == "input" else None
        null = rotation_null(layer, None, seed=0, num_samples=ROTATIONS, embedding=before)
        beyond = null.num_significant(eig.eigenvalues)
        falling = eig.eigenvalues.sort(dim=1, descending=True).values
        found[basis] = {
            "width": eig.eigenvectors.shape[-1],
            "ends": torch.cat([falling[:, :SHOWN], falling[:, -SHOWN:]], dim=1).tolist(),
            "effective_rank": effective_rank(eig.eigenvalues).tolist(),
            "null_rank": null.effective_rank.mean(dim=0).tolist(),
            "beyond": torch.stack([beyond.positive, beyond.negative], dim=1).tolist(),
            **(extremes(model, eig, DRAWN, data) if drawn else {}),
        }
        vectors = in_pixels(model, eig)
        top.append(vectors[:, 0])
        largest.append(vectors[torch.arange(len(vectors)), eig.eigenvalues.argmax(dim=1)])
    for name, (one, other) in (("cosines", top), ("cosines_largest", largest)):
        found[name] = functional.cosine_similarity(one, other, dim=1).abs().tolist()
    return found
