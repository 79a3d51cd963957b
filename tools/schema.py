"""The schema of every document: JSON Schema files and the field tables of the pages, from records.

The view of a field says what it means. `python -m tools.schema` freezes the fields that there are,
in `tests/frozen_fields.json`, for the releases with the same first two numbers.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import typing
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec

import bilens.records
from bilens.findings.rules.registry import REGISTRY
from bilens.findings.rules.rule import Rule
from bilens.records.audit import Audit
from bilens.records.base import Document, Record, default_of, kind_of
from bilens.records.view import records_in, schemas_of, views
from bilens.version import VERSION
from tools.page_parts import split_page

FROZEN = Path(__file__).parent.parent / "tests" / "frozen_fields.json"


def documents() -> tuple[type[Document], ...]:
    """Return every document of bilens, the audit first: each record with a `kind` of its own."""
    for module in pkgutil.iter_modules(bilens.records.__path__):
        importlib.import_module(f"bilens.records.{module.name}")
    found = [one for one in Document.__subclasses__() if one.__module__.startswith("bilens.")]
    return tuple(sorted(found, key=lambda one: (one is not Audit, kind_of(one))))


DOCUMENTS = documents()
WORDS = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Any: "JSON",
}


def words(kind: Any) -> str:
    """Return a type in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return words(inner[0])
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in inner)
    if origin in (UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(words, inner)))
    if origin is tuple:
        many = inner[0] if inner[-1] is Ellipsis else None
        return f"list of {words(many)}" if many else f"list of {len(inner)} {words(inner[0])}"
    if origin is dict:
        return f"object of {words(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, Record):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return WORDS[kind]


def tables(record: type[Record]) -> str:
    """Return a table of the fields of a record, and of each record inside it."""
    found = []
    for part in records_in(record):
        said = views(part)
        rows = ["| key | kind | meaning |", "|---|---|---|"]
        for field in msgspec.structs.fields(part):
            meaning = said[field.name].description.replace("|", "\\|")
            rows.append(f"| `{field.encode_name}` | {words(field.type)} | {meaning} |")
        about = inspect.cleandoc(part.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        found.append(f"## {part.__name__}\n\n{about}\n\n" + "\n".join(rows))
    return "\n\n".join(found)


def rule_page() -> str:
    """Return a page with a row for each rule of `--fail-on`: bad side, end, its numbers."""
    head = (
        "# Rules: names and numbers\n\nAll rules that `--fail-on` takes, from the code; "
        "[rules.md](../rules.md) says what they mean. `bad` is the side on which `--fail-on RULE` "
        "fails, with the limit where it is fixed; `by itself` how a rule ends, the second word on "
        "its bad side. A value stands with how it is shown.\n\n"
    )
    rows = ["| rule | of models read as | needs | bad | by itself | group | values |"]
    rows.append("|---|---|---|---|---|---|---|")
    for rule in (one for one in REGISTRY if one.number is not None):
        values = ", ".join(f"`{name}` ({form})" for name, form in rule.values.items())
        asked = "" if rule.number == "value" else f" compares `{rule.number}`"
        ends = f"{rule.usual} or {rule.beyond}" if rule.bad else "case by case"
        cells = (
            f"`{rule.id}`{asked}",
            ", ".join(rule.readings),
            rule.needs or "",
            bad_side(rule),
            ends,
            f"`{rule.group}`",
            values,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return head + "\n".join(rows) + "\n"


def bad_side(rule: Rule) -> str:
    """Return the side on which a rule is bad, with its limit where all cases share it."""
    known = rule.bad is not None and rule.threshold != 0
    return " ".join(filter(None, (rule.bad, f"{rule.threshold:g}" if known else "")))


def schema(document: type[Document]) -> str:
    """Return the JSON Schema of a document, with what each field means."""
    (reference,), found = schemas_of([document], "#/$defs/{name}")
    return json.dumps({**reference, "$defs": found}, indent=1, ensure_ascii=False) + "\n"


def schema_files(root: Path) -> dict[Path, str]:
    """Return the JSON Schema of every document, by file."""
    return {root / "docs/schema" / schema_name(one): schema(one) for one in DOCUMENTS}


def schema_name(document: type[Document]) -> str:
    """Return the file name of the JSON Schema of a document."""
    return f"{kind_of(document).replace(' ', '_')}.json"


def field_pages(folder: Path) -> dict[Path, str]:
    """Return the pages that tell the fields of every document."""
    pages: dict[Path, str] = {}
    for one in DOCUMENTS:
        kind = kind_of(one)
        text = (
            f"# Fields: {kind.replace('_', ' ')}\n\nThe same as JSON Schema: "
            f"[{kind}.json](../schema/{schema_name(one)}).\n\n{tables(one)}\n"
        )
        pages |= split_page(folder / f"fields_{kind.replace(' ', '_')}.md", text)
    return pages


def describe_fields() -> dict[str, Any]:
    """Return the fields of every document and what each holds, by record, with the release."""
    found: dict[str, Any] = {}
    for document in DOCUMENTS:
        fields = {
            f"{record.__name__}.{field.encode_name}": re.sub(r"\(#\w+\)", "", words(field.type))
            for record in records_in(document)
            for field in msgspec.structs.fields(record)
        }
        version = default_of(document, "schema_version")
        found[kind_of(document)] = {"schema_version": version, "fields": fields}
    return {"release": VERSION.rpartition(".")[0], "documents": found}


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(describe_fields(), indent=1, ensure_ascii=False) + "\n", "utf-8")
