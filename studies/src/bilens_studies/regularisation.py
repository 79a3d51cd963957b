"""Effects of noise, decay and other regularisation on eigenvectors (Fig. 4, App. B, App. E).

A grid of input noise and weight decay; and input noise with one disturbance more, of the images or
of the activations. All models of one seed have the same start, order of images and draws of noise.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from statistics import mean
from typing import TypeAlias

from bilens import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.train import ImageRecipe
from bilens_studies import vision
from bilens_studies.drawings import Tile, TileRow, grid_figure, tile_plate
from bilens_studies.page_writer import spread
from bilens_studies.published import Reproduced, interval
from bilens_studies.study import Measure, Record, StudyOptions

Choice: TypeAlias = Callable[[Iterable[float]], float]

EPOCHS, WIDTH = 50, 256
LEVELS, QUICK_LEVELS = ("0", "0.2", "0.4", "0.6", "0.8", "1"), ("0", "0.4", "1")
NOISES, QUICK_NOISES = ("0", "0.2", "0.4"), ("0", "0.4")  # crossed with disturbances
DECAY = "1"  # of all but the grid
GEOMETRY = {  # kind → doses, in the spelling of an augmentation or as a field of the recipe
    "blur": ("0.21", "0.41", "0.61", "0.81"),
    "rotation": ("8", "16", "24", "32"),
    "translation": ("0.05", "0.1", "0.15", "0.2"),
}
PIXELS = {"salt-and-pepper": ("0.1", "0.3"), "correlated-noise": ("0.2:4", "0.4:4")}
ACTIVATIONS = {"model_noise": ("0.1", "0.3"), "dropout": ("0.1", "0.3")}
DISTURBANCES = {**GEOMETRY, **PIXELS, **ACTIVATIONS}
POINT, PART = 0.3, 0.1  # inert: accuracy within so many points, vectors within such a part
LEAST_PART = 1 - PART
BASES = ("input", "embedding")
MAPS = ("accuracy", *(f"effective_rank_{basis}" for basis in (*BASES, "whitened")), "sparsity")
SHOWN = (*MAPS, "roughness", "dark_mass")
RANK, USED = "effective_rank_embedding", "sparsity"
MORE, LESS, NEGATIVE = (1, math.inf), (0, 1), (-math.inf, 0)
RATIOS: dict[str, tuple[str, Choice, tuple[float, float]]] = {
    # what the most of noise or decay makes of a quantity: over the levels of the other; between
    # which numbers the claim holds
    "noise input": ("effective_rank_input", min, MORE),
    "decay input": ("effective_rank_input", max, LESS),
    "noise embedding": (RANK, min, MORE),
    "decay embedding": (RANK, max, LESS),
    "noise sparsity": (USED, mean, LESS),
    "decay sparsity": (USED, mean, (LEAST_PART, math.inf)),
}


class RegularisationStudy(vision.VisionStudy):
    """Spectra and eigenvectors over noise, decay and disturbances, on MNIST."""

    name = "vision/regularisation"
    title = "What noise, decay and other regularisation do to eigenvectors"
    datasets = ("mnist",)
    num_seeds = (1, 1, 3)  # there are over 100 models of each

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        levels, noises = levels_of(options)
        recipe, found = partial(recipe_at, options), {}

        def cell(
            recipes: dict[str, ImageRecipe], read: vision.Read = vision.read_classifier
        ) -> Measure:
            return partial(vision.measure_pass, options, "mnist", recipes, read)

        for seed in self.seeds(options):
            for noise in levels:
                decays = {decay: recipe(seed, noise, decay) for decay in levels}
                found[f"noise-{noise}-seed-{seed}"] = cell(decays)
            for kind, dose in disturbed(options):
                changes: Record = {"augmentations": (f"{kind}:{dose}",)}
                if kind in ACTIVATIONS:
                    changes = {kind: float(dose)}
                recipes = {noise: recipe(seed, noise, DECAY, **changes) for noise in noises}
                name = f"{kind}-{dose.replace(':', '-')}-seed-{seed}"
                found[name] = cell(recipes)
        one_digit = {noise: recipe(0, noise, DECAY) for noise in levels}
        return {**found, "digit": cell(one_digit, read_digit)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        levels, noises = levels_of(options)

        def over_seeds(cell: str, names: Sequence[str]) -> Record:
            names_of = (f"{cell.replace(':', '-')}-seed-{seed}" for seed in self.seeds(options))
            runs = [cells[name] for name in names_of]
            return {name: vision.by_name([run[name] for run in runs]) for name in names}

        found: Record = {}
        for kind, dose in disturbed(options):
            found.setdefault(kind, {})[dose] = over_seeds(f"{kind}-{dose}", noises)
        return {
            "recipe": recipe_at(options, 0, "0", DECAY).to_dict(),
            "grid": {noise: over_seeds(f"noise-{noise}", levels) for noise in levels},
            "disturbed": found,
            "digit": {noise: cells["digit"][noise] for noise in levels},
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        return {**read_grid(result), **read_disturbances(result)}

    def figures(self, result: Record) -> Mapping[str, str]:
        grid, digit, drawn = result["grid"], result["digit"], {}
        for quantity in MAPS:
            name, digits = vision.MEASURES[quantity]
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
    width = options.choose(WIDTH, WIDTH, vision.PUBLISHED_WIDTH)
    place = {"seed": seed, "noise": float(noise), "weight_decay": float(decay)}
    return vision.recipe_of(options, d_hidden=width, epochs=EPOCHS, **place, **changes)


def read_digit(model: BilinearClassifier, data: ImageDataset) -> Record:
    """Return the most positive eigenpair of the first class, in both bases."""
    found: Record = {}
    for basis in BASES:
        ends = vision.extremes(model, vision.class_spectra(model, basis), 1, data)
        found[basis] = {key: part[0][0] for key, part in ends.items()}
    return found


def read_grid(result: Record) -> dict[str, Reproduced]:
    """Judge the claims on the grid; a rank of another width than the published one stays open."""
    grid, width = result["grid"], result["recipe"]["d_hidden"]
    found = {
        f"accuracy {noise}": Reproduced(tuple(grid[noise][DECAY]["accuracy"]))
        for noise in LEVELS[:-1]
        if noise in grid
    }
    for decay, noise in product(("0", "1"), repeat=2):
        values = grid[noise][decay][RANK]
        other = Reproduced(note=f"{spread(values, 1)} of width {width}")
        own = Reproduced(tuple(values))
        found[f"rank {decay} {noise}"] = own if width == vision.PUBLISHED_WIDTH else other
    none, *_, most = grid
    for key, (quantity, choose, between) in RATIOS.items():
        pairs = [(one[most], one[none]) for one in grid.values()]
        if key.startswith("noise"):
            pairs = [(grid[most][decay], grid[none][decay]) for decay in grid]
        found[key] = judge_between(
            choose_by_seed([ratios(*pair, quantity) for pair in pairs], choose), between
        )
    return found


def read_disturbances(result: Record) -> dict[str, Reproduced]:
    """Judge each disturbance beside the same noise without, over doses and noises."""
    without = {noise: result["grid"][noise][DECAY] for noise in noises(result)}
    none, *_, most = without.values()
    found = {"sharpens": judge_between(ratios(most, none, USED), LESS)}
    for kind, doses in result["disturbed"].items():
        pairs = [[(dose[noise], one) for noise, one in without.items()] for dose in doses.values()]
        every = list(chain(*pairs))
        accuracies = [zip(a["accuracy"], b["accuracy"], strict=True) for a, b in every]
        points = choose_by_seed([[100 * (a - b) for a, b in seeds] for seeds in accuracies])
        used, turns = (
            mean(choose_by_seed([ratios(*pair, name) for pair in every]))
            for name in (USED, "roughness")
        )
        if kind in GEOMETRY:
            turned = choose_by_seed([ratios(*pair, "roughness") for pair in pairs[-1]])
            found[kind] = judge_between(turned, LESS)
        elif kind in PIXELS:
            found[kind] = judge_between(points, NEGATIVE)
        else:
            near = max(abs(used - 1), abs(turns - 1)) <= PART and abs(mean(points)) <= POINT
            note = f"pixels used × {used:.2f}, roughness × {turns:.2f}"
            found[kind] = Reproduced(points, near, note)
    return found


def disturbed_rows(result: Record) -> Iterator[tuple[str, str, str, Record]]:
    """Yield disturbance, dose, noise and what was read there; those without any come first."""
    without = {"none": {"": {noise: result["grid"][noise][DECAY] for noise in noises(result)}}}
    for kind, doses in {**without, **result["disturbed"]}.items():
        yield from (
            (kind, dose, *one) for dose, by_noise in doses.items() for one in by_noise.items()
        )


def noises(result: Record) -> list[str]:
    """Return the noises that were crossed with disturbances."""
    return list(next(iter(result["disturbed"]["blur"].values())))


def judge_between(values: Sequence[float], between: tuple[float, float]) -> Reproduced:
    """Return values, a seed each, and whether their interval lies between two numbers.

    One that holds either of them decides nothing.
    """
    low, high = interval(values) or (mean(values), mean(values))
    inside = between[0] < low and high < between[1]
    outside = high <= between[0] or between[1] <= low
    return Reproduced(tuple(values), inside if inside or outside else None)


def ratios(after: Record, before: Record, quantity: str) -> list[float]:
    """Return the quotients of a quantity, a seed each."""
    return [a / b for a, b in zip(after[quantity], before[quantity], strict=True)]


def choose_by_seed(found: Sequence[Sequence[float]], choose: Choice = mean) -> tuple[float, ...]:
    """Return the mean of several lists, or another choice, seed by seed."""
    return tuple(map(choose, zip(*found, strict=True)))
