"""Page one: may the model be used, what is the risk, what next; and how three groups of rules end.

The same lines stand in the terminal and in Markdown. Of many audits there is an index, the worst
first.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args
from urllib.parse import quote

from markupsafe import Markup

from bilens.findings.rules.changes import kind_of_change
from bilens.findings.rules.decision import FEW, UNDECIDED, decision_of
from bilens.findings.rules.judgements import WHOLE, judgements_of
from bilens.findings.rules.rule import Group, list_names
from bilens.records.audit import Audit
from bilens.records.common import Source
from bilens.records.decision import AuditIndex, IndexRow
from bilens.records.layer_readings import BaselineSource
from bilens.report.markup import (
    badge,
    element,
    facts,
    heading,
    items,
    joined,
    keyed_table,
    paragraph,
    quiet,
    section,
)
from bilens.report.sections.coverage import summary
from bilens.report.sections.difference import headline_lines
from bilens.report.sections.inventory_section import file_section
from bilens.report.sections.overview import (
    FindingLine,
    Page,
    condition_lines,
    document_sha256,
    finding_lines,
    rule_text,
)
from bilens.report.text import NONE, Catalogue, grouped, load_catalogue, percent

GROUPS: Final[tuple[Group, ...]] = get_args(Group)
LOOKS: Final = {  # else unknown
    "use": "pass",
    "conditions": "warn",
    "do_not_use": "fail",
    "not_read": "listed",
}
SEARCHES: Final = {"trigger": "triggers", "overfitting": "overfitting"}  # rule: key
# Notes on data that rest on what the model does not say.
READ_AS: Final = ("assumed_image", "own_scale", "seen_assumed")
ASSUMED: Final = (*READ_AS, "by_position", "folders", "positions")
LEFT_OUT: Final = 0.95  # of the parameters
INDEXED: Final = "model outcome coverage risk"  # columns of the index of many audits
SEVERITY: Final = ("unread", "do_not_use", "cannot_judge", "not_read", "conditions", "use")
WORST: Final = ("fail", "warn", "pass", "info")


@dataclass(frozen=True)
class GroupLine:
    """How the rules of one group ended."""

    question: str
    outcome: str  # one of ICONS
    badge: str
    text: str
    findings: list[FindingLine]


def because(t: Catalogue, record: Audit) -> list[str]:
    """Return the reasons why the decision is no better; nothing where it is the best."""
    share = "" if record.coverage is None else percent(record.coverage.share, toward=-1)
    found, ends = decision_of(record), dict[str, str]()
    told = found.answer == "not_read" or "coverage" in found.reasons  # these say it themselves
    if record.coverage is not None and not record.coverage.share:
        ends["coverage"] = ".none"
    layers = () if record.layers is None else record.layers.readings
    if any(one.how_read in ("exact", "approximate") for one in layers):
        ends["assumed"] = ".some"
    reasons = [reason for reason in found.reasons if reason != "partial" or not told]
    known = [f"decision.because.{reason}{ends.get(reason, '')}" for reason in reasons]
    if (basis := basis_of(record)) != "new" or found.answer == "not_read":
        if basis == "not_placed" and answers_compared(record):
            basis += ".measured"
        known.insert(0, f"decision.basis.{basis}")
    return [*told_in_part(t, record), *(t(key, share=share) for key in known if t.has(key))]


def answers_compared(record: Audit) -> bool:
    """Tell whether the answers of the model and its baseline to some rows were compared."""
    rows = 0 if record.column_changes is None else record.column_changes.rows
    return rows > 0 or (record.difference is not None and record.difference.answers is not None)


def told_in_part(t: Catalogue, record: Audit) -> Iterator[str]:
    """Say so where layers that were named or guessed leave nearly all of a model out."""
    coverage, layers = record.coverage, () if record.layers is None else record.layers.readings
    if not layers or coverage is None or coverage.layout not in ("said", "guessed"):
        return
    told = sum(
        one.d_hidden * ((2 if one.kind == "gated" else 1) * one.d_input + one.d_output)
        for one in layers
    )
    left = 1 - told / max(coverage.parameters, 1)
    if left >= LEFT_OUT:
        yield t(f"decision.told.{coverage.layout}", rest=percent(left, toward=-1))


def risk_lines(t: Catalogue, record: Audit) -> Iterator[tuple[str, str]]:
    """Yield each of the largest risks in plain words, and what to do next."""
    ends = ("risk", "next", "next" if record.difference is None else "next_compared")
    for finding in decision_of(record).risks:
        risk, then, more = (rule_text(t, record.read_as, finding, ending) for ending in ends)
        yield risk or finding.rule, more or then or t("decision.next_unknown")


def more_risks(t: Catalogue, record: Audit) -> list[str]:
    """Return how many risks are told among the checks alone; nothing where there are none."""
    more = decision_of(record).more
    return [t("decision.more", more=more)] if more else []


def looked_lines(t: Catalogue, record: Audit) -> Iterator[tuple[str, list[str]]]:
    """Yield what was looked at, what was not, and who has to accept it."""
    found, coverage, data = decision_of(record), record.coverage, record.data
    looked = [] if coverage is None else [summary(t, coverage)]
    looked += done_lines(t, record)
    looked += [t("decision.in_evaluation")] if record.source.given_in_training else []
    hooks = record.source.hooks
    unseen = [t("decision.hooks", names=list_names(hooks))] if hooks else []
    if apart(record):
        unseen.append(t("decision.apart"))
    if record.layers is not None and not record.layers.readings:
        unseen.append(t("decision.nothing_read"))
    name = (data and data.name) or t("facts.unnamed_data")
    key, seen = "measured" if found.inputs else "no_data", record.performance
    trained = 0
    if found.inputs and seen is not None and seen.rows_seen:
        key, trained = f"measured.{seen.rows_seen}", seen.trained or 0
    counts = {"count": grouped(found.inputs), "trained": grouped(trained)}
    measured = t(f"decision.{key}", name=name, **counts)
    (looked if found.inputs else unseen).append(measured)
    notes = (*(seen.notes if seen else ()), *(data.notes if data else ()))
    said = [t(f"performance.note.{n.kind}", **n.values) for n in notes if n.kind in ASSUMED]
    looked += dict.fromkeys(said)
    cautions = [finding.rule for finding in record.verdict if finding.outcome == "warn"]
    for rule, kind in SEARCHES.items():
        if (search := getattr(record, kind)) is None:  # of what is no image, or not known to be one
            continue
        spoke = search.threshold is not None
        searched = "searched.found" if rule in cautions else "searched"
        key = searched if spoke else "not_searched"
        (looked if spoke else unseen).append(
            t(f"decision.{key}", what=t(f"decision.search.{rule}"))
        )
        unseen += [t("decision.other_triggers")] if spoke and rule == "trigger" else []
    given = record.inputs
    if given is not None and given.training is not None and given.examples:
        looked.append(t("decision.ranked", count=grouped(given.training.rows)))
    if looked:
        yield t("decision.looked"), looked
    yield t("decision.not_looked"), [*unseen, t("decision.never")]
    accepted = [t(f"decision.accepted_by.{found.accepted_by}")]
    entry, state = judgements_of(record).get(WHOLE, (None, ""))
    if entry is not None and state in ("accepted", "inherited"):
        by = {"author": entry.author, "day": entry.date[:10], "model": entry.model}
        end = t("decision.until", until=entry.until) if entry.until else t("decision.endless")
        accepted.append(t("sentence.gap").join((t(f"decision.{state}", **by), end)))
    yield t("decision.accepted_by"), accepted


def done_lines(t: Catalogue, record: Audit) -> Iterator[str]:
    """Yield what was done besides: approximated, inventoried, compared, run on files."""
    layers = () if record.layers is None else record.layers.readings
    if assumed := [one for one in layers if one.how_read == "assumed"]:
        yield t("decision.assumed", count=grouped(len(assumed)))
    if (found := record.inventory) is not None and found.parameters is not None:
        counts = {"tensors": grouped(found.tensors), "count": grouped(found.parameters)}
        yield t("decision.inventoried", **counts)
    whole = None if record.difference is None else record.difference.whole
    every = 0 if whole is None else whole.tensors + len(whole.model_alone + whole.other_shape)
    if whole is not None and every:
        yield t("decision.compared", count=grouped(whole.tensors), of=grouped(every))
    for note in () if record.data is None else record.data.notes:
        if note.kind in ("seen_files", "seen_left"):
            yield t(f"performance.note.{note.kind}", **note.values)


def basis_of(record: Audit) -> str:
    """Return the basis of the decision: `new` file, or how it differs from its baseline."""
    found = None if record.difference is None else record.difference.whole
    return "new" if found is None else kind_of_change(found)


def group_lines(t: Catalogue, record: Audit) -> Iterator[GroupLine]:
    """Yield the three groups of rules, each with a badge of its own."""
    every, found = finding_lines(t, record), decision_of(record)
    for group in GROUPS:
        lines = [line for line in every if line.group == group]
        lines.sort(key=lambda line: WORST.index(line.outcome))
        worst = lines[0].outcome if lines else "unknown"
        silent = group == "model" and (worst == "info" or found.answer in UNDECIDED)
        if worst != "fail" and (silent or (group == "use" and not found.inputs)):
            worst = "unknown"
        outcome = key = "pass" if worst == "info" else worst  # a number is neither good nor bad
        if group == "use" and outcome == "pass" and found.inputs < FEW:
            outcome, key = "warn", "few"
        if group == "reading" and outcome == "pass" and apart(record):
            outcome, key = "warn", "apart"
        silent = silent and found.answer not in UNDECIDED
        text = "silent" if silent and outcome == "unknown" else key
        if group == "reading" and outcome == "pass" and record.layers is not None:
            text = "layers"
        words = t.each(f"group.{group}", (key, f"{text}.text"))
        yield GroupLine(t(f"group.{group}"), outcome, words[0], words[1], lines)


def answer_word(t: Catalogue, record: Audit) -> str:
    """Return the answer in a few words."""
    answer = decision_of(record).answer
    compared = answer == "not_read" and basis_of(record) not in ("new", "not_compared")
    return t(f"decision.{answer}.compared" if compared else f"decision.{answer}")


def answer_text(t: Catalogue, record: Audit) -> str:
    """Explain the answer in a sentence, cautiously where something unusual was found."""
    key = f"decision.{decision_of(record).answer}.text"
    odd = [one for one in finding_lines(t, record) if one.outcome == "warn"]
    stands_out = basis_of(record) == "unrelated" or any(one.group != "reading" for one in odd)
    unlisted = record.coverage is not None and not record.coverage.parameters
    ending = ".cautious" if stands_out else ".unlisted" if unlisted else ""
    return t(f"{key}{ending}" if t.has(f"{key}{ending}") else key)


def apart(record: Audit) -> bool:
    """Return whether layers alone were read, and not what stands between and around them."""
    none = record.layers is not None and not record.layers.readings
    return record.coverage is not None and not record.coverage.connected and not none


def verdict(t: Catalogue, record: Audit) -> Markup:
    """Return page one: the decision for who has to take it, then the three groups."""
    found = decision_of(record)
    look = LOOKS.get(found.answer, "unknown")
    answer = badge(t, look, answer_word(t, record))
    said = element("strong", answer_text(t, record))
    risks = [
        element("li", element("strong", risk), " ", element("span", t("decision.next", text=then)))
        for risk, then in risk_lines(t, record)
    ]
    groups = [
        element(
            "div",
            element("h3", line.question),
            paragraph(badge(t, line.outcome, line.badge), " ", line.text),
            class_=f"group {line.outcome}",
        )
        for line in group_lines(t, record)
    ]
    about = [f"{named_file(record.source) or record.model.kind} · {record.reproduce.date}"]
    if record.columns is None and record.difference is not None:
        baseline = named_file(record.difference.baseline) or t("layers.difference.unnamed")
        about.append(t("verdict.baseline", name=baseline))
    return section(
        t,
        "verdict",
        *map(quiet, about),
        *(paragraph(element("strong", line)) for line in headline_lines(t, record)),
        paragraph(answer, " ", said, class_="overall"),
        *(paragraph(reason, class_="because") for reason in because(t, record)),
        heading(t("decision.risks")),
        element("ol", *risks, class_="risks") if risks else paragraph(t("decision.no_risk")),
        *map(paragraph, more_risks(t, record)),
        facts(((term, items(texts)) for term, texts in looked_lines(t, record)), "looked"),
        element("div", *groups, class_="groups"),
        paragraph(t("decision.sign"), class_="sign"),
        class_=f"verdict {look}",
    )


def named_file(source: Source | BaselineSource) -> str:
    """Return path and digest of a model, as far as they are known."""
    sha256 = source.weights_sha256 and f"SHA-256 {source.weights_sha256[:16]}…"
    return " · ".join(filter(None, (source.path, sha256)))


def checks(t: Catalogue, record: Audit) -> Markup:
    """Return every finding in its group, and the conditions that were asked for."""
    parts: list[Markup] = []
    for line in group_lines(t, record):
        if line.findings:
            parts += [heading(line.question), list_lines(t, line.findings)]
    if asked := condition_lines(t, record):
        parts += [heading(t("conditions.heading")), list_lines(t, asked)]
    lead = ["lead", *(["unjudged"] if decision_of(record).answer in UNDECIDED else [])]
    return section(t, "checks", *map(paragraph, t.each("checks", lead)), *parts)


def list_lines(t: Catalogue, lines: Sequence[FindingLine]) -> Markup:
    rows = []
    for line in lines:
        scope = element("span", line.scope, class_="quiet scope") if line.scope else ""
        sentence = element("span", line.sentence, " " if scope else "", scope, class_="sentence")
        rows.append(element("li", badge(t, line.outcome), sentence, class_=line.outcome))
    return element("ul", *rows, class_="findings")


def decision_lines(t: Catalogue, record: Audit) -> list[str]:
    """Return the decision as lines of text, the answer first."""
    said = t("sentence.gap").join([answer_text(t, record), *because(t, record)])
    lines = [t("decision.line", term=answer_word(t, record), text=said)]
    for number, (risk, then) in enumerate(risk_lines(t, record), start=1):
        lines.append(f"{number}. {risk} {t('decision.next', text=then)}")
    lines += more_risks(t, record)
    for term, texts in looked_lines(t, record):
        lines.append(t("decision.line", term=term, text=t("decision.gap").join(texts)))
    return lines


def index_row(record: Audit, model: str, page: str, lang: str, failed: bool) -> IndexRow:
    """Return how an audit ended, in one row."""
    t = load_catalogue(lang)
    found = decision_of(record)
    risks = [] if found.answer == "use" else [risk for risk, _ in risk_lines(t, record)]
    return IndexRow(
        model,
        found.answer,
        int(failed),
        None if record.coverage is None else record.coverage.share,
        risks[0] if risks else "",
        page=page,
        document_sha256=document_sha256(record),
    )


def rank_rows(rows: Iterable[IndexRow]) -> tuple[IndexRow, ...]:
    """Return rows with the worst first; those that end alike keep their order."""
    return tuple(sorted(rows, key=lambda row: SEVERITY.index(row.outcome)))


def index_page(t: Catalogue, index: AuditIndex) -> Page:
    found = Counter(row.outcome for row in index.models)
    rows = []
    for row in index.models:
        name, word, coverage, said = row_texts(t, row)
        link = element("a", name, href=quote(row.page)) if row.page else name
        shown = "fail" if row.outcome == "unread" else LOOKS.get(row.outcome, "unknown")
        read = joined(element("span", t("index.coverage"), " ", class_="label"), coverage)
        rows.append((link, badge(t, shown, word), read, said))
    words = "model outcome risk"
    body = keyed_table(t, "index", INDEXED, rows, words=words, class_="index")
    return Page(
        keys="index",
        count=len(index.models),
        facts=[(outcome_word(t, kind), grouped(found[kind])) for kind in SEVERITY],
        parts=(
            ("models", section(t, "index.models", body)),
            ("files", file_section(t, index.files)),
        ),
        limits=[t("index.limits"), t("scope.judgement")],
        title=grouped(len(index.models)),
        styles=("index.css",),
    )


def row_texts(t: Catalogue, row: IndexRow) -> tuple[str, str, str, str]:
    """Return the cells of one model in the index, in the order of `INDEXED`."""
    coverage = NONE if row.coverage is None else percent(row.coverage, toward=-1)
    said = row.error or row.risk or t("index.no_risk")
    return row.model, outcome_word(t, row.outcome), coverage, said


def outcome_word(t: Catalogue, outcome: str) -> str:
    return t("index.unread" if outcome == "unread" else f"decision.{outcome}")
