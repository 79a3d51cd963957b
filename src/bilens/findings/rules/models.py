"""Rules on a model: whether it is read exactly, how good it is, what it may hide."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from bilens.findings.rules.rule import (
    GUESS,
    OPEN,
    Evidence,
    Rule,
    Values,
    formats,
    list_names,
    rule,
)

of_classes = partial(Rule, readings=("classes",), group="model")
of_tables = partial(Rule, readings=("columns",), group="model")
of_all = partial(Rule, readings=("classes", "layers", "columns"))
MOST = 20  # classes that a sentence names


@rule(
    of_all,
    group="reading",
    rank=3,
    values=formats("value threshold", "percent", exact="percent", approximate="percent")
    | {"unread": "whole"},
    threshold=0.9,  # of the parameters
    bad="<",
    variant=lambda v: (
        "_files" if OPEN in v else {0: "_whole"}.get(v["unread"], "" if v["value"] else "_none")
    ),
)
def coverage(evidence: Evidence) -> Iterator[Values]:
    found = evidence.coverage
    if found is not None and found.parameters:
        yield {
            "value": found.share,
            "exact": found.exact / found.parameters,
            "approximate": found.approximate / found.parameters,
            "unread": found.unread,
            **({"outcome": "warn", OPEN: "files"} if found.other_files and found.share else {}),
        }


@rule(
    of_all,
    group="reading",
    rank=2,
    values={"unverified": "count", "threshold": "count", "source": "source"},
    number="unverified",
    bad=">",
    variant=lambda values: f"_{values['source']}" if values["unverified"] else "",
)
def layout(evidence: Evidence) -> Iterator[Values]:
    found, read = evidence.coverage, evidence.layers or evidence.effects
    if found is not None and read:  # of nothing that was read, nothing is read wrongly
        unverified = found.layout != "known" or not found.checked_against
        source = found.checked_against if not unverified else found.layout
        yield {"unverified": int(unverified), "source": source}


@rule(
    of_classes,
    group="reading",
    readings=("classes", "columns"),
    values={"error": "scientific", "inputs": "count"},
    number="error",
)
def exact(evidence: Evidence) -> Iterator[Values]:
    if found := evidence.exactness:
        outcome = "pass" if all(item.passed for item in found) else "fail"
        error = max(item.relative_error for item in found)
        numbers = {"error": error, "inputs": found[0].num_inputs}
        yield {**numbers, "outcome": outcome}


@rule(
    of_classes,
    group="reading",
    values={"residual": "scientific", "classes": "count", "incomplete": "text"},
    number="residual",
)
def complete(evidence: Evidence) -> Iterator[Values]:
    if classes := evidence.classes:
        incomplete = [reading.name for reading in classes if not reading.complete]
        yield {
            "residual": max(reading.largest_residual for reading in classes),
            "classes": len(classes),
            "incomplete": list_names(incomplete, MOST),
            "outcome": "fail" if incomplete else "pass",
        }


@rule(
    of_classes,
    values=formats("value threshold", "whole", of="count", pairs="text"),
    bad=">",
    rank=3,
    scope="map",
)
def twin_classes(evidence: Evidence) -> Iterator[Values]:
    if (twins := evidence.twins) is not None:
        pairs = list_names([f"{one} = {other}" for one, other in twins])
        yield {"value": len(twins), "of": len(evidence.classes), "pairs": pairs}


@rule(
    of_classes,
    group="use",
    rank=GUESS,
    values=formats("value low high plain", "percent", total="count"),
    needs="data",
)
def accuracy(evidence: Evidence) -> Iterator[Values]:
    if found := evidence.answers:
        share, plain = found.accuracy, found.accuracy.plain or 0.0
        numbers = {name: getattr(share, name) for name in ("value", "low", "high", "total")}
        yield {**numbers, "plain": plain, "outcome": "warn" if share.low <= plain else "info"}


@rule(
    of_all,
    group="use",
    values=formats("value null", "points", brier="fixed3", total="count"),
    usual="info",
    needs="data",
)
def calibration(evidence: Evidence) -> Iterator[Values]:
    if found := evidence.answers:
        numbers = {"value": found.ece, "null": found.ece_null, "brier": found.brier}
        yield {**numbers, "total": found.accuracy.total}


@rule(
    of_all,
    group="use",
    values=formats("recall low high accuracy", "percent", value="points", threshold="points")
    | {"total": "count", "name": "text"},
    threshold=0.1,  # that a class surely lies below the accuracy: a tenth of its rows, fixed first
    bad=">",
    needs="data",
)
def worst_class_recall(evidence: Evidence) -> Iterator[Values]:
    if found := evidence.answers:
        accuracy = found.accuracy.value
        for name, recall in ((one.name, one.recall) for one in found.classes):
            if recall is not None:
                shares = {"recall": recall.value, "low": recall.low, "high": recall.high}
                gap = {"value": accuracy - recall.high, "accuracy": accuracy}
                yield {**shares, **gap, "total": recall.total, "name": name}


table_accuracy = replace(accuracy, readings=("columns",), sentences="table_accuracy")


@rule(
    of_classes,
    values={"k": "count", "of": "count", "accuracy": "percent", "full": "percent"},
    number="k",
    usual="info",
    needs="data",
    variant=lambda values: {0: "_none", values["of"]: "_all"}.get(values["k"], ""),
)
def few_directions(evidence: Evidence) -> Iterator[Values]:
    if evidence.truncation:
        full, enough = evidence.truncation[-1], evidence.enough
        point = next(point for point in evidence.truncation if point.k == enough)
        yield {"k": enough, "of": full.k, "accuracy": point.accuracy, "full": full.accuracy}


@rule(
    of_tables,
    readings=("columns", "layers"),
    group="use",
    rank=GUESS,
    values={"value": "fixed3", "total": "count"},
    bad="<",
    needs="data",
)
def r_squared(evidence: Evidence) -> Iterator[Values]:
    found = evidence.performance
    if found is not None and found.regression is not None:
        value = found.regression.r_squared or 0.0
        yield {"value": value, "total": found.rows, "outcome": "info" if value > 0 else "warn"}


@rule(
    of_tables,
    values=formats("linear square pair", "share"),
    number=None,
    usual="info",
    variant=lambda values: f"_{values[OPEN]}" if OPEN in values else "",
)
def shares(evidence: Evidence) -> Iterator[Values]:
    if effects := evidence.effects:
        variance = sum(item.variance for item in effects) or 1.0
        yield {
            "linear": sum(item.variance * item.linear_share for item in effects) / variance,
            "square": sum(item.variance * item.square_share for item in effects) / variance,
            "pair": sum(item.variance * item.pair_share for item in effects) / variance,
            **({OPEN: evidence.columns_in} if evidence.columns_in else {}),
        }


@rule(
    of_classes,
    values={"median": "whole", "least": "count", "most": "count", "none": "text"},
    number="least",
)
def beyond_null(evidence: Evidence) -> Iterator[Values]:
    if classes := evidence.classes:
        counts = [item.significant_positive + item.significant_negative for item in classes]
        none = [item.name for item, count in zip(classes, counts, strict=True) if count == 0]
        yield {
            "median": statistics.median(counts),
            "least": min(counts),
            "most": max(counts),
            "none": list_names(none, MOST),
            "outcome": "warn" if none else "info",
        }


@rule(
    of_classes,
    rank=5,
    inputs="images",
    values=formats("rank low high threshold found false_alarms", "percent"),
    number="rank",
    bad=">",
    usual="info",
)
def overfitting(evidence: Evidence) -> Iterator[Values]:
    found, given = evidence.overfitting, evidence.inputs
    if given is not None and given.comparison is not None and given.comparison.gap is not None:
        return  # it was measured: nothing is guessed from weights
    if found is not None and found.threshold is not None and found.power is not None:
        yield {
            "rank": found.rank or 0.0,
            "low": found.rank_low or 0.0,
            "high": found.rank_high or 0.0,
            "threshold": found.threshold,
            "found": found.power.found,
            "false_alarms": found.power.false_alarms,
        }


@rule(
    of_classes,
    id="train_test_gap",
    values=formats("gap threshold", "points", train="percent", high="percent"),
    number="gap",
    threshold=0.05,  # as of tables
    bad=">",
    needs="data",
    sentences="measured_gap",
    rank=5,
)
def measured_gap(evidence: Evidence) -> Iterator[Values]:
    found = evidence.inputs
    if found is None or found.comparison is None or found.comparison.gap is None:
        return
    assert found.training is not None, "it was compared"
    assert found.test is not None, "with these"
    train, test = found.training.accuracy, found.test.accuracy
    assert train is not None, "the gap is of labels"
    assert test is not None, "of both"
    yield {"gap": found.comparison.gap.low, "train": train.value, "high": test.high}


@rule(
    of_classes,
    rank=5,
    inputs="images",
    values=formats("p_value threshold", "per_mille", found="percent", false_alarms="percent")
    | formats("row column rows columns won sources", "count", target="text"),
    number="p_value",
    bad="<",
    usual="info",
    variant=lambda v: "_over" if v["rows"] == 0 and v["p_value"] < v["threshold"] else "",
)
def trigger(evidence: Evidence) -> Iterator[Values]:
    found = evidence.triggers
    if found is not None and found.threshold is not None and found.power is not None:
        suspect = found.suspects[0]
        place = zip(("row", "column", "rows", "columns"), suspect.box or (0, 0, 0, 0), strict=True)
        yield {
            "p_value": found.p_value or 0.0,
            "threshold": found.threshold,
            "target": evidence.output_names[suspect.target],
            **dict(place),
            "won": suspect.won,
            "sources": suspect.sources,
            "found": found.power.found,
            "false_alarms": found.power.false_alarms,
        }
