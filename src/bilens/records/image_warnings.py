"""Warnings about an image classifier: learnt by heart, or with a hidden trigger."""

from __future__ import annotations

from bilens.records.base import Count, Record, require
from bilens.records.common import ModelFacts, Reading


class OverfittingPart(Record, frozen=True):
    """One reading of overfitting beside what models without a gap have."""

    name: str  # of a reading, as in docs/findings.md
    value: float
    low: float  # 90 % of the reference models with a gap below five points lie between
    high: float


class OverfittingPower(Record, frozen=True):
    """Errors of the overfitting score and its threshold, on models that did not fix them."""

    rank_correlation: float  # with the true gap, on the data set where it is least
    mean_error: float  # of scores up to 0.08, on the data set where it is largest
    found: float  # share of the models with a gap above five points that are above the threshold
    false_alarms: float  # share of the others that are
    models: Count
    elsewhere: float | None = None  # `false_alarms` on fresh models of other recipes


class Overfitting(Reading, frozen=True):
    """How much the weights look like those of a model that learnt its training inputs by heart."""

    # gap between the accuracies on training and on new images of reference models with such
    # readings, 0 to 1; it orders models, and is no estimate: see `power`. Null where there is none
    score: float | None
    low: float | None  # 90 % of the reference models with such readings have a gap between
    high: float | None
    rank: float | None  # share of the reference models with a smaller score
    # rank above which the verdict asks for caution; null where that was not measured
    threshold: float | None
    parts: tuple[OverfittingPart, ...]  # the readings, each alone
    # why there is no score (`not_an_image`, `too_small`, `flat`, `unlike`, `refused`) or no
    # threshold (`not_measured`, `approximated`); empty where there are both
    reason: str
    rank_low: float | None = None  # of `low` and `high`
    rank_high: float | None = None
    power: OverfittingPower | None = None  # null without a score

    def __post_init__(self) -> None:
        require_threshold("overfitting", self.score, self.threshold, self.reason)


class ScanReading(Record, frozen=True):
    """The result of one scan for triggers; what each looks for stands in the documentation."""

    name: str  # `bright_3`, `reach`, …
    target: Count  # the class that stands out most
    statistic: float  # against the other places and classes of the model itself
    p_value: float  # share of clean reference models in which a class stands out as much


class Trigger(Record, frozen=True):
    """The pattern that speaks most for a class as the target of a hidden trigger."""

    target: Count  # the class
    score: float  # of all scans together
    scan: str  # the one that says most
    # first row and column, rows and columns of the place; null where the pattern is all over
    box: tuple[Count, Count, Count, Count] | None
    pattern: tuple[float, ...]  # what is added to an image, row by row, rounded for drawing
    gain: float  # logits that it adds to the lead over the other classes, the mean, exact
    won: Count  # of `sources`: classes whose template it turns to the target, and was not before
    sources: Count  # other classes whose templates it was added to
    goals: tuple[Count, ...]  # the class whose lag it makes up most of, of each of them


class TriggerPower(Record, frozen=True):
    """Hits and false alarms of the threshold, on models that did not fix it."""

    found: float  # share of the attacks that work, on the data set where it is least
    false_alarms: float  # share of the clean models, on the data set where it is largest
    models: Count  # clean ones
    elsewhere: float | None = None  # `found` on fresh models of other recipes


class Triggers(Reading, frozen=True):
    """Whether some pattern raises one class far more than others do in clean models."""

    score: float | None  # of the class that stands out most
    p_value: float | None  # share of clean reference models with such a score
    threshold: float | None  # p-value below which caution is asked for; null where not measured
    scans: tuple[ScanReading, ...]
    suspects: tuple[Trigger, ...]  # the classes that stand out most, by falling score
    # why there is no score (`not_an_image`, `too_small`, `classes`, `flat`, `refused`) or no
    # threshold (`not_measured`, `approximated`); else empty
    reason: str
    power: TriggerPower | None = None  # null without a score

    def __post_init__(self) -> None:
        require_threshold("triggers", self.score, self.threshold, self.reason)
        whole = self.score is None or (self.p_value is not None and len(self.suspects) > 0)
        require(whole, "triggers has a score, but no p_value or no suspects")

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse patterns that do not fit an image, or are of no class."""
        height, width = model.input_shape or (0, 0)
        for one in self.suspects:
            row, column, rows, columns = one.box or (0, 0, height, width)
            inside = row + rows <= height and column + columns <= width
            fits = inside and len(one.pattern) == height * width
            known = max(one.target, *one.goals) < len(model.output_names)
            require(fits and known, "a pattern of triggers is not in the model")


def require_threshold(name: str, score: float | None, threshold: float | None, reason: str) -> None:
    """Refuse a score without a threshold or a reason, and a threshold without a score."""
    together = (score is None) == (threshold is None) or (threshold is None and reason != "")
    require(together, f"{name} has a score or a threshold, and not the other")
