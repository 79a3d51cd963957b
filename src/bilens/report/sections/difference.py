"""What changed in a model as a whole: sentences, a map by kind and layer, tensors and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bilens.findings.rules.layers import named
from bilens.records.layer_audit import WholeDifference
from bilens.report.charts.spectra import change_map
from bilens.report.markup import Content, figure, paragraph, quiet, table
from bilens.report.text import NONE, Catalogue, percent, quantity, whole

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
