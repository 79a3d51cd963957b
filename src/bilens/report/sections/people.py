"""Remarks of people on a model, in words: labels, notes, findings accepted or rejected."""

import re
from collections.abc import Collection, Iterator, Sequence

from markupsafe import Markup

from bilens.findings.rules.judgements import Judgement, judgements_of, labels
from bilens.records.audit import Audit
from bilens.records.common import Identity, Part
from bilens.records.history import Entry
from bilens.report.markup import heading, items, joined, paragraph, section
from bilens.report.sections.coverage import coverage
from bilens.report.sections.decision_page import checks, verdict
from bilens.report.sections.overview import clean_names, guide, title_of
from bilens.report.text import Catalogue

EIGENVECTOR = re.compile(r"(class|layer):(.*):(positive|negative):([^:]*)", re.DOTALL)


def judged_parts(t: Catalogue, record: Audit) -> list[tuple[str, Markup]]:
    """Return the first parts of every audit's page."""
    how = "" if record.classes is None else guide(t)
    people = Markup()
    if record.people is not None:
        said = [paragraph(t("people.lead", day=record.people.day))]
        for title, lines in people_lines(t, record):
            said += [heading(title), items(lines, "sentences")]
        people = section(t, "people", *said)
    return [
        ("verdict", verdict(t, record)),
        ("checks", checks(t, record)),
        ("people", people),
        ("coverage", joined(coverage(t, record.coverage), how)),
    ]


def people_lines(t: Catalogue, record: Audit) -> Iterator[tuple[str, list[str]]]:
    """Yield what was judged, how things are called, and all notes, each below a title."""
    found, weights = record.people, record.source.weights_sha256
    if found is None:
        return
    names = record.model.output_names if record.classes is not None else ()
    named = labels(found.entries).values()
    notes = [one for one in found.entries if one.action == "note"]
    for key, lines in (
        ("judged", judged_lines(t, record)),
        ("labels", [said_line(t, one, names, weights) for one in named]),
        ("notes", [said_line(t, one, names) for one in notes]),
    ):
        if lines:
            yield t(f"people.{key}"), lines


def judged_lines(t: Catalogue, record: Audit, rules: Collection[str] | None = None) -> list[str]:
    """Return how each finding (of some rules) stands that was accepted or rejected, and by whom."""
    return [
        judged_line(t, rule, *one, record.reproduce.identity)
        for rule, one in judgements_of(record).items()
        if rules is None or rule in rules
    ]


def judged_line(
    t: Catalogue, rule: str, entry: Entry, state: Judgement, identity: Identity | None
) -> str:
    """Say what a person decided about a rule, when, and whether it still holds."""
    what, how = title_of(t, rule), judgement_text(t, entry, state, identity)
    day = entry.date[:10]
    return t("people.line", what=what, how=how, author=entry.author, day=day, text=entry.text)


def judgement_text(t: Catalogue, entry: Entry, state: Judgement, identity: Identity | None) -> str:
    """Return how a finding stands that was accepted or rejected; `identity` is of the audit."""
    unlike: tuple[Part, ...] = ()
    if state == "moved" and entry.identity is not None and identity is not None:
        unlike = entry.identity.parts_unlike(identity)
    parts = t("list.comma").join(t(f"identity.{part}") for part in unlike)
    ends = "_until" if state in ("accepted", "inherited") and entry.until is not None else ""
    return t(f"people.{state}{ends}", until=entry.until or "", parts=parts, model=entry.model)


def said_line(t: Catalogue, entry: Entry, names: Sequence[str], weights: str | None = None) -> str:
    """Return a remark with its author and day, marked where it is of earlier weights."""
    said = {"what": subject_name(t, entry.subject, names), "text": entry.text}
    line = t("people.said", **said, author=entry.author, day=entry.date[:10])
    return line if weights in (None, entry.weights_sha256) else t("people.earlier", line=line)


def subject_name(t: Catalogue, subject: str, names: Sequence[str] = ()) -> str:
    """Return a subject in words, such as `rule:trigger`, `class:3:positive:0`, `latent:17`.

    `names` are those of the classes; a subject of an unknown kind is called as it is.
    """
    kind, _, rest = subject.partition(":")
    if kind == "rule":
        return title_of(t, rest)
    if kind in ("latent", "circuit", "column", "model"):
        return t(f"subject.{kind}", name=rest)
    match = EIGENVECTOR.fullmatch(subject)
    if match is None:
        return subject
    _, place, sign, number = match.groups()
    if kind == "class" and place.isascii() and place.isdigit() and int(place) < len(names):
        place = clean_names(names)[int(place)]
    if number.isascii() and number.isdigit():
        number = str(int(number) + 1)
    return t(f"subject.{kind}.{sign}", name=place, number=number)


def class_labels(record: Audit, index: int) -> dict[tuple[str, int], str]:
    """Return the labels of a class's eigenvectors, of these weights, by sign and place."""
    found = {}
    for subject, entry in labels(() if record.people is None else record.people.entries).items():
        match = re.fullmatch(rf"class:{index}:(\w+):(\d+)", subject)
        if match and entry.weights_sha256 == record.source.weights_sha256:
            found[match[1], int(match[2])] = entry.text
    return found
