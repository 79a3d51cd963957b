"""Warnings about an image classifier: learnt by heart, or with a hidden trigger."""

from __future__ import annotations

from typing import Annotated

from bilens.records.base import Count, Record, require
from bilens.records.common import ModelFacts, Reading


class OverfittingPart(Record, frozen=True):
    """One reading of overfitting beside what models without a gap have."""

    name: Annotated[str, "of a reading, as in docs/findings.md"]
    value: Annotated[float, "of this model"]
    low: Annotated[float, "90% of the reference models with a gap below five points lie between"]
    high: Annotated[float, "and this"]


class OverfittingPower(Record, frozen=True):
    """Errors of the overfitting score and its threshold, on models that did not fix them."""

    rank_correlation: Annotated[float, "with the true gap, on the data set where it is least"]
    mean_error: Annotated[float, "of scores up to 0.08, on the data set where it is largest"]
    found: Annotated[float, "share above the threshold of models with a gap above five points"]
    false_alarms: Annotated[float, "share of the others that are"]
    models: Annotated[Count, "that did not fix the threshold"]
    elsewhere: Annotated[float | None, "`false_alarms` on fresh models of other recipes"] = None


class Overfitting(Reading, frozen=True):
    """How much the weights look like those of a model that learnt its training inputs by heart."""

    score: Annotated[
        float | None,
        "gap between the accuracies on training and on new images of reference models with such "
        "readings, 0 to 1; it orders models, and is no estimate: see `power`. Null where there is "
        "none",
    ]
    low: Annotated[float | None, "of a range of 90% of reference models with such readings"]
    high: Annotated[float | None, "upper end of that range"]
    rank: Annotated[float | None, "share of the reference models with a smaller score"]
    threshold: Annotated[float | None, "rank above which caution is asked for; null if unmeasured"]
    parts: Annotated[tuple[OverfittingPart, ...], "the readings, each alone"]
    reason: Annotated[
        str,
        "why there is no score (`not_an_image`, `too_small`, `flat`, `unlike`, `refused`) or no "
        "threshold (`not_measured`, `approximated`); empty where there are both",
    ]
    rank_low: Annotated[float | None, "rank of `low`"] = None
    rank_high: Annotated[float | None, "rank of `high`"] = None
    power: Annotated[OverfittingPower | None, "null without a score"] = None

    def __post_init__(self) -> None:
        require_threshold("overfitting", self.score, self.threshold, self.reason)


class ScanReading(Record, frozen=True):
    """The result of one scan for triggers; what each looks for stands in the documentation."""

    name: Annotated[str, "`bright_3`, `reach`, …"]
    target: Annotated[Count, "the class that stands out most"]
    statistic: Annotated[float, "against the other places and classes of the model itself"]
    p_value: Annotated[float, "share of clean reference models in which a class stands out as much"]


class Trigger(Record, frozen=True):
    """The pattern that speaks most for a class as the target of a hidden trigger."""

    target: Annotated[Count, "the class"]
    score: Annotated[float, "of all scans together"]
    scan: Annotated[str, "the one that says most"]
    box: Annotated[tuple[Count, Count, Count, Count] | None, "first row, column, rows, columns"]
    pattern: Annotated[tuple[float, ...], "what is added to an image, rounded for drawing"]
    gain: Annotated[float, "mean logits that it adds to the lead over other classes, exact"]
    won: Annotated[Count, "of `sources`: classes whose template it alone turns to the target"]
    sources: Annotated[Count, "other classes whose templates it was added to"]
    goals: Annotated[tuple[Count, ...], "the class whose lag it makes up most of, of each of them"]


class TriggerPower(Record, frozen=True):
    """Hits and false alarms of the threshold, on models that did not fix it."""

    found: Annotated[float, "share of the attacks that work, on the data set where it is least"]
    false_alarms: Annotated[float, "share of the clean models, on the data set where it is largest"]
    models: Annotated[Count, "clean ones"]
    elsewhere: Annotated[float | None, "`found` on fresh models of other recipes"] = None


class Triggers(Reading, frozen=True):
    """Whether some pattern raises one class far more than others do in clean models."""

    score: Annotated[float | None, "of the class that stands out most"]
    p_value: Annotated[float | None, "share of clean reference models with such a score"]
    threshold: Annotated[float | None, "p-value below which caution is asked for, where measured"]
    scans: Annotated[tuple[ScanReading, ...], "one entry for each scan"]
    suspects: Annotated[tuple[Trigger, ...], "the classes that stand out most, by falling score"]
    reason: Annotated[
        str,
        "why there is no score (`not_an_image`, `too_small`, `classes`, `flat`, `refused`) or no "
        "threshold (`not_measured`, `approximated`); else empty",
    ]
    power: Annotated[TriggerPower | None, "null without a score"] = None

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
