"""What noise, decay and other regularisation do to eigenvectors (Fig. 4, App. B, App. E).

A grid of input noise and weight decay; and input noise with one disturbance more, of the images or
of the activations. All models of one seed have the same start, order of images and draws of noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mean

from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.report.charts.curves import grid_figure
from bilens.report.tiles import Tile, TileRow, tile_plate
from bilens.studies.comparison import Measured, spread, table
from bilens.studies.regularisation_claims import (
    ACTIVATIONS,
    BASES,
    DECAY,
    GEOMETRY,
    PART,
    PIXELS,
    POINT,
    noises,
    published,
    read_disturbances,
    read_grid,
    told,
)
from bilens.studies.study import Measure, Record, StudyOptions
from bilens.studies.vision import (
    MEASURES,
    PUBLISHED_WIDTH,
    VisionStudy,
    by_name,
    class_spectra,
    extremes,
    image_cell,
    read_classifier,
    recipe_of,
)
from bilens.train.tasks.image import ImageRecipe

EPOCHS, WIDTH = 50, 256
LEVELS, QUICK_LEVELS = ("0", "0.2", "0.4", "0.6", "0.8", "1"), ("0", "0.4", "1")
NOISES, QUICK_NOISES = ("0", "0.2", "0.4"), ("0", "0.4")  # crossed with disturbances
DISTURBANCES = {**GEOMETRY, **PIXELS, **ACTIVATIONS}
MAPS = ("accuracy", *(f"effective_rank_{basis}" for basis in (*BASES, "whitened")), "sparsity")
SHOWN = (*MAPS, "roughness", "dark_mass")


class RegularisationStudy(VisionStudy):
    """Spectra and eigenvectors over noise, decay and disturbances, on MNIST."""

    name = "vision/regularisation"
    title = "What noise, decay and other regularisation do to eigenvectors"
    datasets = ("mnist",)
    published = published()

    def seeds(self, options: StudyOptions) -> range:
        """Return the seeds asked for, or one: there are over 100 models; three with --full."""
        return range(options.seeds or options.choose(1, 1, 3))

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        levels, noises = levels_of(options)
        found: dict[str, Measure] = {}
        for seed in self.seeds(options):
            recipe = partial(recipe_at, options, seed)
            for noise in levels:
                recipes = [recipe(noise, decay) for decay in levels]
                found[f"noise-{noise}-seed-{seed}"] = image_cell(
                    options, "mnist", recipes, partial(read_named, levels)
                )
            for kind, dose in disturbed(options):
                changes = (
                    {kind: float(dose)}
                    if kind in ACTIVATIONS
                    else {"augmentations": (f"{kind}:{dose}",)}
                )
                recipes = [recipe(noise, DECAY, **changes) for noise in noises]
                found[f"{kind}-{dose.replace(':', '-')}-seed-{seed}"] = image_cell(
                    options, "mnist", recipes, partial(read_named, noises)
                )
        recipes = [recipe_at(options, 0, noise, DECAY) for noise in levels]
        found["digit"] = image_cell(options, "mnist", recipes, partial(read_digit, levels))
        return found

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        levels, noises = levels_of(options)

        def over_seeds(cell: str, name: str) -> Record:
            cell = cell.replace(":", "-")
            return by_name([cells[f"{cell}-seed-{seed}"][name] for seed in self.seeds(options)])

        return {
            "recipe": recipe_at(options, 0, "0", DECAY).to_dict(),
            "grid": {
                noise: {decay: over_seeds(f"noise-{noise}", decay) for decay in levels}
                for noise in levels
            },
            "disturbed": {
                kind: {
                    dose: {noise: over_seeds(f"{kind}-{dose}", noise) for noise in noises}
                    for one, dose in disturbed(options)
                    if one == kind
                }
                for kind in DISTURBANCES
            },
            "digit": {noise: cells["digit"][noise] for noise in levels},
        }

    def ours(self, result: Record) -> Mapping[str, Measured]:
        return {**read_grid(result), **read_disturbances(result)}

    def figures(self, document: Record) -> Mapping[str, str]:
        grid, digit, drawn = document["result"]["grid"], document["result"]["digit"], {}
        for quantity in MAPS:
            name, digits = MEASURES[quantity]
            cells = {
                noise: [mean(one[quantity]) for one in decays.values()]
                for noise, decays in grid.items()
            }
            drawn[f"{quantity}.svg"] = grid_figure(
                name, "weight decay", "noise", list(cells), cells, digits
            )
        rows = [
            TileRow(basis, [Tile(one[basis]["images"], noise) for noise, one in digit.items()])
            for basis in BASES
        ]
        title = "Digit 0: top positive eigenvector by standard deviation of the noise"
        note = "Embedding basis: mapped to pixels by the embedding's transpose."
        return drawn | {"digit.svg": tile_plate(title, note, rows)}

    def parts(self, result: Record) -> Record:
        digit = (
            [noise, *(f"{one[basis]['eigenvalues']:.3f}" for basis in BASES)]
            for noise, one in result["digit"].items()
        )
        without = {"none": {"": {noise: result["grid"][noise][DECAY] for noise in noises(result)}}}
        rows = (
            [told(kind), dose, noise, *(spread(one[x], MEASURES[x][1]) for x in SHOWN)]
            for kind, doses in {**without, **result["disturbed"]}.items()
            for dose, found in doses.items()
            for noise, one in found.items()
        )
        names = (MEASURES[quantity][0] for quantity in SHOWN)
        return {
            "digit": table("noise | λ, input basis | λ, embedding basis", digit),
            "maps": "\n\n".join(f"![{quantity}]({quantity}.svg)" for quantity in MAPS),
            "disturbed": table(" | ".join(["disturbance", "dose", "noise", *names]), rows),
            "width": result["recipe"]["d_hidden"],
            "epochs": result["recipe"]["epochs"],
            "point": POINT,
            "part": f"{PART:.0%}",
        }


def levels_of(options: StudyOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the levels of the grid, and the noises that are crossed with disturbances."""
    return options.choose((QUICK_LEVELS, QUICK_NOISES), (LEVELS, NOISES), (LEVELS, NOISES))


def disturbed(options: StudyOptions) -> list[tuple[str, str]]:
    """Return kinds and doses; of each kind the strongest alone for --quick."""
    doses = {kind: found[-1:] if options.quick else found for kind, found in DISTURBANCES.items()}
    return [(kind, dose) for kind, found in doses.items() for dose in found]


def recipe_at(
    options: StudyOptions, seed: int, noise: str, decay: str, **changes: object
) -> ImageRecipe:
    width = options.choose(WIDTH, WIDTH, PUBLISHED_WIDTH)
    place = {"seed": seed, "noise": float(noise), "weight_decay": float(decay)}
    return recipe_of(options, d_hidden=width, epochs=EPOCHS, **place, **changes)


def read_named(
    names: Sequence[str], data: ImageDataset, models: Sequence[BilinearClassifier]
) -> Record:
    return {name: read_classifier(model, data) for name, model in zip(names, models, strict=True)}


def read_digit(
    names: Sequence[str], data: ImageDataset, models: Sequence[BilinearClassifier]
) -> Record:
    """Return the most positive eigenpair of the first class, in both bases."""
    return {
        name: {
            basis: {
                key: part[0][0]
                for key, part in extremes(model, class_spectra(model, basis), 1, data).items()
            }
            for basis in BASES
        }
        for name, model in zip(names, models, strict=True)
    }
