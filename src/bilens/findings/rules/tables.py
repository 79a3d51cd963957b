"""Rules on a table's model: what its columns give away, and what its scores hide."""

from collections.abc import Iterator
from functools import partial

from bilens.findings.rules.rule import Evidence, Rule, Values, formats, rule
from bilens.records.column_readings import OTHER

of_tables = partial(Rule, readings=("columns",), group="model", bad=">")
of_rows = partial(of_tables, group="use", needs="data")
of_shares = partial(of_tables, threshold=0.9)  # fixed on other tables than those of the tests
beside = partial(of_tables, group="use", needs="baseline")
CELLS = formats("row text", "cell", value="count", column="text")
ANSWERS = formats("count total", "count", value="percent")


@rule(of_shares, values=formats("value null threshold", "percent", column="text"))
def leak(evidence: Evidence) -> Iterator[Values]:
    for column in () if evidence.reading is None else evidence.reading.columns:
        if column.alone is not None:
            value = max(column.alone, 0.0)
            yield {"value": value, "null": column.alone_null, "column": column.name}


@rule(
    of_tables,
    values={"value": "count", "columns": "text"},
    variant=lambda values: "" if values["columns"] else "_none",
)
def identifier(evidence: Evidence) -> Iterator[Values]:
    columns = () if evidence.reading is None else evidence.reading.columns
    named = [column for column in columns if column.identifier]
    if named or any(one.alone is not None for one in columns):  # few rows are not looked at
        used = [column.name for column in named if column.inputs]
        yield {"value": len(used), "columns": ", ".join(used or [one.name for one in named])}


@rule(of_shares, values=formats("value threshold", "percent", columns="text"))
def dominant(evidence: Evidence) -> Iterator[Values]:
    if evidence.largest_part is not None:
        names, share = evidence.largest_part
        yield {"value": share, "columns": " × ".join(names)}


@rule(
    of_rows,
    values=formats("value total", "count"),
    variant=lambda values: "_partly" if values["value"] not in (0, values["total"]) else "",
)
def seen_rows(evidence: Evidence) -> Iterator[Values]:
    if (found := evidence.performance) is not None and found.trained is not None:
        yield {"value": found.trained if found.rows_seen else 0, "total": found.rows}


@rule(
    of_rows,
    values=formats("train high gap threshold", "percent", filled="count"),
    number="gap",
    variant=lambda v: "_filled" if v["filled"] and v["gap"] > v["threshold"] else "",
)
def train_test_gap(evidence: Evidence) -> Iterator[Values]:
    found, reading = evidence.performance, evidence.reading
    if found is None or reading is None or reading.train_score is None or found.rows_seen:
        return
    if found.classification is not None:  # the upper end of the interval
        high, threshold = found.classification.accuracy.high, 0.05
    elif found.regression is not None:
        high, threshold = found.regression.r_squared or 0.0, 0.15
    else:
        return
    gap = max(reading.train_score - high, 0.0)
    odd = [one for one in evidence.done or () if one.kind in ("missing", "unseen")]
    filled = sum(int(one.values["count"]) for one in odd)
    numbers = {"train": reading.train_score, "high": high, "gap": gap, "threshold": threshold}
    yield {**numbers, "filled": filled}


def cell_changes(evidence: Evidence, kind: str) -> Iterator[Values]:
    """Yield what was done to cells of the rows; nothing where no table says how it was read."""
    if evidence.reading is not None and evidence.done is not None:
        yield {"value": 0, "column": "", "text": "", "row": 0}
        for one in evidence.done:
            if one.kind == kind:
                yield {"value": one.values["count"], **one.values}


@rule(of_rows, values=CELLS)
def unseen_categories(evidence: Evidence) -> Iterator[Values]:
    cases = [*cell_changes(evidence, "unseen")]
    columns = () if evidence.reading is None else evidence.reading.columns
    unknown = any(OTHER in one.levels and one.merged is None for one in columns if one.inputs)
    if not (unknown and len(cases) == 1):  # that none was found says nothing
        yield from cases


@rule(of_rows, values={"value": "count", "column": "text"})
def filled_cells(evidence: Evidence) -> Iterator[Values]:
    columns = () if evidence.reading is None else evidence.reading.columns
    known = {name for column in columns for name in column.inputs}
    # Where the training had such cells, an input says so.
    for case in cell_changes(evidence, "missing"):
        if f"{case['column']}=(missing)" not in known:
            yield case


@rule(beside, values={"value": "count", "columns": "text"})
def changed_columns(evidence: Evidence) -> Iterator[Values]:
    if found := evidence.column_change:
        names = [*(f"+ {name}" for name in found.added), *(f"− {name}" for name in found.removed)]
        yield {"value": len(names), "columns": ", ".join(names)}


@rule(beside, values=ANSWERS, beyond="info")
def changed_answers(evidence: Evidence) -> Iterator[Values]:
    if (found := evidence.column_change) is not None and found.rows:
        value = found.changed / found.rows
        yield {"value": value, "count": found.changed, "total": found.rows}
