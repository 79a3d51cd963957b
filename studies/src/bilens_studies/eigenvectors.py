"""Spectra of classifiers in pixels and in the embedding, of each class and of all together.

Eigenvectors of every class (Fig. 2, 3, App. A); output directions that classes share, by the HOSVD,
at two widths (App. D).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import mean
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from bilens import ImageDataset, effective_rank, eigendecompose_all, hosvd, rotation_null
from bilens.train import ImageRecipe, accuracy
from bilens_studies.page_writer import spread
from bilens_studies.published import Reproduced
from bilens_studies.study import Record, StudyOptions
from bilens_studies.vision import (
    PUBLISHED_WIDTH,
    Model,
    SeedStudy,
    class_spectra,
    extremes,
    in_pixels,
    recipe_of,
    vector_plate,
)

BASES: tuple[Literal["embedding", "input"], ...] = ("embedding", "input")
SHOWN, DRAWN = 20, 4  # of each sign: eigenvalues, eigenvectors
ROTATIONS = 19  # the most extreme of them is the 95 % edge
MOST, FEW = 0.95, 0.1  # of Σλ², in so large a part of the eigenvalues; about half at random
NOTE = f"Per class: {DRAWN} most positive, {DRAWN} most negative; bars: {SHOWN} λ of each sign."
WIDTHS = (PUBLISHED_WIDTH, 256)  # that of the published spectra, and the default of the code now
FIRST_SEED = 42  # the published one
READ, PER_SIGN = 10, 3  # directions read; eigenvectors of each sign
QUANTITIES: dict[str, Callable[[Record], float]] = {
    "first": lambda read: read["singular_values"][0],
    "second": lambda read: read["singular_values"][1],
    "largest": lambda read: max(read["eigenvalues"][0]),
    "smallest": lambda read: min(read["eigenvalues"][0]),
}
SHARED_NOTE = (
    f"{PER_SIGN} most positive, {PER_SIGN} most negative λ of the shared matrix; bars: classes."
)


class EigenvectorStudy(SeedStudy):
    """Draws the eigenvectors of each class, and counts how many it needs."""

    name = "vision/eigenvectors"
    title = "Eigenvectors and spectra of digits and garments, in two bases"

    def read_model(self, _options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        """Return the spectra of all classes in both bases, and how their eigenvectors agree."""
        layer = model.quadratic_map("embedding").detach().to(torch.float64)
        embed = model.embed.weight.detach().double()
        found: Record = {
            "classes": data.class_names,
            "accuracy": accuracy(model, data.test_images, data.test_labels),
        }
        top = []
        for basis in BASES:
            eig = class_spectra(model, basis)
            before = embed if basis == "input" else None
            null = rotation_null(layer, None, seed=0, num_samples=ROTATIONS, embedding=before)
            beyond = null.num_significant(eig.eigenvalues)
            falling = eig.eigenvalues.sort(dim=1, descending=True).values
            found[basis] = {
                "width": min(embed.shape),
                "ends": torch.cat([falling[:, :SHOWN], falling[:, -SHOWN:]], dim=1).tolist(),
                "effective_rank": effective_rank(eig.eigenvalues).tolist(),
                "null_rank": null.effective_rank.mean(dim=0).tolist(),
                "most": carriers(eig.eigenvalues).tolist(),
                "beyond": torch.stack([beyond.positive, beyond.negative], dim=1).tolist(),
                **extremes(model, eig, DRAWN, data),
            }
            top.append(in_pixels(model, eig)[:, 0])
        one, other = top
        found["cosines"] = functional.cosine_similarity(one, other, dim=1).abs().tolist()
        return found

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {}
        for (data, runs), basis in product(result.items(), BASES):
            counts = tuple(mean(run[basis]["most"]) for run in runs)
            width = runs[0][basis]["width"]
            rank, null = (mean(runs[0][basis][key]) for key in ("effective_rank", "null_rank"))
            note = f"of {width}; effective rank {rank:.0f}, of rotations {null:.0f}"
            found[f"few-{data}-{basis}"] = Reproduced(counts, mean(counts) <= FEW * width, note)
        runs = result["mnist"]
        cosines = tuple(mean(run["cosines"]) for run in runs)
        least = min(min(run["cosines"]) for run in runs)
        note = f"noise {runs[0]['recipes'][0]['noise']}; the least {least:.2f}"
        return {**found, "basis": Reproduced(cosines, note=note)}

    def figures(self, result: Record) -> Mapping[str, str]:
        drawn = {}
        for (data, (run, *_)), basis in product(result.items(), BASES):
            title, found = f"{data}: eigenvectors in the {basis} basis", run[basis]
            plate = vector_plate(title, NOTE, run["classes"], found, found["ends"])
            drawn[f"{data}-{basis}.svg"] = plate
        return drawn


def mean_over_classes(runs: Sequence[Record], basis: str, name: str) -> float:
    """Return the mean over runs and classes; of what is counted by sign, of both signs together."""
    values = (run[basis][name] for run in runs)
    return mean(mean(sum(x) if isinstance(x, list) else x for x in one) for one in values)


def carriers(eigenvalues: Tensor) -> Tensor:
    """Return how many of each row, the largest first, have the most of its squared norm."""
    squares = eigenvalues.square().sort(dim=1, descending=True).values
    return (squares.cumsum(dim=1) < MOST * squares.sum(dim=1, keepdim=True)).sum(dim=1) + 1


class HosvdStudy(SeedStudy):
    """Finds the output directions that classes share, with a matrix each."""

    name = "vision/hosvd"
    title = "HOSVD of a digit classifier: output directions that classes share"
    datasets = ("mnist",)
    num_seeds, first_seed = (1, 3, 5), FIRST_SEED

    def recipes(self, options: StudyOptions, seed: int) -> dict[str, ImageRecipe]:
        widths = options.choose(WIDTHS[:1], WIDTHS, WIDTHS)
        recipes = (recipe_of(options, d_hidden=h, epochs=50, seed=seed) for h in widths)
        return {str(recipe.d_hidden): recipe for recipe in recipes}

    def read_model(self, _options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        """Return singular values and shared matrices in both bases."""
        found: Record = {"accuracy": accuracy(model, data.test_images, data.test_labels)}
        for basis in BASES:
            parts = hosvd(model.quadratic_map(basis).detach(), READ)
            sizes, directions = parts.singular_values, parts.output_directions
            # the code reads the right singular vectors: matrices of length one
            rows = directions[:DRAWN] / sizes[:DRAWN, None]
            found[basis] = {
                "norm": float(parts.frobenius_squared.sqrt()),
                "singular_values": sizes.tolist(),
                "directions": directions[:DRAWN].tolist(),
                **extremes(model, eigendecompose_all(parts.f, rows), PER_SIGN, data),
            }
        return found

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        runs, found = result["mnist"], {}
        widths = [recipe["d_hidden"] for recipe in runs[0]["recipes"]]
        if PUBLISHED_WIDTH not in widths:  # --quick takes another
            return {}
        for key, read in QUANTITIES.items():
            values = {
                width: [read(run[str(width)]["embedding"]) for run in runs] for width in widths
            }
            own = tuple(values.pop(PUBLISHED_WIDTH))
            rest = (f"h = {width}: {spread(other, 3)}" for width, other in values.items())
            found[key] = Reproduced(own, note="; ".join(rest))
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        run, drawn = result["mnist"][0], {}
        for (width, _, model), basis in product(models_of(run), BASES):
            found, title = model[basis], f"{width} hidden units: shared directions, {basis} basis"
            names = [f"σ = {size:.2f}" for size in found["singular_values"][:DRAWN]]
            plate = vector_plate(title, SHARED_NOTE, names, found, found["directions"])
            drawn[f"{width}-{basis}.svg"] = plate
        return drawn


def models_of(run: Record) -> list[tuple[int, int, Record]]:
    """Return width, seed and readings of the models of a run."""
    pairs = ((recipe["d_hidden"], recipe["seed"]) for recipe in run["recipes"])
    return [(width, seed, run[str(width)]) for width, seed in pairs]
