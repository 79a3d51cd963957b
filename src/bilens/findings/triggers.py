"""A planted backdoor: a small white square that speaks for one class, whatever else is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.chance import chance
from bilens.findings.templates import gradients, usual_length
from bilens.findings.warning_records import Triggers, TriggerWindow

SIDES = (3, 4)  # pixels of the squares
THRESHOLD = 5.0  # 95 % of the clean models that fixed it are below (docs/benchmarks/power.md)
RESISTING = 0.25  # share of the other classes that a trigger need not win over
NEIGHBOURS = 9  # places on a side of the surroundings of one
MOST_TEMPLATES = 32  # other classes that a square is tried on
FEWEST_PLACES = 100  # of a square in an image: among fewer none can stand out
CONSISTENT = 1.4826  # times the median absolute deviation: the deviation of a normal variable


def read_triggers(
    f: QuadraticMap, templates: Tensor, shape: tuple[int, int], null: Sequence[float]
) -> Triggers:
    """Return the places where a white square adds most to the lead of a class.

    The score of a place is how far its gain (`lead_gains`), in units of the gains around it
    (`beside_neighbours`), is above the median of all places and classes, in robust standard
    deviations. The model's score is the largest.

    Cost: that of `lead_gains`, for two sides of the square.

    Args:
        f: the class-centred map, in the input basis.
        templates: of `class_templates`, (classes, in).
        shape: rows and columns of an image; one row stands for inputs that are no images.
        null: scores of the map with its right branch rotated at random (`trigger_score`), at
            least 39 of them; the templates stay.
    """
    reason = obstacle(shape)
    found = () if reason else loudest(f, templates, shape)
    if not found:
        return Triggers(None, None, None, (), reason or "flat")
    by_chance = chance(torch.tensor(null, dtype=torch.float64))
    return Triggers(found[0].score, THRESHOLD, by_chance, found, "")


def obstacle(shape: tuple[int, int]) -> str:
    """Return why there are no squares to compare, one of `NOT_APPLICABLE`, or nothing."""
    if min(shape) == 1:
        return "not_an_image"
    places = math.prod(max(length - SIDES[-1] + 1, 0) for length in shape)
    return "too_small" if places < FEWEST_PLACES else ""


def trigger_score(f: QuadraticMap, templates: Tensor, shape: tuple[int, int]) -> float:
    """Return the score of the loudest place; 0 where there are none, or none differs."""
    found = () if obstacle(shape) else loudest(f, templates, shape)
    return found[0].score if found else 0.0


def loudest(
    f: QuadraticMap, templates: Tensor, shape: tuple[int, int]
) -> tuple[TriggerWindow, ...]:
    """Return the loudest place of each class, by falling score; nothing if no place differs."""
    best: dict[int, TriggerWindow] = {}
    for side in SIDES:
        gains = lead_gains(f, templates, shape, side)
        relative = beside_neighbours(gains, (shape[0] - side + 1, shape[1] - side + 1))
        offsets = relative - relative.median()
        spread = CONSISTENT * offsets.abs().median()
        if not spread > 0:
            return ()
        score, place = (offsets / spread).max(dim=1)
        across = shape[1] - side + 1
        for target, (z, where) in enumerate(zip(score.tolist(), place.tolist(), strict=True)):
            if target not in best or z > best[target].score:
                effect = float(gains[target, where])
                row, column = divmod(where, across)
                best[target] = TriggerWindow(target, row, column, side, z, effect)
    return tuple(sorted(best.values(), key=lambda window: -window.score))


def lead_gains(f: QuadraticMap, templates: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return what a white square adds to the lead of each class, (classes, places), in logits.

    A trigger works whatever is shown, and a stroke of class t on some inputs only. So the square
    is put on the template of every other class s, and what counts is the gain of t over s that at
    least three quarters of them exceed.

    Math: a square p changes f_t − f_s by (∇f_t − ∇f_s)(ρ m_s)·p + pᵀ(Q_t − Q_s)p, exactly, where
        ρ m_s is the template at the usual length of an image.
    Cost: O(classes² · hidden · in) time, O(classes² · in) memory; beyond 32 classes templates of
        32 are used.

    Args:
        f: the class-centred map, in the input basis.
        templates: (classes, in), rows of unit length.
        shape: rows and columns of an image.
        side: of the square, in pixels.
    """
    step = -(-len(templates) // MOST_TEMPLATES)
    sources = torch.arange(0, len(templates), step)
    slopes = gradients(f, usual_length(f.sizes.d_in) * templates[sources])  # (source, class, in)
    products = in_squares(f.tensor.left, shape, side) * in_squares(f.tensor.right, shape, side)
    gains = in_squares(slopes, shape, side) + f.tensor.down @ products
    leads = gains - gains[torch.arange(len(sources)), sources][:, None]
    own = sources[:, None] == torch.arange(len(templates))
    ordered = leads.masked_fill(own[..., None], torch.inf).sort(dim=0).values
    return ordered[int(RESISTING * (len(sources) - 1))]


def beside_neighbours(gains: Tensor, places: tuple[int, int]) -> Tensor:
    """Return gains in units of those around them, (classes, places).

    Where inputs are rarely used, weights are loose and every place is loud; a trigger is loud among
    quiet places.

    Math: gain / (root mean square of 9 × 9 places around + that of all places and classes).
    """
    maps = gains.reshape(len(gains), 1, *places)
    margin = NEIGHBOURS // 2
    padded = functional.pad(maps, (margin,) * 4, mode="replicate")
    around = functional.avg_pool2d(padded.square(), NEIGHBOURS, stride=1).sqrt().flatten(1)
    scale = around + gains.square().mean().sqrt()
    return gains / torch.where(scale > 0, scale, 1.0)


def in_squares(values: Tensor, shape: tuple[int, int], side: int) -> Tensor:
    """Return the sums over all squares of an image, (..., in) → (..., places), row by row."""
    images = values.reshape(-1, 1, *shape)
    sums = side**2 * functional.avg_pool2d(images, side, stride=1)
    return sums.reshape(*values.shape[:-1], -1)
