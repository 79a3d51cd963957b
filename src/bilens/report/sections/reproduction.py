"""How to make the same report again, what its conventions are, and what it does not say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from markupsafe import Markup

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import Json, displayable, json_text
from bilens.records.guarantees import Certificate
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.report.blocks import card, facts, heading, items, quiet, section
from bilens.report.catalogue import Catalogue
from bilens.report.svg import element

LONG = 32  # characters; a longer value gets a line of its own
AnyReport: TypeAlias = Audit | LayerAudit | TableAudit | Attack | Certificate | Trace


def reproduce(
    t: Catalogue, record: AnyReport, original: AnyReport, conventions: Sequence[tuple[str, str]]
) -> Markup:
    """Return what it takes to run the same again, what the weights' file says, and conventions."""
    said = provenance(record)
    parts = [facts(steps(t, record, original), "steps")]
    if said:
        rows = (
            element("div", element("dt", name), element("dd", value), class_=long)
            for name, value, long in said
        )
        parts.append(card([t("reproduce.provenance")], element("dl", *rows, class_="numbers")))
    else:
        parts.append(quiet(t("reproduce.provenance_none")))
    if conventions:
        parts += [heading(t("reproduce.conventions")), facts(conventions, "steps")]
    return section("reproduce", t("reproduce.heading"), *parts)


def scope(t: Catalogue, limits: Sequence[str]) -> Markup:
    """Return what the report does not say, one sentence each."""
    return section("scope", t("scope.heading"), items(limits, "sentences"))


def said_of_run(
    t: Catalogue, record: AnyReport, original: AnyReport
) -> Iterator[tuple[str, str, str]]:
    """Yield term, value and the element that shows it; what is not known is left out."""
    run, source, data = record.reproduce, record.source, record.data
    versions = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    for key, value, tag in (
        ("command", run.command, "pre"),
        ("seed", str(run.seed), ""),
        ("file", source.path, "code"),
        ("weights", source.weights_sha256, "code"),
        ("data", "" if data is None else data.sha256, "code"),
        ("document", document_sha256(original), "code"),
        ("versions", versions, ""),
        ("hardware", run.hardware, ""),
        ("date", run.date, ""),
    ):
        if value:
            yield t(f"reproduce.{key}"), value, tag


def steps(t: Catalogue, record: AnyReport, original: AnyReport) -> Iterator[tuple[str, str]]:
    """Yield terms and values as a page shows them."""
    for term, value, tag in said_of_run(t, record, original):
        code = element("code", value) if tag else value
        yield term, element("pre", code) if tag == "pre" else code


def document_sha256(record: AnyReport) -> str:
    """Return the fingerprint of the file that `to_json(path)` writes."""
    return hashlib.sha256(f"{json_text(record)}\n".encode()).hexdigest()


def provenance(record: AnyReport) -> list[tuple[str, str, str | None]]:
    """Return name, value and the class of a long value, as the file of the weights says them."""
    rows: list[tuple[str, str]] = []
    for name, value in record.source.provenance.items():
        settings = parsed_object(value)
        if settings is None:
            rows.append((name, value))
        else:
            rows += [(f"{name}.{key}", plain(setting)) for key, setting in settings.items()]
    return [(name, value, "long" if len(value) > LONG else None) for name, value in rows]


def parsed_object(text: str) -> dict[str, Json] | None:
    """Return the object that a JSON text holds, if it holds one."""
    if not text.startswith("{"):
        return None
    try:
        settings: dict[str, Json] = displayable(json.loads(text))
    except (ValueError, RecursionError):
        return None
    return settings


def plain(value: Json) -> str:
    """Return a JSON value as a text, a list without its brackets."""
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
