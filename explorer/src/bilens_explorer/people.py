"""Notes, labels and judgements of people: on the page of a model, and as they are added.

Something is said of a subject: of what a page of the model speaks of, within its sizes.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Literal

from markupsafe import Markup
from msgspec import Meta, structs

from bilens.api import reading_of
from bilens.base.errors import BilensError, UsageError
from bilens.findings import ACCEPTED_BY, RULE, WHOLE, AuditedModel, judgements
from bilens.records import Action, Count, Document, Entry, Identity, Record, json_text
from bilens.report import (
    Catalogue,
    FindingLine,
    badge,
    condition_line,
    element,
    finding_line,
    joined,
    judgement_text,
    page_link,
    paragraph,
    quiet,
    section,
    subject_name,
)
from bilens_explorer.endpoint import Endpoint, User
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import ToldError
from bilens_explorer.records.models import Key, ModelPage
from bilens_explorer.traces import trace_of, traces

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
# The same kinds have names in reports.
SIDE = r"(?:positive|negative):(\d{1,6})"
CLASS = re.compile(rf"class:(\d{{1,6}}):{SIDE}", re.ASCII)
LAYER = re.compile(rf"layer:(.+):(\d{{1,9}}):{SIDE}", re.ASCII)
LATENT = re.compile(r"(latent:.+:)(\d{1,18})", re.ASCII)
OTHER = re.compile(r"model|rule:[a-z_0-9]+|(latent|circuit|column|direction):.+", re.ASCII)
KNOWN = (
    "model, rule:…, class:3:positive:0, layer:NAME:3:positive:0, latent:…, circuit:…, column:… or "
    "direction:…"
)


def findings(t: Catalogue, found: ModelPage) -> Markup:
    """Return findings of the last audit that ask for caution or were judged, with remarks."""
    last = found.model.answered
    kind, identity = ("", None) if last is None else (last.kind, last.identity)
    measured = {one.rule: one for one in found.measured if last and one.audit == last.number}
    audited = AuditedModel.of_past(last, measured)
    standing = judgements(found.judged if last else (), audited, found.day, found.model.name)
    lines: dict[str, list[FindingLine]] = {}
    for finding in found.findings:
        lines.setdefault(finding.rule, []).append(finding_line(t, kind, finding))
    for condition in found.conditions:
        lines.setdefault(condition.rule, []).append(condition_line(t, condition))
    parts = []
    whole = [WHOLE] if last is not None and ACCEPTED_BY.get(last.answer) else []
    for rule in dict.fromkeys([*whole, *lines, *standing]):
        about = (paragraph(badge(t, one.outcome), " ", one.sentence) for one in lines.get(rule, ()))
        said = judgement_text(t, *standing[rule], identity) if rule in standing else ""
        parts.append(thread(t, found, f"{RULE}{rule}", *about, judged=said))
    nothing = t(f"explorer.{'document_unread' if found.unread else 'no_finding'}")
    none = [] if last is None or (lines and not found.unread) else [element("p", nothing)]
    read = {} if last is None else {"audit": last.number, "identity": last.identity}
    view = {"data_view": "people", "data_key": found.model.id, "data_read": json_text(read)}
    view = view if found.writable else {}
    noted = any(one.subject == "model" for one in found.entries)
    if noted or (found.writable and not whole):
        parts.append(thread(t, found, "model"))
    listed = element("div", joined(*parts), **view)
    summary = page_link(t, f"/models/{found.model.id}/summary", t("explorer.summary"))
    link = [] if last is None or found.unread else [element("p", summary)]
    compared = element("div", "", data_view="compareWith", data_key=found.model.id)
    key = "explorer.findings" if last is not None else "explorer.remarks"
    return joined(compared, section(t, key, *link, *none, listed) if last or parts else "")


def thread(
    t: Catalogue, found: ModelPage, subject: str, *about: Markup, judged: str = ""
) -> Markup:
    """Return a subject with what was said of it; a script adds buttons."""
    what = subject_name(t, subject)
    said = remarks(t, [one for one in found.entries if one.subject == subject])
    return element(
        "article",
        element("h3", what),
        *about,
        element("div", paragraph(judged, class_="because"), said, class_="thread"),
        class_="finding",
        data_subject=subject,
        data_what=what,
    )


def remarks(t: Catalogue, entries: Sequence[Entry], named: bool = False) -> Markup:
    """Return who said what and when, the last one first; `named` says of what."""
    said = (remark(t, one, named) for one in entries)
    return element("ol", *said, class_="entries") if entries else Markup()


def remark(t: Catalogue, one: Entry, named: bool) -> Markup:
    return element(
        "li",
        element("time", one.date[:10], datetime=one.date),
        " ",
        element("strong", one.author),
        t("explorer.known_by", header=one.known_by) if one.known_by else "",
        t("explorer.unread_entry", number=one.number) if one.unread else "",
        " ",
        t("explorer.of", what=subject_name(t, one.subject)) if named else "",
        f"{t(f'explorer.script.said.{one.action}')} ",
        element("q", one.text) if one.text else "",
        "" if one.until is None else t("explorer.script.said.until", day=one.until),
    )


def everything(t: Catalogue, found: ModelPage) -> Markup:
    """Return all that was said of a model."""
    said = remarks(t, found.entries, named=True) or quiet(t("explorer.nobody"))
    return section(t, "explorer.people", element("div", said, data_fresh="people"))


class NewEntry(Record, frozen=True, forbid_unknown_fields=True):
    """Something that is said of a model; the fields are those of an `Entry`."""

    action: Annotated[Action, "a label or note; of a rule whether it is accepted"]
    subject: Annotated[str, "as of an `Entry`"]
    text: Annotated[str, "the label, the note, or why"]
    author: Annotated[str, "who says it"]
    until: Annotated[str | None, "last day of an acceptance; null for no end"] = None
    after: Annotated[Count | None, "last entry on the subject that its author has read"] = None
    weights: Annotated[Sha256 | None, "of which a label is"] = None
    audit: Annotated[Count | None, "the last one, which its author has read; of a judgement"] = None
    identity: Annotated[Identity | None, "of that audit"] = None


def add_entry(served: ServedFolder, key: Key, body: NewEntry, user: User = None) -> Entry:
    """Add a label, a note, or that a finding is accepted, rejected or open again."""
    found, said = served.model(key), structs.asdict(body)
    check_subject(served, found, body.action, body.subject)
    read = body.audit, said.pop("identity")
    judged = found.model.answered if body.action in ("accept", "reject") else None
    if judged is not None and read != (judged.number, judged.identity):
        raise ToldError("another", number=judged.number, model=found.model.name)
    if user is not None:
        said |= dict(zip(("author", "known_by"), user, strict=True))
    return served.history.say(model=found.model.name, **said)


class Visitor(Document, frozen=True, kw_only=True):
    """Who asks, as far as it is known."""

    kind: Annotated[Literal["visitor"], "of the document"] = "visitor"
    user: Annotated[str | None, "whom the proxy names; null where people name themselves"]


def visitor(served: ServedFolder, user: User = None) -> Visitor:  # noqa: ARG001 - of no folder
    """Who is asking: the author of what is said from here."""
    return Visitor(user=None if user is None else user[0])


def check_subject(served: ServedFolder, page: ModelPage, action: Action, subject: str) -> None:
    """Refuse what no page speaks of; Python's `History` takes any subject."""
    if not any(form.fullmatch(subject) for form in (CLASS, LAYER, OTHER)):
        raise UsageError(f"subject is {subject!r:.80}; expected {KNOWN}.")
    for why in beyond(served, page.model.id, subject):
        raise UsageError(f"subject is {subject!r:.80}; {why}.")
    judged = {one.rule for one in page.findings if one.outcome in ("fail", "warn")}
    judged |= {one.rule for one in page.conditions}
    judged |= {WHOLE} if page.model.answered else set()  # which the history checks
    if action in ("accept", "reject") and subject.removeprefix(RULE) not in judged:
        raise ToldError("nothing", subject=subject)


