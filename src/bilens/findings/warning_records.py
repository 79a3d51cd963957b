"""The records of what may be wrong with a model: overfitting and triggers, without data."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.findings.chance import Chance

NOT_APPLICABLE = ("not_an_image", "too_small", "flat")  # inputs in a row; few; nothing differs


@dataclass(frozen=True)
class Score:
    """A data-free number beside its level of chance."""

    name: str
    value: float
    chance: Chance | None  # None for what is itself a comparison with chance


@dataclass(frozen=True)
class Overfitting:
    """How much the weights look like those of a model that learnt its training inputs by heart."""

    score: float | None  # predicted gap of accuracy; None where inputs are no images
    threshold: float | None  # of the score
    parts: tuple[Score, ...]  # what is measured, each alone
    reason: str  # why there is no score: NOT_APPLICABLE; "" where there is one


@dataclass(frozen=True)
class TriggerWindow:
    """The place at which a white square speaks loudest for one class, whatever is shown."""

    target: int  # class
    row: int
    column: int
    side: int
    score: float  # surplus, in root mean squares of all windows and classes
    effect: float  # logits that the square adds to the mean lead of the class over the others


@dataclass(frozen=True)
class Triggers:
    """Whether a small square speaks for one class far louder than any other square does."""

    score: float | None  # of the loudest window
    threshold: float | None
    chance: Chance | None
    windows: tuple[TriggerWindow, ...]  # the loudest of each class, by falling score
    reason: str  # why there is no score: NOT_APPLICABLE; "" where there is one
