"""Changes of a model as a whole: tensors and files; of tables columns and answers."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from bilens.findings.rules.rule import list_names
from bilens.records.audit import Audit
from bilens.records.column_readings import ColumnChanges
from bilens.records.layer_readings import AnswerChanges, CandidateWords, Difference, WordTrial
from bilens.records.tensor_changes import (
    DifferenceHeadline,
    GraphChange,
    TensorChange,
    UpdateDirection,
    WholeDifference,
)
from bilens.report.charts.spectrum_charts import change_map
from bilens.report.markup import Content, figure, paragraph, quiet
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import NONE, Catalogue, fixed, grouped, percent, quantity, signed_quantity

MOST = 3  # columns and pairs of an output


# Why layers are not compared, as documents say it in English → the key of its sentence.
REASONS = {
    "the (?:model|baseline) has no such layer": "alone",
    "nothing shows that the two residual streams .*": "stream",
    "hidden neurons have no names, .*": "neurons",
    "inputs without a counterpart: (?P<names>.*)": "inputs",
    "outputs without a counterpart: (?P<names>.*)": "outputs",
    "(?P<before>.+ → .+) became (?P<after>.+ → .+)": "kind",
    r"R² = (?P<r2>\S+) is below (?P<least>\S+)": "r2",
    "the model gives (?P<mine>.+), and the baseline (?P<theirs>.+)": "gives",
    "behind the last layer the model has (?P<mine>.+), and the baseline (?P<theirs>[^:]+)": "end",
    "behind the last layer the model has (?P<mine>.+), and the baseline (?P<theirs>.+): .*": "off",
    "their inputs are in other units, (?P<names>.*)": "units",
    "their residual streams are turned: .*": "turned",
    "(?P<names>.*), by other ranks or in one alone by rank": "of_ranks",
    "(?P<names>.*) of the model": "of_model",
    "(?P<names>.*) of the baseline": "of_baseline",
}


def reason_text(t: Catalogue, reason: str) -> str:
    """Return why something was not compared in the reader's language, where that is known."""
    for pattern, name in REASONS.items():
        if found := re.fullmatch(pattern, reason, re.DOTALL):
            values = found.groupdict()
            if name in ("inputs", "outputs"):
                sides = (reason_text(t, side) for side in values["names"].split("; "))
                values["names"] = "; ".join(sides)
            return t(f"layers.difference.reason.{name}", **values)
    return reason


def whole_difference(t: Catalogue, found: WholeDifference) -> Iterator[Content]:
    """Yield the parts of a page about every tensor and the files beside them."""
    said = [headline_sentence(t, found), *difference_sentences(t, found)]
    yield paragraph(t("sentence.gap").join(filter(None, said)))
    if found.changed:
        yield figure(change_map(t, found.changed), t("difference.map"))
        yield quiet(t("difference.map_how"))
        yield TENSORS.on_page(t, largest_changes(found, 60), class_="layers")
        yield quiet(t("difference.how"))
    if found.directions:
        yield DIRECTIONS.on_page(t, found.directions, class_="layers")
        yield quiet(t("difference.directions.how"))


def word_trial(t: Catalogue, found: WordTrial) -> Iterator[Content]:
    """Yield the words that were tried in a changed language model."""
    yield paragraph(trial_sentence(t, found))
    yield TRIAL.on_page(t, found.candidates, class_="layers")
    yield quiet(t("difference.trial.how"))


def trial_sentence(t: Catalogue, found: WordTrial) -> str:
    """Return how many words were tried, and in which frame."""
    key = "difference.trial.chat" if found.chat else "difference.trial.plain"
    return t(key, tried=grouped(found.tried), known=grouped(found.known))


