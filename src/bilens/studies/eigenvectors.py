"""Eigenvectors and spectra of every class, in pixels and in the embedding (Fig. 2, 3, App. A)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.rotation_null import RotationNull, rotation_null
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import Basis
from bilens.report.charts.curves import Curve, line_figure
from bilens.report.text import signed
from bilens.report.tiles import Tile, TileRow, tile_plate, vector_image
from bilens.studies.comparison import Measured, Published, table
from bilens.studies.study import Measure, Record, StudyOptions
from bilens.studies.vision import (
    PUBLISHED_WIDTH,
    VisionStudy,
    class_spectra,
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
SAME = 0.95  # |cos| from which two vectors are called the same

few: Any = partial(Published, claim=f"few non-negligible eigenvalues (here: at most {FEW:.0%})")


class EigenvectorStudy(VisionStudy):
    """What a class looks like, and how many directions it needs."""

    name = "vision/eigenvectors"
    title = "Eigenvectors and spectra of digits and garments, in two bases"
    published = {  # noqa: RUF012 - a constant
        **{
            f"few-{data}-{basis}": few(
                f"{data}, {basis} basis: eigenvalues beyond the rotations, mean of a class",
                "§4.1, Fig. 2, 3, App. A",
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
            data: [cells[f"{data}-seed-{seed}"] for seed in self.seeds(options)]
            for data in self.images_read(options)
        }

    def ours(self, result: Record) -> Mapping[str, Measured]:
        found = {}
        for data, runs in result.items():
            for basis in BASES:
                counts = tuple(mean(map(sum, run[basis]["beyond"])) for run in runs)
                width = runs[0][basis]["width"]
                note = f"of {width}"
                found[f"few-{data}-{basis}"] = Measured(counts, mean(counts) <= FEW * width, note)
        runs = result["mnist"]
        cosines = tuple(mean(run["cosines"]) for run in runs)
        least = min(min(run["cosines"]) for run in runs)
        positive = mean(mean(run["cosines_largest"]) for run in runs)
        note = f"the least {least:.2f}; of the most positive ones {positive:.2f}"
        found["basis"] = Measured(cosines, mean(cosines) < SAME, note)
        norms = runs[0]["pixels"]
        note = f"root mean square {norms['root_mean_square']:.3f}"
        found["norm"] = Measured((norms["deviation"],), note=note)
        return found

    def figures(self, document: Record) -> Mapping[str, str]:
        drawn = {}
        for data, (run, *_) in document["result"].items():
            for basis in BASES:
                title = f"{data}: eigenvectors in the {basis} basis"
                drawn[f"{data}-{basis}.svg"] = tile_plate(title, NOTE, rows_of(run, basis))
            curves = [curve for basis in BASES for curve in spectrum_curves(run[basis], basis)]
            title = f"{data}: mean spectrum of a class"
            drawn[f"{data}-spectrum.svg"] = line_figure(title, "rank", "|λ| / ‖Q‖", curves)
        return drawn

    def parts(self, result: Record) -> Record:
        heads = (
            "images | basis | accuracy | effective rank | of rotations | beyond the rotations, "
            "+ | … − | of"
        )
        rows = [
            row_of(data, basis, runs, runs[0][basis]["width"])
            for data, runs in result.items()
            for basis in BASES
        ]
        heads_by_class = (
            "class | λ, embedding: largest | … smallest | λ, input: largest | … smallest | beyond, "
            "embedding + / − | … input + / − | cos of the top | cos of the largest λ"
        )
        classes = (
            f"### {data}, seed 0\n\n{table(heads_by_class, class_rows(runs[0]))}\n\n"
            + "\n\n".join(f"![{data}]({data}-{end}.svg)" for end in (*BASES, "spectrum"))
            for data, runs in result.items()
        )
        return {
            "rows": table(heads, rows),
            "classes": "\n\n".join(classes),
            "recipe": in_words(result["mnist"][0]["recipes"][0]),
            "rotations": ROTATIONS,
            "shown": SHOWN,
        }


NOTE = f"Per class: {DRAWN} most positive, {DRAWN} most negative, {SHOWN} λ of each sign as bars."


def rows_of(run: Record, basis: str) -> list[TileRow]:
    found, rows = run[basis], []
    for index, name in enumerate(run["classes"]):
        positive, negative = found["positive"][index], found["negative"][index]
        values = [*positive[:DRAWN], *negative[:DRAWN]]
        images = zip(found["images"][index], values, strict=True)
        tiles = [Tile(image, signed(value, 3)) for image, value in images]
        rows.append(TileRow(name, tiles, (*positive, *reversed(negative))))
    return rows


def spectrum_curves(found: Record, basis: str) -> list[Curve]:
    """Return the mean over the classes of |λ| / ‖Q‖ for both signs, and the edge of the null."""
    norms = torch.tensor(found["norms"])[:, None]
    curves = []
    for sign in ("positive", "negative"):
        shares = (torch.tensor(found[sign]).abs() / norms).mean(dim=0).tolist()
        points = tuple((index + 1, share) for index, share in enumerate(shares))
        curves.append(Curve(f"{basis} {'+' if sign == 'positive' else '−'}", points))
    edge = float((torch.tensor(found["edges"]).abs() / norms).mean())
    curves.append(Curve("rotations", ((1, edge), (SHOWN, edge)), dashed=True))
    return curves


def row_of(data: str, basis: str, runs: Sequence[Record], width: int) -> list[object]:
    def over(name: str) -> float:
        return float(mean(mean(run[basis][name]) for run in runs))

    plus, minus = (
        mean(mean(ends[side] for ends in run[basis]["beyond"]) for run in runs) for side in (0, 1)
    )
    return [
        data,
        basis,
        f"{mean(run['accuracy'] for run in runs):.2%}",
        f"{over('effective_rank'):.1f}",
        f"{over('null_rank'):.1f}",
        f"{plus:.1f}",
        f"{minus:.1f}",
        width,
    ]


def class_rows(run: Record) -> list[list[object]]:
    rows: list[list[object]] = []
    for index, name in enumerate(run["classes"]):
        ends = [
            f"{run[basis][sign][index][0]:.3g}"
            for basis in BASES
            for sign in ("positive", "negative")
        ]
        beyond = ["{} / {}".format(*run[basis]["beyond"][index]) for basis in BASES]
        cosines = [f"{run[kind][index]:.2f}" for kind in ("cosines", "cosines_largest")]
        rows.append([name, *ends, *beyond, *cosines])
    return rows


def read_bases(data: ImageDataset, models: Sequence[BilinearClassifier], *, drawn: bool) -> Record:
    """Return the spectra of all classes in both bases, and how their eigenvectors agree."""
    (model,) = models
    layer = model.quadratic_map("embedding").detach().to(torch.float64)
    embed = model.embed.weight.detach().double()
    pixels = data.train_images.double()
    found: Record = {
        "classes": data.class_names,
        "accuracy": accuracy(model, data.test_images, data.test_labels),
        "pixels": {
            "deviation": float(pixels.std()),
            "root_mean_square": float(pixels.square().mean().sqrt()),
        },
    }
    top, largest = [], []
    for basis in BASES:
        eig = class_spectra(model, basis)
        before = embed if basis == "input" else None
        null = rotation_null(layer, None, seed=0, num_samples=ROTATIONS, embedding=before)
        vectors = in_pixels(model, eig)
        order = eig.eigenvalues.argsort(dim=1, descending=True)
        found[basis] = read_spectra(eig, null, order)
        top.append(vectors[:, 0])
        largest.append(chosen(vectors, order[:, :1])[:, 0])
        if drawn:
            ends = torch.cat([order[:, :DRAWN], order.flip(1)[:, :DRAWN]], dim=1)
            found[basis]["images"] = [
                [vector_image(vector, data.image_shape) for vector in rows]
                for rows in chosen(vectors, ends).tolist()
            ]
    for name, (one, other) in (("cosines", top), ("cosines_largest", largest)):
        found[name] = functional.cosine_similarity(one, other, dim=1).abs().tolist()
    return found


def read_spectra(eig: EigenDecomposition, null: RotationNull, order: Tensor) -> Record:
    values = eig.eigenvalues.gather(1, order)
    beyond = null.num_significant(eig.eigenvalues)
    return {
        "width": eig.eigenvectors.shape[-1],
        "positive": values[:, :SHOWN].tolist(),
        "negative": values.flip(1)[:, :SHOWN].tolist(),
        "norms": eig.norm.tolist(),
        "effective_rank": effective_rank(eig.eigenvalues).tolist(),
        "null_rank": null.effective_rank.mean(dim=0).tolist(),
        "edges": torch.stack(null.edges(), dim=1).tolist(),
        "beyond": torch.stack([beyond.positive, beyond.negative], dim=1).tolist(),
    }


def chosen(vectors: Tensor, places: Tensor) -> Tensor:
    """Return vectors of each class by position, (classes, k, n)."""
    return vectors.gather(1, places[:, :, None].expand(-1, -1, vectors.shape[2]))
