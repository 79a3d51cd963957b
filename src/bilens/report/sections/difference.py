"""What changed in a model as a whole: tensors and files; of tables columns and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bilens.findings.rules.layers import named
from bilens.records.layer_audit import WholeDifference
from bilens.records.table_audit import OutputEffects, TableAudit
from bilens.report.charts.spectra import change_map
from bilens.report.markup import Content, figure, paragraph, quiet, table
from bilens.report.text import NONE, Catalogue, percent, quantity, signed_quantity, whole

LISTED, ROUNDING = 5, 1e-9  # coefficients of an output; a smaller change is none
COLUMNS = ("tensor", "kind", "stored", "change", "rank", "share", "state")


def whole_difference(t: Catalogue, found: WholeDifference) -> Iterator[Content]:
    """Yield the parts of a page about every tensor and the files beside them."""
    yield paragraph(t("sentence.gap").join(difference_sentences(t, found)))
    if found.changed:
        yield figure(change_map(t, found.changed), t("difference.map"))
        yield quiet(t("difference.map_how"))
        heads, rows = t.each("difference.table", COLUMNS), tensor_rows(t, found, most=60)
        yield table(t, t("difference.caption"), heads, rows, class_="layers")
        yield quiet(t("difference.how"))


def difference_sentences(t: Catalogue, found: WholeDifference) -> Iterator[str]:
    """Yield what a reader should know first."""
    if found.identical:
        counts = {"tensors": whole(found.tensors), "files": whole(len(found.files or ()))}
        yield t("difference.identical", **counts)
        return
    same = found.tensors - len(found.changed)
    yield t("difference.tensors", same=whole(same), of=whole(found.tensors))
    if found.changed:
        states = Counter(one.state for one in found.changed).most_common()
        parts = [t(f"difference.count.{state}", count=whole(count)) for state, count in states]
        yield t("difference.states", states=t.listing(parts))
    for mine, theirs in sorted({(one.dtype, one.baseline_dtype) for one in found.changed}):
        if mine != theirs:
            yield t("difference.dtypes", model=mine, baseline=theirs)
    for key in ("model_alone", "baseline_alone", "other_shape"):
        names: Sequence[str] = getattr(found, key)
        if names:
            yield t(f"difference.{key}", count=whole(len(names)), names=named(names))
    other = [
        t(f"difference.file.{file.state}", name=file.name, keys=", ".join(file.keys) or NONE)
        for file in found.files or ()
        if file.state != "same"
    ]
    key = "no_files" if found.files is None else "files" if other else "same_files"
    yield t(f"difference.{key}", names="; ".join(other), count=whole(len(found.files or ())))


def column_sentences(t: Catalogue, record: TableAudit) -> Iterator[str]:
    """Yield what changed between two models of tables, and what was not compared."""
    found = record.column_changes
    if found is None:
        return
    renamed = [f"{before} → {after}" for before, after in found.renamed]
    parts = {"added": found.added, "removed": found.removed, "renamed": renamed}
    key = "lead" if any(parts.values()) else "same"
    yield t(f"difference.columns.{key}", compared=whole(record.model.d_input - len(found.added)))
    for key, names in (parts | {"other_outputs": found.other_outputs}).items():
        if names:
            yield t(f"difference.columns.{key}", names=", ".join(names))
    if found.change is not None:
        yield t("difference.columns.change", change=percent(found.change))
        yield from (f"{one.name}: {most_changed(t, record, one)}" for one in found.outputs)
    if found.lacking:
        yield t("difference.columns.lacking", names=named(found.lacking))
    if found.rows:
        counts = {"changed": found.changed, "rows": found.rows}
        counts |= {"mended": found.mended or 0, "broken": found.broken or 0}
        shown = {key: whole(value) for key, value in counts.items()}
        yield t("difference.columns.answers", **shown)
        if found.mended is not None and found.changed:
            yield t("difference.columns.mended", **shown)
    if found.examples:
        rows = [f"{whole(one.index)} ({one.before} → {one.after})" for one in found.examples]
        yield t("difference.columns.rows", rows=", ".join(rows))


def most_changed(t: Catalogue, record: TableAudit, item: OutputEffects) -> str:
    """Return the coefficients of an output that changed most."""
    names = record.model.input_names
    terms = [
        (names[one.column], kind, value)
        for one in item.columns
        for kind, value in (("linear", one.linear), ("square", one.square))
    ] + [(f"{names[p.first]} × {names[p.second]}", "pair", p.coefficient) for p in item.pairs]
    ranked = sorted(terms, key=lambda term: -abs(term[2]))[:LISTED]
    parts = [
        f"{name} ({t(f'difference.columns.{kind}')}) {signed_quantity(value)}"
        for name, kind, value in ranked
        if abs(value) > ROUNDING
    ]
    return ", ".join(parts) or t("difference.columns.unchanged")


def tensor_rows(t: Catalogue, found: WholeDifference, most: int = 10) -> list[list[str]]:
    """Return the numbers of the largest changes, in the order of `COLUMNS`."""
    ranked = sorted(found.changed, key=lambda one: -1 if one.change is None else -one.change)
    return [
        [
            one.name,
            t(f"difference.kind.{one.kind}"),
            " → ".join(dict.fromkeys((one.baseline_dtype, one.dtype))),
            NONE if one.change is None else quantity(one.change),
            f"{NONE if one.rank is None else one.rank} / {one.full}" if one.full else NONE,
            percent(one.top_share) if one.full else NONE,
            t(f"difference.state.{one.state}"),
        ]
        for one in ranked[:most]
    ]