def difference_sentences(t: Catalogue, found: WholeDifference) -> Iterator[str]:
    """Yield what a reader should know first."""
    same = found.tensors - len(found.changed)
    if found.changed:
        yield t("difference.tensors", same=grouped(same), of=grouped(found.tensors))
        states = Counter(one.state for one in found.changed).most_common()
        parts = [t(f"difference.count.{state}", count=grouped(count)) for state, count in states]
        yield t("difference.states", states=t.listing(parts))
    for one in found.changed:
        if one.blocks_off:
            off, places = grouped(one.blocks_off), list_names(one.places)
            yield t("difference.blocks", name=one.name, off=off, places=places)
    for mine, theirs in sorted({(one.dtype, one.baseline_dtype) for one in found.changed}):
        if mine != theirs:
            yield t("difference.dtypes", model=mine, baseline=theirs)
    for key in ("model_alone", "baseline_alone", "other_shape"):
        names: Sequence[str] = getattr(found, key)
        if names:
            yield t(f"difference.{key}", count=grouped(len(names)), names=list_names(names))
    other = [
        t(f"difference.file.{file.state}", name=file.name, keys=", ".join(file.keys) or NONE)
        for file in found.files or ()
        if file.state != "same"
    ]
    key = "no_files" if found.files is None else "files" if other else "same_files"
    yield t(f"difference.{key}", names="; ".join(other), count=grouped(len(found.files or ())))
    yield from unread_files(t, found)


def headline_lines(t: Catalogue, record: Audit) -> list[str]:
    """Return the headline of an audit with a baseline as one line; no line without one."""
    whole = None if record.difference is None else record.difference.whole
    return [] if whole is None or whole.headline is None else [headline_sentence(t, whole)]


def headline_sentence(t: Catalogue, found: WholeDifference) -> str:
    """Return in one sentence or two what became of the weights; empty of an older document."""
    if (head := found.headline) is None:
        return ""
    graph = head.graph or GraphChange()
    numbers = [number_ranges(head.layers)] if head.layers else []
    places = [
        *(t("difference.headline.layers", count=len(head.layers), names=one) for one in numbers),
        *t.each("difference.kind", head.kinds),
    ]
    where = t("difference.headline.where", places=t.listing(places)) if places else ""
    if head.names:
        where = t("difference.headline.named", names=t.listing([*head.names]))
    folded = [one for one in found.changed if one.norm]
    rounded = [one.rounded_to or one.baseline_rounded_to for one in found.changed]
    values = {
        "tensors": grouped(head.tensors),
        "differing": grouped(head.differing),
        "changed": grouped(len(found.changed)),
        "alone": grouped(head.alone),
        "shaped": grouped(head.other_shape),
        "ways": t.listing(t.each("difference.way", head.ways)),
        "model": t.listing([*head.types]),
        "baseline": t.listing([*head.baseline_types]),
        "rounded": t.listing([*dict.fromkeys(filter(None, rounded))]),
        "error": quantity(head.error) if head.error is not None else NONE,
        "correlation": NONE if head.correlation is None else signed_quantity(head.correlation),
        "chance": NONE if head.chance is None else quantity(head.chance),
        "rank": "",
        "folded": grouped(len(folded)),
        "norms": list_names([one.norm for one in folded]),
        "epsilon": t.listing(sorted({f"{one.epsilon:g}" for one in folded if one.epsilon})),
        "residual": quantity(max((one.residual or 0.0 for one in folded), default=0.0)),
        "where": where,
        "names": list_names(found.other_weights),
        "unplaced": grouped(head.unplaced or 0),
        "unseen": list_names(found.unseen),
        "unseen_count": grouped(len(found.unseen)),
        "unread": grouped(head.unread[0]),
        "unread_baseline": grouped(head.unread[1]),
        "operations": list_names([*map(str, graph.operations or ())]),
        "settings": list_names([*map(str, graph.settings or ())]),
    }
    if head.ranks is not None:
        ranks = "–".join(map(str, dict.fromkeys(head.ranks)))
        values["rank"] = t("difference.headline.rank", rank=ranks)
    said = headline_parts(head, found)
    return t("sentence.gap").join(t(f"difference.headline.{one}", **values) for one in said)


