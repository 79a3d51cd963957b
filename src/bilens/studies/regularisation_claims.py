"""What is published of regularisation, and the numbers that its claims are read as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from statistics import mean

from bilens.studies.comparison import Measured, Published
from bilens.studies.study import Record
from bilens.studies.vision import MEASURES, PUBLISHED_WIDTH

DECAY = "1"  # of all but the grid
GEOMETRY = {  # kind → doses, in the spelling of an augmentation or as a field of the recipe
    "blur": ("0.21", "0.41", "0.61", "0.81"),
    "rotation": ("8", "16", "24", "32"),
    "translation": ("0.05", "0.1", "0.15", "0.2"),
}
PIXELS = {"salt-and-pepper": ("0.1", "0.3"), "correlated-noise": ("0.2:4", "0.4:4")}
ACTIVATIONS = {"model_noise": ("0.1", "0.3"), "dropout": ("0.1", "0.3")}
POINT, PART = 0.3, 0.1  # inert: accuracy within so many points, vectors within such a part
BASES = ("input", "embedding")
SEED = "one seed, tied to the noise: one seed for a whole grid, --seeds repeats it"
SORTED = "of the five most negative eigenvalues: of the five largest by size"
ACCURACIES = {"0": 0.976, "0.2": 0.981, "0.4": 0.981, "0.6": 0.978, "0.8": 0.972}
NUMBERS = {  # weight decay, noise → published
    ("0", "0", "effective_rank_embedding"): 52.0,
    ("0", "1", "effective_rank_embedding"): 187.0,
    ("1", "0", "effective_rank_embedding"): 22.0,
    ("1", "1", "effective_rank_embedding"): 70.0,
    ("0", "0", "sparsity"): 420.0,
    ("0", "1", "sparsity"): 265.0,
}


def told(kind: str) -> str:
    return kind.replace("_", " ")


def published() -> dict[str, Published]:
    """Return what is published of the three parts; numbers were read off plots, ±10 %."""
    found = {
        f"accuracy {noise}": Published(
            f"accuracy at noise {noise}, weight decay 1",
            "Fig. 4, reproduction (one seed)",
            value,
            tolerance=0.003,
        )
        for noise, value in ACCURACIES.items()
    }
    for (decay, noise, quantity), value in NUMBERS.items():
        found[f"{quantity} {decay} {noise}"] = Published(
            f"{MEASURES[quantity][0]}, weight decay {decay}, noise {noise}",
            f"App. E, reproduction (plot, width {PUBLISHED_WIDTH})",
            value,
            tolerance=PART * value,
            flaw=f"{SEED}; {SORTED}" if quantity == "sparsity" else SEED,
        )
    for key, (source, quantity, claim) in claims().items():
        flaw = SEED if key.endswith("embedding") else ""
        found[key] = Published(quantity, source, claim=claim, flaw=flaw)
    return found


def claims() -> dict[str, tuple[str, str, str]]:
    """Return where a claim stands, the number it is read as, and what it says."""
    grid, pictures = "App. E", "App. B, images alone"
    rank, pixels = "effective rank, {} basis: {}, of all {}".format, "pixels used: {}".format
    most_noise, most_decay = "noise 1 / none, the least", "decay 1 / none, the most"
    near = f"within {POINT} points; pixels used, roughness within {PART:.0%}"
    return {
        **{f"noise {x}": (grid, rank(x, most_noise, "decays"), "above 1") for x in BASES},
        **{f"decay {x}": (grid, rank(x, most_decay, "noises"), "below 1") for x in BASES},
        "noise sparsity": (grid, pixels("noise 1 / none, mean"), "sparsifies: below 1"),
        "decay sparsity": (
            *(grid, pixels("decay 1 / none, mean")),
            f"does not sparsify (here: at least {1 - PART:g})",
        ),
        "sharpens": (pictures, pixels("most noise / none"), "noise sharpens (here: below 1)"),
        **{
            kind: (
                *(pictures, f"{kind}, strongest: roughness with / without"),
                "blurs (here: below 1)",
            )
            for kind in GEOMETRY
        },
        **{
            kind: (pictures, f"{told(kind)}: accuracy with − without, points", claim)
            for kinds, claim in (
                (ACTIVATIONS, f"inert (here: {near})"),
                (PIXELS, "worse (here: below 0)"),
            )
            for kind in kinds
        },
    }


def measured(result: Record) -> dict[str, Measured]:
    """Return what is published as it was measured here, under the same names."""
    grid, width = result["grid"], result["recipe"]["d_hidden"]
    found = {
        f"accuracy {noise}": Measured(tuple(grid[noise][DECAY]["accuracy"]))
        for noise in ACCURACIES
        if noise in grid
    }
    for decay, noise, quantity in NUMBERS:
        values = tuple(grid[noise][decay][quantity])
        found[f"{quantity} {decay} {noise}"] = Measured(values, note=f"width {width}")
    return found | of_grid(grid) | of_disturbances(result)


def noises(result: Record) -> list[str]:
    """Return the noises that were crossed with disturbances."""
    return list(next(iter(result["disturbed"]["blur"].values())))


def ratios(after: Record, before: Record, quantity: str) -> list[float]:
    """Return the quotients of a quantity, a seed each."""
    return [a / b for a, b in zip(after[quantity], before[quantity], strict=True)]


def points(after: Record, before: Record) -> list[float]:
    """Return the differences of the accuracy in percentage points, a seed each."""
    pairs = zip(after["accuracy"], before["accuracy"], strict=True)
    return [100 * (a - b) for a, b in pairs]


def seedwise(found: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean of several lists, seed by seed."""
    return tuple(map(mean, zip(*found, strict=True)))


