"""Output directions that classes share, by the HOSVD, at two widths (App. D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.report.text import signed
from bilens.report.tiles import TileRow, tile_plate, valued_tiles
from bilens.studies.comparison import Measured, Published, table
from bilens.studies.eigenvectors import BASES
from bilens.studies.study import Measure, Record, StudyOptions
from bilens.studies.vision import (
    PUBLISHED_WIDTH,
    VisionStudy,
    extremes,
    image_cell,
    in_words,
    recipe_of,
)
from bilens.train.tasks.image import accuracy

WIDTHS = (PUBLISHED_WIDTH, 256)  # that of the published spectra, and the default of the code now
FIRST_SEED = 42
READ, DRAWN, PER_SIGN = 10, 4, 3  # directions read and drawn; eigenvectors of each sign
QUANTITIES = {  # published value, where, tolerance, how it is read
    "first": ("first singular value", 0.63, "App. D", 0.063),
    "second": ("second singular value", 0.55, "App. D", 0.055),
    "largest": ("largest eigenvalue of the first shared matrix", 0.35, "Repro, App. D", 0.035),
    "smallest": ("smallest in the same", -0.34, "Repro, App. D", 0.034),
}


class HosvdStudy(VisionStudy):
    """What classes share, as output directions with a matrix each."""

    name = "vision/hosvd"
    title = "HOSVD of a digit classifier: output directions that classes share"
    datasets = ("mnist",)
    published = {  # noqa: RUF012 - a constant
        f"{key}-{width}": Published(
            f"h = {width}: {told}",
            source,
            value,
            tolerance=tolerance,
            others="first .65" if key == "first" else "",
            flaw="embedding basis",
        )
        for width in WIDTHS
        for key, (told, value, source, tolerance) in QUANTITIES.items()
    }

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        seeds = range(options.seeds or options.choose(1, 3, 5))
        widths = options.choose(WIDTHS[:1], WIDTHS, WIDTHS)
        return {
            f"seed-{seed}": image_cell(
                options,
                "mnist",
                [recipe_of(options, d_hidden=width, epochs=50, seed=seed) for width in widths],
                read_directions,
            )
            for seed in (FIRST_SEED + index for index in seeds)
        }

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {"runs": list(cells.values())}

    def ours(self, result: Record) -> Mapping[str, Measured]:
        return {
            f"{key}-{width}": Measured(tuple(values))
            for width, read in by_width(result).items()
            if width in WIDTHS  # --quick takes another
            for key, values in read.items()
        }

    def figures(self, document: Record) -> Mapping[str, str]:
        run, drawn = document["result"]["runs"][0], {}
        for recipe, model in zip(run["recipes"], run["models"], strict=True):
            for basis in BASES:
                title = f"{recipe['d_hidden']} hidden units: shared directions, {basis} basis"
                rows = rows_of(model[basis])
                drawn[f"{recipe['d_hidden']}-{basis}.svg"] = tile_plate(title, NOTE, rows)
        return drawn

    def parts(self, result: Record) -> Record:
        heads = (
            "h | seed | accuracy | basis | σ₁ | σ₂ | σ₃ | σ₁ / ‖B‖ | σ₂ / ‖B‖ | λ of Q₁ / σ₁ | "
            "λ of Q₁ | λ of Q₂ / σ₂"
        )
        rows = [
            row_of(recipe, model, basis)
            for run in result["runs"]
            for recipe, model in zip(run["recipes"], run["models"], strict=True)
            for basis in BASES
        ]
        recipes = result["runs"][0]["recipes"]
        drawings = (
            f"![{basis}]({recipe['d_hidden']}-{basis}.svg)" for recipe in recipes for basis in BASES
        )
        return {
            "rows": table(heads, rows),
            "drawings": "\n\n".join(drawings),
            "recipes": "; ".join(map(in_words, recipes)),
            "seed": FIRST_SEED,
            "distances": "; ".join(
                f"h = {width}: {distance(read):.1%}" for width, read in by_width(result).items()
            ),
        }


NOTE = f"{PER_SIGN} most positive, {PER_SIGN} most negative λ of the shared matrix; bars: classes."


def by_width(result: Record) -> dict[int, dict[str, list[float]]]:
    """Return what stands beside the published numbers, a value a run, in the embedding basis."""
    found = {}
    for index, recipe in enumerate(result["runs"][0]["recipes"]):
        runs = [run["models"][index]["embedding"] for run in result["runs"]]
        found[recipe["d_hidden"]] = {
            "first": [run["singular_values"][0] for run in runs],
            "second": [run["singular_values"][1] for run in runs],
            "largest": [max(run["eigenvalues"][0]) for run in runs],
            "smallest": [min(run["eigenvalues"][0]) for run in runs],
        }
    return found


def distance(read: Mapping[str, Sequence[float]]) -> float:
    """Return the mean relative distance of the first run to the published numbers."""
    return mean(abs(read[key][0] / value - 1) for key, (_, value, *_) in QUANTITIES.items())


def rows_of(found: Record) -> list[TileRow]:
    each = zip(found["images"], found["eigenvalues"], found["directions"], strict=True)
    return [
        TileRow(f"σ = {size:.2f}", valued_tiles(images, values), direction)
        for size, (images, values, direction) in zip(found["singular_values"], each, strict=False)
    ]


def row_of(recipe: Record, model: Record, basis: str) -> list[object]:
    found = model[basis]
    first, second, third, *_ = found["singular_values"]
    ends = [(max(values), min(values)) for values in found["eigenvalues"][:2]]
    pairs = (ends[0], [value * first for value in ends[0]], ends[1])
    return [
        *(recipe["d_hidden"], recipe["seed"], f"{model['accuracy']:.2%}", basis),
        *(f"{value:.3f}" for value in (first, second, third)),
        *(f"{value / found['norm']:.3f}" for value in (first, second)),
        *(", ".join(signed(value, 3) for value in pair) for pair in pairs),
    ]


def read_directions(data: ImageDataset, models: Sequence[BilinearClassifier]) -> Record:
    """Return singular values and shared matrices of each model, in both bases."""
    found = []
    for model in models:
        record: Record = {"accuracy": accuracy(model, data.test_images, data.test_labels)}
        for basis in BASES:
            parts = hosvd(model.quadratic_map(basis).detach(), READ)
            sizes, directions = parts.singular_values, parts.output_directions
            # the code reads the right singular vectors: matrices of length one
            rows = directions[:DRAWN] / sizes[:DRAWN, None]
            eig = eigendecompose_all(parts.f, rows)
            record[basis] = {
                "norm": float(parts.frobenius_squared.sqrt()),
                "singular_values": sizes.tolist(),
                "directions": directions[:DRAWN].tolist(),
                **extremes(model, eig, PER_SIGN, data),
            }
        found.append(record)
    return {"models": found}
