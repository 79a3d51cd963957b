"""Output directions that classes share, by the HOSVD, at two widths (App. D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.report.text import signed
from bilens.studies.comparison import Measured, Published, spread, table
from bilens.studies.eigenvectors import BASES
from bilens.studies.study import Record, StudyOptions
from bilens.studies.vision import (
    PUBLISHED_WIDTH,
    SeedStudy,
    extremes,
    in_words,
    recipe_of,
    vector_plate,
)
from bilens.train.tasks.image import ImageRecipe, accuracy

WIDTHS = (PUBLISHED_WIDTH, 256)  # that of the published spectra, and the default of the code now
FIRST_SEED = 42
READ, DRAWN, PER_SIGN = 10, 4, 3  # directions read and drawn; eigenvectors of each sign
QUANTITIES = {  # published value, where, tolerance, how it is read
    "first": ("first singular value", 0.63, "App. D", 0.063),
    "second": ("second singular value", 0.55, "App. D", 0.055),
    "largest": ("largest eigenvalue of the first shared matrix", 0.35, "Repro, App. D", 0.035),
    "smallest": ("smallest in the same", -0.34, "Repro, App. D", 0.034),
}


class HosvdStudy(SeedStudy):
    """What classes share, as output directions with a matrix each."""

    name = "vision/hosvd"
    title = "HOSVD of a digit classifier: output directions that classes share"
    datasets = ("mnist",)
    published = {  # noqa: RUF012 - a constant
        key: Published(
            f"h = {PUBLISHED_WIDTH}: {told}",
            source,
            value,
            tolerance=tolerance,
            others="first .65" if key == "first" else "",
            flaw="embedding basis",
        )
        for key, (told, value, source, tolerance) in QUANTITIES.items()
    }

    def seeds(self, options: StudyOptions) -> range:
        """Return the seeds from the published one on."""
        return range(FIRST_SEED, FIRST_SEED + (options.seeds or options.choose(1, 3, 5)))

    def recipes(self, options: StudyOptions, seed: int) -> list[ImageRecipe]:
        widths = options.choose(WIDTHS[:1], WIDTHS, WIDTHS)
        return [recipe_of(options, d_hidden=width, epochs=50, seed=seed) for width in widths]

    def read(
        self, _options: StudyOptions, data: ImageDataset, models: Sequence[BilinearClassifier]
    ) -> Record:
        return {"models": [read_directions(data, model) for model in models]}

    def ours(self, result: Record) -> Mapping[str, Measured]:
        read = by_width(result)
        if PUBLISHED_WIDTH not in read:  # --quick takes another
            return {}
        rest = {width: one for width, one in read.items() if width != PUBLISHED_WIDTH}
        return {
            key: Measured(
                tuple(values),
                note="; ".join(
                    f"h = {width}: {spread(one[key], 3)}" for width, one in rest.items()
                ),
            )
            for key, values in read[PUBLISHED_WIDTH].items()
        }

    def figures(self, document: Record) -> Mapping[str, str]:
        run, drawn = document["result"]["mnist"][0], {}
        for recipe, model in zip(run["recipes"], run["models"], strict=True):
            for basis, found in ((basis, model[basis]) for basis in BASES):
                title = f"{recipe['d_hidden']} hidden units: shared directions, {basis} basis"
                names = [f"σ = {size:.2f}" for size in found["singular_values"][:DRAWN]]
                plate = vector_plate(title, NOTE, names, found, found["directions"])
                drawn[f"{recipe['d_hidden']}-{basis}.svg"] = plate
        return drawn

    def parts(self, result: Record) -> Record:
        heads = (
            "h | seed | accuracy | basis | σ₁ | σ₂ | σ₃ | σ₁ / ‖B‖ | σ₂ / ‖B‖ | λ of Q₁ / σ₁ | "
            "λ of Q₁ | λ of Q₂ / σ₂"
        )
        rows = [
            row_of(recipe, model, basis)
            for run in result["mnist"]
            for recipe, model in zip(run["recipes"], run["models"], strict=True)
            for basis in BASES
        ]
        recipes = result["mnist"][0]["recipes"]
        drawings = (
            f"![{basis}]({recipe['d_hidden']}-{basis}.svg)" for recipe in recipes for basis in BASES
        )
        return {
            "rows": table(heads, rows),
            "drawings": "\n\n".join(drawings),
            "recipes": "; ".join(map(in_words, recipes)),
            "seed": FIRST_SEED,
        }


NOTE = f"{PER_SIGN} most positive, {PER_SIGN} most negative λ of the shared matrix; bars: classes."


def by_width(result: Record) -> dict[int, dict[str, list[float]]]:
    """Return what stands beside the published numbers, a value a run, in the embedding basis."""
    found = {}
    for index, recipe in enumerate(result["mnist"][0]["recipes"]):
        runs = [run["models"][index]["embedding"] for run in result["mnist"]]
        found[recipe["d_hidden"]] = {
            "first": [run["singular_values"][0] for run in runs],
            "second": [run["singular_values"][1] for run in runs],
            "largest": [max(run["eigenvalues"][0]) for run in runs],
            "smallest": [min(run["eigenvalues"][0]) for run in runs],
        }
    return found


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


def read_directions(data: ImageDataset, model: BilinearClassifier) -> Record:
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
