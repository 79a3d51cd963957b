"""An audit as Markdown for a pull request: verdict, conditions, difference, how to reproduce."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bilens.records.base import displayable
from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.document import Document
from bilens.report.sections.conditions import condition_lines
from bilens.report.sections.difference import difference_section
from bilens.report.sections.layer_table import layer_rows
from bilens.report.sections.reproduction import document_sha256
from bilens.report.sections.verdict import (
    ICONS,
    FindingLine,
    overall_outcome,
    overall_sentence,
    verdict_findings,
)

MOST_LAYERS = 40  # rows of a table; a comment has a limit
SPECIAL = re.compile(r"([\\`*_\[\]|~])")  # what matters inside a line
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
BREAK = "\u200b"  # a space of no width: no name becomes a mention, no text a link


def audit_markdown(original: Document, lang: str = "en") -> str:
    """Return a checked audit document, of one layer or of many, as Markdown.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t, document = load_catalogue(lang), displayable(original)
    outcome = overall_outcome(document)
    title = document["source"]["path"] or document["model"]["kind"]
    parts = [
        f"## bilens audit: {escaped(title)}",
        f"{ICONS[outcome]} **{escaped(t(f'outcome.{outcome}'))}** "
        f"{escaped(overall_sentence(t, document))}",
        finding_table(t, verdict_findings(t, document)),
    ]
    if document.get("conditions"):
        parts += [f"### {t('conditions.heading')}", finding_table(t, condition_lines(t, document))]
    parts += difference_parts(t, document)
    if document["kind"] == "layer_audit":
        parts.append(layer_part(t, document))
    parts += [f"### {t('reproduce.heading')}", "\n".join(reproduction_lines(t, document, original))]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    plain = SPECIAL.sub(r"\\\1", " ".join(text.split()))
    plain = plain.replace("@", f"@{BREAK}").replace("://", f":{BREAK}//")
    return "".join(ENTITIES.get(character, character) for character in plain)


def code(text: str) -> str:
    """Return a text as code on one line, whatever backticks it holds."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; heads and cells are escaped already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def finding_table(t: Catalogue, findings: Sequence[FindingLine]) -> str:
    """Return one row for each finding, the failed ones first."""
    order = {"fail": 0, "warn": 1, "info": 2, "pass": 3}
    ranked = sorted(findings, key=lambda finding: order[finding.outcome])
    rows = [(f"{item.icon} {escaped(item.word)}", escaped(item.sentence)) for item in ranked]
    return table((t("markdown.outcome"), t("markdown.finding")), rows)


def difference_parts(t: Catalogue, document: Document) -> Iterator[str]:
    """Yield what changed from the baseline."""
    section = difference_section(t, document)
    if section is None:
        return
    yield f"### {t('layers.difference.heading')}"
    yield escaped(section.lead)
    keys = ("change", "frobenius", "gaussian", "outputs", "inputs")
    head = [t("layers.table.layer"), *(t(f"layers.difference.{key}") for key in keys)]
    changed = [
        row
        for row, layer in zip(section.rows, document["difference"]["layers"], strict=True)
        if not layer["identical"]
    ]
    rows = [
        [escaped(row.name), *(escaped(getattr(row, key)) for key in keys)]
        if not row.note
        else [escaped(row.name), escaped(row.note), *[""] * (len(keys) - 1)]
        for row in changed[:MOST_LAYERS]
    ]
    if rows:
        yield table([escaped(name) for name in head], rows)
    if len(changed) > MOST_LAYERS:
        yield escaped(t("markdown.more", count=len(changed) - MOST_LAYERS))


def layer_part(t: Catalogue, document: Document) -> str:
    """Return the layers as a table that is folded away."""
    keys = ("r2", "linear", "norm", "rank", "chance", "units")
    head = [t("layers.table.layer"), *(t(f"layers.table.{key}") for key in keys)]
    rows = [
        [escaped(row.name), *(escaped(getattr(row, key)) for key in keys)]
        for row in layer_rows(t, document)[:MOST_LAYERS]
    ]
    shown = table([escaped(name) for name in head], rows)
    return f"<details><summary>{t('layers.table.caption')}</summary>\n\n{shown}\n\n</details>"


def reproduction_lines(t: Catalogue, document: Document, original: Document) -> Iterator[str]:
    """Yield what it takes to run the same again."""
    run, source = document["reproduce"], document["source"]
    pairs = [
        ("reproduce.command", run["command"]),
        ("reproduce.seed", str(run["seed"])),
        ("reproduce.weights", source["weights_sha256"]),
        ("reproduce.document", document_sha256(original)),
        (
            "reproduce.versions",
            ", ".join(f"{key} {value}" for key, value in run["versions"].items()),
        ),
        ("reproduce.date", run["date"]),
    ]
    for key, value in pairs:
        if value:
            yield f"- {escaped(t(key))}: {code(str(value))}"
