"""What is published of regularisation, and how each of its rows is read here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from statistics import mean
from typing import TypeAlias

from bilens.studies.comparison import Measured, Published, spread
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
GRID, PICTURES = "App. E", "App. B, images alone"
SEED = "one seed, tied to the noise: one seed for a whole grid, --seeds repeats it"
ACCURACIES = {"0": 0.976, "0.2": 0.981, "0.4": 0.981, "0.6": 0.978, "0.8": 0.972}
RANK, PIXELS_USED = "effective_rank_embedding", "sparsity"
RANKS = {("0", "0"): 52.0, ("0", "1"): 187.0, ("1", "0"): 22.0, ("1", "1"): 70.0}  # decay, noise
Pairs: TypeAlias = list[tuple[Record, Record]]  # with and without a disturbance, at each noise
Test: TypeAlias = Callable[[float], bool]
Row: TypeAlias = tuple[Published, Callable[[Record], Measured]]  # of the result


def told(kind: str) -> str:
    return kind.replace("_", " ")


def rows() -> dict[str, Row]:
    """Return what is published, and how it is read; numbers were read off plots, ±10 %."""
    found: dict[str, Row] = {}
    for noise, value in ACCURACIES.items():
        quantity, source = f"accuracy at noise {noise}, weight decay 1", "Fig. 4, reproduction"
        one = Published(quantity, f"{source} (one seed)", value, tolerance=0.003)
        found[f"accuracy {noise}"] = one, partial(of_cell, "accuracy", DECAY, noise)
    for (decay, noise), value in RANKS.items():
        quantity = f"{MEASURES[RANK][0]}, weight decay {decay}, noise {noise}"
        source = f"App. E, reproduction (plot, width {PUBLISHED_WIDTH})"
        one = Published(quantity, source, value, tolerance=PART * value, flaw=SEED)
        found[f"rank {decay} {noise}"] = one, partial(of_cell, RANK, decay, noise)
    for basis in BASES:
        name, flaw = f"effective_rank_{basis}", SEED if basis == "embedding" else ""
        for key, others, choose, claim, holds in (
            ("noise", "decays", min, "above 1", lambda x: x > 1),
            ("decay", "noises", max, "below 1", below_one),
        ):
            quantity = f"{MEASURES[name][0]}: {key} 1 / none, the {choose.__name__}imum of {others}"
            one = Published(quantity, GRID, claim=claim, flaw=flaw)
            found[f"{key} {basis}"] = one, partial(of_grid, key, name, choose, holds)
    for key, claim, others, holds in (
        ("noise", "below 1", "420 → 265, of the five most negative vectors", below_one),
        ("decay", f"does not sparsify (here: at least {1 - PART:g})", "", lambda x: x >= 1 - PART),
    ):
        one = Published(f"pixels used: {key} 1 / none, mean", GRID, claim=claim, others=others)
        found[f"{key} sparsity"] = one, partial(of_grid, key, PIXELS_USED, mean, holds)
    quantity, claim = "pixels used: most noise / none", "noise sharpens (here: below 1)"
    found["sharpens"] = Published(quantity, PICTURES, claim=claim), sharpens
    near = f"within {POINT} points; pixels used, roughness within {PART:.0%}"
    for kinds, quantity, claim, read in (
        (GEOMETRY, "strongest: roughness with / without", "blurs (here: below 1)", blurs),
        (PIXELS, "accuracy with − without, points", "worse (here: below 0)", worse),
        (ACTIVATIONS, "accuracy with − without, points", f"inert (here: {near})", inert),
    ):
        for kind in kinds:
            one = Published(f"{told(kind)}: {quantity}", PICTURES, claim=claim)
            found[kind] = one, partial(of_disturbance, kind, read)
    return found


def below_one(value: float) -> bool:
    return value < 1


def judged(values: Iterable[float], holds: Test) -> Measured:
    """Return values, a seed each, and whether a claim holds of their mean."""
    values = tuple(values)
    return Measured(values, holds(mean(values)))


def of_cell(quantity: str, decay: str, noise: str, result: Record) -> Measured:
    """Return a quantity of the grid; a rank of another width than the published one stays open."""
    if noise not in result["grid"]:
        return Measured()
    values, width = result["grid"][noise][decay][quantity], result["recipe"]["d_hidden"]
    if quantity == RANK and width != PUBLISHED_WIDTH:
        return Measured(note=f"{spread(values, 1)} of width {width}")
    return Measured(tuple(values))


def of_grid(
    kind: str,
    quantity: str,
    choose: Callable[[Iterable[float]], float],
    holds: Test,
    result: Record,
) -> Measured:
    """Return what the most of noise, or of decay, does to a quantity against none."""
    grid = result["grid"]
    none, *_, most = grid
    if kind == "noise":
        pairs = [(grid[most][one], grid[none][one]) for one in grid]
    else:
        pairs = [(one[most], one[none]) for one in grid.values()]
    return judged(
        map(choose, zip(*(ratios(*pair, quantity) for pair in pairs), strict=True)), holds
    )


def of_disturbance(kind: str, read: Callable[[list[Pairs]], Measured], result: Record) -> Measured:
    """Return what a disturbance beside noise does, from its doses."""
    if kind not in result["disturbed"]:
        return Measured()
    without = {noise: result["grid"][noise][DECAY] for noise in noises(result)}
    doses = result["disturbed"][kind].values()
    return read([[(dose[noise], one) for noise, one in without.items()] for dose in doses])


def noises(result: Record) -> list[str]:
    """Return the noises that were crossed with disturbances."""
    return list(next(iter(result["disturbed"]["blur"].values())))


def ratios(after: Record, before: Record, quantity: str) -> list[float]:
    """Return the quotients of a quantity, a seed each."""
    return [a / b for a, b in zip(after[quantity], before[quantity], strict=True)]


def seedwise(found: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean of several lists, seed by seed."""
    return tuple(map(mean, zip(*found, strict=True)))


def points(doses: list[Pairs]) -> tuple[float, ...]:
    """Return by how many percentage points the accuracy changes, a seed each."""
    return seedwise(
        [100 * (a - b) for a, b in zip(after["accuracy"], before["accuracy"], strict=True)]
        for after, before in chain(*doses)
    )


def sharpens(result: Record) -> Measured:
    none, *_, most = (result["grid"][noise][DECAY] for noise in noises(result))
    return judged(ratios(most, none, PIXELS_USED), below_one)


def blurs(doses: list[Pairs]) -> Measured:
    return judged(seedwise(ratios(*pair, "roughness") for pair in doses[-1]), below_one)


def worse(doses: list[Pairs]) -> Measured:
    return judged(points(doses), lambda x: x < 0)


def inert(doses: list[Pairs]) -> Measured:
    used, turns = (
        mean(seedwise(ratios(*pair, quantity) for pair in chain(*doses)))
        for quantity in (PIXELS_USED, "roughness")
    )
    changed, near = points(doses), max(abs(used - 1), abs(turns - 1)) <= PART
    note = f"pixels used × {used:.2f}, roughness × {turns:.2f}"
    return Measured(changed, near and abs(mean(changed)) <= POINT, note)


ROWS = rows()
