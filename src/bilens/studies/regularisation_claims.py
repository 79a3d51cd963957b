"""What is published of regularisation, and how it is read here; numbers off plots, ±10 %."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from statistics import mean
from typing import TypeAlias

from bilens.studies.comparison import Measured, Published, spread
from bilens.studies.study import Record
from bilens.studies.vision import MEASURES, PUBLISHED_WIDTH

Test: TypeAlias = Callable[[float], bool]
Choice: TypeAlias = Callable[[Iterable[float]], float]

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
GRID, PICTURES = "App. E", "App. B, images alone"
SEED = "one seed, tied to the noise: one seed for a whole grid, --seeds repeats it"
ACCURACIES = {"0": 0.976, "0.2": 0.981, "0.4": 0.981, "0.6": 0.978, "0.8": 0.972}
RANK, USED = "effective_rank_embedding", "sparsity"
RANKS = {("0", "0"): 52.0, ("0", "1"): 187.0, ("1", "0"): 22.0, ("1", "1"): 70.0}  # decay, noise
LOST_PIXELS = "420 → 265, of the five most negative vectors"
NO_SPARSER = f"does not sparsify (here: at least {1 - PART:g})"


def above(value: float) -> bool:
    return value > 1


def below(value: float) -> bool:
    return value < 1


def not_sparser(value: float) -> bool:
    return value >= 1 - PART


RATIOS: dict[str, tuple[str, Choice, str, str, Test, str, str]] = {
    # what the most of noise or decay makes of a quantity: over the levels of the other, in words;
    # claim, whether it holds, what others report, flaw
    "noise input": ("effective_rank_input", min, "the minimum of decays", "above 1", above, "", ""),
    "decay input": ("effective_rank_input", max, "the maximum of noises", "below 1", below, "", ""),
    "noise embedding": (RANK, min, "the minimum of decays", "above 1", above, "", SEED),
    "decay embedding": (RANK, max, "the maximum of noises", "below 1", below, "", SEED),
    "noise sparsity": (USED, mean, "mean", "below 1", below, LOST_PIXELS, ""),
    "decay sparsity": (USED, mean, "mean", NO_SPARSER, not_sparser, "", ""),
}


def told(kind: str) -> str:
    return kind.replace("_", " ")


def published() -> dict[str, Published]:
    found: dict[str, Published] = {}
    for noise, value in ACCURACIES.items():
        quantity, source = f"accuracy at noise {noise}, weight decay 1", "Fig. 4, reproduction"
        one = Published(quantity, f"{source} (one seed)", value, tolerance=0.003)
        found[f"accuracy {noise}"] = one
    for (decay, noise), value in RANKS.items():
        quantity = f"{MEASURES[RANK][0]}, weight decay {decay}, noise {noise}"
        source = f"App. E, reproduction (plot, width {PUBLISHED_WIDTH})"
        one = Published(quantity, source, value, tolerance=PART * value, flaw=SEED)
        found[f"rank {decay} {noise}"] = one
    for key, (name, _, over, claim, _, others, flaw) in RATIOS.items():
        quantity = f"{MEASURES[name][0]}: {key.split()[0]} 1 / none, {over}"
        found[key] = Published(quantity, GRID, claim=claim, others=others, flaw=flaw)
    quantity, claim = "pixels used: most noise / none", "noise sharpens (here: below 1)"
    found["sharpens"] = Published(quantity, PICTURES, claim=claim)
    near = f"within {POINT} points; pixels used, roughness within {PART:.0%}"
    for kinds, quantity, claim in (
        (GEOMETRY, "strongest: roughness with / without", "blurs (here: below 1)"),
        (PIXELS, "accuracy with − without, points", "worse (here: below 0)"),
        (ACTIVATIONS, "accuracy with − without, points", f"inert (here: {near})"),
    ):
        for kind in kinds:
            found[kind] = Published(f"{told(kind)}: {quantity}", PICTURES, claim=claim)
    return found


def read_grid(result: Record) -> dict[str, Measured]:
    """Return what the grid says; a rank of another width than the published one stays open."""
    grid, width = result["grid"], result["recipe"]["d_hidden"]
    found = {
        f"accuracy {noise}": Measured(tuple(grid[noise][DECAY]["accuracy"]))
        for noise in ACCURACIES
        if noise in grid
    }
    for decay, noise in RANKS:
        values = grid[noise][decay][RANK]
        other = Measured(note=f"{spread(values, 1)} of width {width}")
        own = Measured(tuple(values))
        found[f"rank {decay} {noise}"] = own if width == PUBLISHED_WIDTH else other
    none, *_, most = grid
    for key, (quantity, choose, _, _, holds, _, _) in RATIOS.items():
        pairs = [(one[most], one[none]) for one in grid.values()]
        if key.startswith("noise"):
            pairs = [(grid[most][decay], grid[none][decay]) for decay in grid]
        found[key] = judged(seedwise([ratios(*pair, quantity) for pair in pairs], choose), holds)
    return found


def read_disturbances(result: Record) -> dict[str, Measured]:
    """Return what a disturbance does, beside the same noise without, over doses and noises."""
    without = {noise: result["grid"][noise][DECAY] for noise in noises(result)}
    none, *_, most = without.values()
    found = {"sharpens": judged(ratios(most, none, USED), below)}
    for kind, doses in result["disturbed"].items():
        pairs = [[(dose[noise], one) for noise, one in without.items()] for dose in doses.values()]
        every = list(chain(*pairs))
        accuracies = [zip(a["accuracy"], b["accuracy"], strict=True) for a, b in every]
        points = seedwise([[100 * (a - b) for a, b in seeds] for seeds in accuracies])
        used, turns = (
            mean(seedwise([ratios(*pair, name) for pair in every])) for name in (USED, "roughness")
        )
        if kind in GEOMETRY:
            turned = seedwise([ratios(*pair, "roughness") for pair in pairs[-1]])
            found[kind] = judged(turned, below)
        elif kind in PIXELS:
            found[kind] = judged(points, lambda x: x < 0)
        else:
            near = max(abs(used - 1), abs(turns - 1)) <= PART and abs(mean(points)) <= POINT
            note = f"pixels used × {used:.2f}, roughness × {turns:.2f}"
            found[kind] = Measured(points, near, note)
    return found


def noises(result: Record) -> list[str]:
    """Return the noises that were crossed with disturbances."""
    return list(next(iter(result["disturbed"]["blur"].values())))


def judged(values: Sequence[float], holds: Test) -> Measured:
    """Return values, a seed each, and whether a claim holds of their mean."""
    return Measured(tuple(values), holds(mean(values)))


def ratios(after: Record, before: Record, quantity: str) -> list[float]:
    """Return the quotients of a quantity, a seed each."""
    return [a / b for a, b in zip(after[quantity], before[quantity], strict=True)]


def seedwise(found: Sequence[Sequence[float]], choose: Choice = mean) -> tuple[float, ...]:
    """Return the mean of several lists, or another choice, seed by seed."""
    return tuple(map(choose, zip(*found, strict=True)))
