"""How to make the same report again, what its conventions are, and what it does not say."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from bilens.records.base import displayable, json_text
from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import quantity, whole

LONG = 32  # characters; a longer value gets a line of its own


def steps(t: Catalogue, document: Document, original: Document) -> list[tuple[str, str, str]]:
    """Return term, value and kind of value ("code", "text"); what is not known is left out.

    Args:
        t: the catalogue.
        document: with texts that can be shown.
        original: as it is, for its fingerprint.
    """
    run, source, data = document["reproduce"], document["source"], document["data"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    rows = [
        ("reproduce.command", run["command"], "command"),
        ("reproduce.seed", str(run["seed"]), "text"),
        ("reproduce.file", source["path"], "code"),
        ("reproduce.weights", source["weights_sha256"], "code"),
        ("reproduce.data", "" if data is None else data["sha256"], "code"),
        ("reproduce.document", document_sha256(original), "code"),
        ("reproduce.versions", versions, "text"),
        ("reproduce.hardware", run["hardware"], "text"),
        ("reproduce.date", run["date"], "text"),
    ]
    return [(t(key), value, kind) for key, value, kind in rows if value]


def document_sha256(document: Document) -> str:
    """Return the fingerprint of the file that `AuditReport.to_json(path)` writes."""
    return hashlib.sha256(f"{json_text(document)}\n".encode()).hexdigest()


def provenance(document: Document) -> list[tuple[str, str, bool]]:
    """Return name, value and whether the value is long, as the file of the weights says them.

    A recipe in JSON is shown with each of its settings.
    """
    rows: list[tuple[str, str]] = []
    for name, value in document["source"]["provenance"].items():
        settings = parsed_object(value)
        if settings is None:
            rows.append((name, plain(value)))
        else:
            rows += [(f"{name}.{key}", plain(setting)) for key, setting in settings.items()]
    return [(name, value, len(value) > LONG) for name, value in rows]


def parsed_object(value: Any) -> dict[str, Any] | None:
    """Return the object that a JSON text holds, if it holds one."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value if isinstance(value, dict) else None
    try:
        settings: dict[str, Any] = displayable(json.loads(value))
    except (ValueError, RecursionError):
        return None
    return settings


def plain(value: Any) -> str:
    """Return a JSON value as a text, a list without its brackets."""
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def conventions(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return the conventions behind the numbers: a word and what it means."""
    samples = document["null_samples"]
    numbers = {
        "samples": whole(samples),
        "seed": document["seed"],
        "count": whole(samples + 1),
        "smallest": quantity(1 / (samples + 1), 1),
    }
    keys = ("order", "sign", "basis", "centring", "precision", "null")
    return [(t(f"reproduce.{key}.term"), t(f"reproduce.{key}.text", **numbers)) for key in keys]


def limits(t: Catalogue, document: Document) -> list[str]:
    """Return what the report does not say, one sentence each."""
    return [
        t("scope.layer"),
        t("scope.no_data" if document["data"] is None else "scope.data"),
        t("scope.null", samples=whole(document["null_samples"])),
        t("scope.multiple", ends=whole(2 * len(document["classes"]))),
        t("scope.meaning"),
        t("scope.judgement"),
    ]