def headline_parts(head: DifferenceHeadline, found: WholeDifference) -> list[str]:
    """Return the keys of the sentences of a headline, in the order in which they are read."""
    said = ["nothing" if head.kind == "unrelated" and head.correlation is None else head.kind]
    lost, told_by_bytes = any(head.unread), head.kind in ("identical", "same_tensors")
    unplaced, graph = bool(head.unplaced), head.graph or GraphChange()
    if head.ways == ("unseen",):
        said, lost = ["same_tensors_unseen"], False
    elif told_by_bytes and (lost or not head.tensors):
        said, lost = [f"{head.kind}_bytes"], False
    elif head.ways == ("files",):
        said = ["same_tensors_files"]
    elif head.kind == "same_tensors" and unplaced:
        said, unplaced = ["same_tensors_unplaced"], False
    elif head.kind == "not_compared" and head.tensors:
        said = ["not_compared_partly"]
    elif head.kind == "same_numbers" and head.types == head.baseline_types:
        said = ["same_numbers_zeros"]
    alike = head.graph is not None and not graph.is_other and head.kind != "unrelated"
    older = head.unplaced is None  # what was compared of a program then is not known
    more = {
        "epsilon": any(one.epsilon and not one.assumed for one in found.changed),
        "epsilon_assumed": any(one.epsilon and one.assumed for one in found.changed),
        "alone": head.alone > 0,
        "other_shape": head.other_shape > 0,
        "no_copy": head.no_copy,
        "unplaced": unplaced and head.kind not in ("unrelated", "not_compared"),
        "unread": lost,
        "other_weights": bool(found.other_weights),
        "unseen": bool(found.unseen),
        "operations": bool(graph.operations),
        "settings": bool(graph.settings),
        "unknown_program": alike and older,
        "same_counts": alike and not older and graph == GraphChange(()),
        "same_graph": alike and not older and graph == GraphChange((), ()),
        "no_program": alike and not older and graph == GraphChange(),
    }
    return [*said, *(key for key, holds in more.items() if holds)]


def number_ranges(numbers: Sequence[int]) -> str:
    """Return rising numbers as a text, those that follow each other as a range: 0–3, 5."""
    runs = list[list[int]]()
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join("–".join(map(str, dict.fromkeys((run[0], run[-1])))) for run in runs)


def unread_files(t: Catalogue, found: WholeDifference) -> Iterator[str]:
    """Yield which files beside the weights were not compared; nothing where all were."""
    if found.not_compared:
        count = grouped(len(found.not_compared))
        yield t("difference.not_compared", count=count, names=list_names(found.not_compared))


def change_sentences(t: Catalogue, record: Audit) -> Iterator[str]:
    """Yield what changed from a baseline; nothing without one."""
    if record.column_changes is not None:
        yield from column_sentences(t, record, record.column_changes)
    if record.difference is not None:
        yield from alignment_sentences(t, record.difference)
    if record.difference is not None and record.difference.whole is not None:
        yield from difference_sentences(t, record.difference.whole)
    if record.difference is not None and record.difference.trial is not None:
        yield trial_sentence(t, record.difference.trial)


def alignment_sentences(t: Catalogue, found: Difference) -> Iterator[str]:
    """Yield how inputs, outputs and residual streams of two models were matched."""
    for one in found.aligned:
        yield t(f"difference.aligned.{one.kind}", names=", ".join(one.names))
    if layers := [one.name for one in found.layers if one.matched]:
        yield t("layers.difference.stream", layers=list_names(layers))
    if found.answers is not None:
        yield from answer_sentences(t, found.answers)


