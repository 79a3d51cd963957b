"""Output directions that classes share, by the HOSVD, at two widths (App. D)."""

from collections.abc import Callable, Mapping
from itertools import product

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.studies.comparison import Measured
from bilens.studies.eigenvectors import BASES
from bilens.studies.page_writer import spread
from bilens.studies.study import Record, StudyOptions
from bilens.studies.vision import (
    PUBLISHED_WIDTH,
    Models,
    SeedStudy,
    extremes,
    recipe_of,
    vector_plate,
)
from bilens.train.tasks.image import ImageRecipe, accuracy

WIDTHS = (PUBLISHED_WIDTH, 256)  # that of the published spectra, and the default of the code now
FIRST_SEED = 42
READ, DRAWN, PER_SIGN = 10, 4, 3  # directions read and drawn; eigenvectors of each sign
QUANTITIES: dict[str, Callable[[Record], float]] = {
    "first": lambda read: read["singular_values"][0],
    "second": lambda read: read["singular_values"][1],
    "largest": lambda read: max(read["eigenvalues"][0]),
    "smallest": lambda read: min(read["eigenvalues"][0]),
}
NOTE = f"{PER_SIGN} most positive, {PER_SIGN} most negative λ of the shared matrix; bars: classes."


class HosvdStudy(SeedStudy):
    """What classes share, as output directions with a matrix each."""

    name = "vision/hosvd"
    title = "HOSVD of a digit classifier: output directions that classes share"
    datasets = ("mnist",)

    def seeds(self, options: StudyOptions) -> range:
        """Return the seeds from the published one on."""
        return range(FIRST_SEED, FIRST_SEED + (options.seeds or options.choose(1, 3, 5)))

    def recipes(self, options: StudyOptions, seed: int) -> list[ImageRecipe]:
        widths = options.choose(WIDTHS[:1], WIDTHS, WIDTHS)
        return [recipe_of(options, d_hidden=width, epochs=50, seed=seed) for width in widths]

    def read(self, _options: StudyOptions, data: ImageDataset, models: Models) -> Record:
        return {"models": [read_directions(data, model) for model in models]}

    def ours(self, result: Record) -> Mapping[str, Measured]:
        runs, found = result["mnist"], {}
        widths = [recipe["d_hidden"] for recipe in runs[0]["recipes"]]
        if PUBLISHED_WIDTH not in widths:  # --quick takes another
            return {}
        for key, read in QUANTITIES.items():
            values = {
                width: [read(run["models"][place]["embedding"]) for run in runs]
                for place, width in enumerate(widths)
            }
            own = tuple(values.pop(PUBLISHED_WIDTH))
            rest = (f"h = {width}: {spread(other, 3)}" for width, other in values.items())
            found[key] = Measured(own, note="; ".join(rest))
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        run, drawn = result["mnist"][0], {}
        for (width, _, model), basis in product(models_of(run), BASES):
            found, title = model[basis], f"{width} hidden units: shared directions, {basis} basis"
            names = [f"σ = {size:.2f}" for size in found["singular_values"][:DRAWN]]
            plate = vector_plate(title, NOTE, names, found, found["directions"])
            drawn[f"{width}-{basis}.svg"] = plate
        return drawn


def models_of(run: Record) -> list[tuple[int, int, Record]]:
    """Return width, seed and readings of the models of a run."""
    pairs = zip(run["recipes"], run["models"], strict=True)
    return [(recipe["d_hidden"], recipe["seed"], model) for recipe, model in pairs]


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
