"""Rules on a table's model: what its columns give away, and what its scores hide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from bilens.findings.rules.rule import Evidence, Rule, Values, formats

of_tables = partial(Rule, documents=("table",), group="model")
LEAK = 0.9  # share of the error of a plain guess; fixed on other tables than those of the tests
DOMINANT = 0.9  # share of the outputs' variance
GAPS = {"accuracy": 0.05, "r_squared": 0.15}  # of the training rows over the upper end of others


@partial(
    of_tables,
    "leak",
    values=formats("value null threshold", "percent", column="text"),
    bad=">",
    threshold=LEAK,
)
def leak(evidence: Evidence) -> Iterator[Values]:
    for column in () if evidence.reading is None else evidence.reading.columns:
        if column.alone is not None:
            value = max(column.alone, 0.0)
            yield {"value": value, "null": column.alone_null, "column": column.name}


@partial(
    of_tables,
    "identifier",
    values={"value": "count", "columns": "text"},
    bad=">",
    variant=lambda values: "" if values["columns"] else "_none",
)
def identifier(evidence: Evidence) -> Iterator[Values]:
    if evidence.reading is not None:
        named = [column for column in evidence.reading.columns if column.identifier]
        used = [column.name for column in named if column.inputs]
        shown = used or [column.name for column in named]
        yield {"value": len(used), "columns": ", ".join(shown)}


@partial(
    of_tables,
    "dominant",
    values=formats("value threshold", "percent", columns="text"),
    bad=">",
    threshold=DOMINANT,
)
def dominant(evidence: Evidence) -> Iterator[Values]:
    variance = sum(item.variance for item in evidence.effects)
    columns = () if evidence.reading is None else evidence.reading.columns
    names = [column.name for column in columns for _ in column.inputs]
    if variance == 0 or len(set(names)) < 3:
        return
    parts: dict[tuple[str, ...], float] = defaultdict(float)
    for item in evidence.effects:
        for one in item.columns:
            parts[(names[one.column],)] += one.size**2
        for pair in item.pairs:
            both = sorted({names[pair.first], names[pair.second]})
            parts[tuple(both)] += pair.coefficient**2
    for both_names, size in parts.items():
        yield {"value": size / variance, "columns": " × ".join(both_names)}


@partial(
    of_tables,
    "train_test_gap",
    group="use",
    values=formats("train high gap threshold", "percent"),
    number="gap",
    bad=">",
    needs="data",
)
def train_test_gap(evidence: Evidence) -> Iterator[Values]:
    found, reading = evidence.score, evidence.reading
    if found is None or reading is None or reading.train_score is None or evidence.seen_rows:
        return
    high = found.value if found.high is None else found.high
    yield {
        "train": reading.train_score,
        "high": high,
        "gap": max(reading.train_score - high, 0.0),
        "threshold": GAPS.get(found.kind, 0.0),
    }


@partial(
    of_tables,
    "unseen_categories",
    group="use",
    values={"value": "count", "column": "text", "text": "text", "row": "count"},
    bad=">",
    needs="data",
)
def unseen_categories(evidence: Evidence) -> Iterator[Values]:
    if evidence.reading is not None and evidence.done is not None:
        yield {"value": 0, "column": "", "text": "", "row": 0}
        for one in evidence.done:
            if one.kind == "unseen":
                yield {"value": one.values["count"], **one.values}