def column_sentences(t: Catalogue, record: Audit, found: ColumnChanges) -> Iterator[str]:
    """Yield what changed between two models of tables, and what was not compared."""
    names = record.model.input_names or ()
    renamed = [f"{before} → {after}" for before, after in found.renamed]
    parts = {"added": found.added, "removed": found.removed}
    key = "lead" if any(parts.values()) else "same"
    parts["renamed"] = tuple(renamed)
    if found.reread:
        yield t("difference.columns.reread", names=", ".join(found.reread))
    else:
        yield t(f"difference.columns.{key}", compared=grouped(len(names) - len(found.added)))
    for key, alone in (parts | {"other_outputs": found.other_outputs}).items():
        if alone:
            yield t(f"difference.columns.{key}", names=", ".join(alone))
    if found.change is not None:
        yield t("difference.columns.change", change=percent(found.change))
    for item in found.outputs:
        terms = [(names[one.column], one.linear, one.square) for one in item.columns[:MOST]]
        moved = abs(item.constant) > 1e-3 * item.variance**0.5  # else it is none of the largest
        said = [t("difference.columns.constant", value=signed_quantity(item.constant))] * moved
        said += [
            t("difference.columns.term", name=name, b=signed_quantity(b), q=signed_quantity(q))
            for name, b, q in terms
        ]
        for pair in item.pairs[:MOST]:
            both = f"{names[pair.first]} × {names[pair.second]}"
            said.append(f"{both} {signed_quantity(pair.coefficient)}")
        yield t("difference.columns.output", name=item.name, terms=", ".join(said))
    if found.rows:
        yield from answer_sentences(t, found, unmatched=bool(found.other_outputs))
    elif record.data is not None:
        yield t("difference.columns.lacking")


def answer_sentences(
    t: Catalogue, found: AnswerChanges | ColumnChanges, *, unmatched: bool = False
) -> Iterator[str]:
    """Yield on how many rows the answers of two models differ, and which of them were right."""
    counts = {"changed": found.changed, "rows": found.rows}
    counts |= {"mended": found.mended or 0, "broken": found.broken or 0}
    rows = [f"{grouped(row)} ({before} → {after})" for row, before, after in found.examples]
    shown = {key: grouped(value) for key, value in counts.items()}
    yield t("difference.columns.answers", **shown)
    if rows and found.mended is not None:
        yield t("difference.columns.mended", **shown)
    elif rows and unmatched:
        yield t("difference.columns.unmatched")
    if rows:
        yield t("difference.columns.rows", rows=", ".join(rows))


def largest_changes(found: WholeDifference, most: int = 10) -> list[TensorChange]:
    """Return the tensors that changed most; an unknown change counts as one of 100%."""
    return sorted(found.changed, key=lambda one: -1 if one.change is None else -one.change)[:most]


def rank_of(_: Catalogue, one: TensorChange) -> str:
    return f"{NONE if one.rank is None else one.rank} / {one.full}" if one.full else NONE


def token_scores(_: Catalogue, one: UpdateDirection) -> str:
    return ", ".join(f"“{x.token}” {fixed(x.score, 1)}" for x in one.tokens)


TENSORS = FieldTable(
    TensorChange,
    (
        FieldColumn("name", numeric=False),
        FieldColumn("kind", lambda t, one: t(f"difference.kind.{one.kind}")),
        FieldColumn("dtype", lambda _, x: " → ".join(dict.fromkeys((x.baseline_dtype, x.dtype)))),
        FieldColumn("change"),
        FieldColumn("rank", rank_of),
        FieldColumn("top_share", lambda _, one: percent(one.top_share) if one.top_share else NONE),
        FieldColumn("state", lambda t, one: t(f"difference.state.{one.state}")),
    ),
    "difference.caption",
)
DIRECTIONS = FieldTable(
    UpdateDirection,
    (
        FieldColumn("name", numeric=False),
        FieldColumn("side", lambda t, one: t(f"difference.directions.{one.side}")),
        FieldColumn("tokens", token_scores),
        FieldColumn("share"),
    ),
    "difference.directions.caption",
    named=(),
)
TRIAL = FieldTable(
    CandidateWords,
    (
        FieldColumn("words", lambda _, one: one.phrase, numeric=False),
        FieldColumn("answer", lambda _, one: one.answer.strip()),
        FieldColumn("surprise"),
    ),
    "difference.trial.caption",
)