def beyond(served: ServedFolder, key: str, subject: str) -> Iterator[str]:
    """Yield why a model has nothing of this name or number, as far as it can be read."""
    if found := LATENT.fullmatch(subject):
        for count in latents(served, found[1]):
            yield from outside("latents", found[2], count)
        return
    try:
        opened = served.opened(key)
        layers = opened.model.layers
    except BilensError:  # it cannot be read, or is an autoencoder: no page draws it
        return
    if (found := CLASS.fullmatch(subject)) and layers:
        sizes = [*layers.values()][-1].sizes
        yield from outside("classes", found[1], sizes.d_out)
        yield from outside("inputs, so eigenvectors", found[2], sizes.d_in)
    elif (found := LAYER.fullmatch(subject)) and layers:
        if found[1] not in layers:
            yield "the model has no layer of this name"
        else:
            sizes = layers[found[1]].sizes
            yield from outside("outputs", found[2], sizes.d_out)
            yield from outside("inputs, so eigenvectors", found[3], sizes.d_in)
    elif subject.startswith("column:") and opened.model.input_names:
        read = reading_of(opened.model)
        names = {one.name for one in read.columns} if read else {*opened.model.input_names}
        if subject.removeprefix("column:") not in names:
            yield "the model has no column of this name"


def outside(what: str, number: str, count: int) -> Iterator[str]:
    if int(number) >= count:
        yield f"there are {count} {what}, from 0"


def latents(served: ServedFolder, start: str) -> Iterator[int]:
    """Yield how many latents the autoencoder of a subject has, where a trace names it."""
    for key in traces(served):
        with suppress(BilensError):
            for sae in trace_of(served, key).saes:
                if f"latent:{sae.hook}:{sae.weights_sha256[:8]}:" == start:
                    yield sae.num_latents


ENDPOINTS = (Endpoint("/models/{key}/entries", add_entry, adds=True), Endpoint("/visitor", visitor))