def of_grid(grid: Record) -> dict[str, Measured]:
    """Return what noise and decay do to ranks and pixels, between no and most of them."""
    levels = list(grid)
    none, most = levels[0], levels[-1]

    def noise(quantity: str) -> list[list[float]]:
        return [ratios(grid[most][one], grid[none][one], quantity) for one in levels]

    def decay(quantity: str) -> list[list[float]]:
        return [ratios(grid[one][most], grid[one][none], quantity) for one in levels]

    found = {}
    for basis in BASES:
        rank = f"effective_rank_{basis}"
        least = tuple(map(min, zip(*noise(rank), strict=True)))
        largest = tuple(map(max, zip(*decay(rank), strict=True)))
        found[f"noise {basis}"] = Measured(least, mean(least) > 1)
        found[f"decay {basis}"] = Measured(largest, mean(largest) < 1)
    by_noise, by_decay = seedwise(noise("sparsity")), seedwise(decay("sparsity"))
    found["noise sparsity"] = Measured(by_noise, mean(by_noise) < 1)
    found["decay sparsity"] = Measured(by_decay, mean(by_decay) >= 1 - PART)
    return found


def of_disturbances(result: Record) -> dict[str, Measured]:
    """Return what noise, and disturbances beside it, do: means over noises and doses."""
    without = {noise: result["grid"][noise][DECAY] for noise in noises(result)}
    none, *_, most = without.values()
    sharper = tuple(ratios(most, none, "sparsity"))
    found = {"sharpens": Measured(sharper, mean(sharper) < 1)}
    for kind, doses in result["disturbed"].items():
        if kind in GEOMETRY:
            *_, strongest = doses.values()
            rough = seedwise(ratios(strongest[x], without[x], "roughness") for x in without)
            found[kind] = Measured(rough, mean(rough) < 1)
            continue
        pairs = [(one[noise], without[noise]) for one, noise in product(doses.values(), without)]
        changed = seedwise(points(*pair) for pair in pairs)
        if kind in PIXELS:
            found[kind] = Measured(changed, mean(changed) < 0)
            continue
        used, turns = (
            mean(seedwise(ratios(*pair, quantity) for pair in pairs))
            for quantity in ("sparsity", "roughness")
        )
        inert = abs(mean(changed)) <= POINT and max(abs(used - 1), abs(turns - 1)) <= PART
        note = f"pixels used × {used:.2f}, roughness × {turns:.2f}"
        found[kind] = Measured(changed, inert, note)
    return found
