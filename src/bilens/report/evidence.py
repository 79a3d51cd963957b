"""An audit as the evidence that companies keep: public formats, drawn from the record.

Each format is a template of its name in `templates/`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from bilens.base.errors import UsageError
from bilens.findings.rules.decision import UNDECIDED, decision_of
from bilens.findings.rules.registry import REGISTRY
from bilens.records.audit import Audit
from bilens.records.base import displayable, json_text
from bilens.records.common import Source
from bilens.report.html import environment, page_of
from bilens.report.markdown import audit_markdown
from bilens.report.sections.decision_page import LOOKS, WORST, decision_lines
from bilens.report.sections.overview import condition_lines, document_sha256, finding_lines
from bilens.report.text import Catalogue, load_catalogue

DOCUMENT: Final = "audit.json"  # the document itself, which all others name by its SHA-256
FORMATS: Final = (
    "test-result.intoto.json",
    "ml-bom.cdx.json",
    "audit.sarif",
    "junit.xml",
    "model-card.md",
)


@dataclass(frozen=True)
class Check:
    """A rule, a condition that was asked for, or the decision, and how it ended."""

    name: str
    group: str
    outcome: str  # `pass`, `warn`, `fail`, or `info`: a number, and nothing to pass
    sentence: str


def evidence_files(original: Audit, lang: str) -> dict[str, bytes]:
    """Return name → content of the document and of every format."""
    t, record = load_catalogue(lang), displayable(original)
    files, path = files_of(record.source), PurePath(record.source.path)
    weights = path if path.name in files else path / next(iter(files))
    document, found = document_sha256(original), checks(t, record)
    # what all rules of this kind of audit mean, judged here or not
    rules = {"decision": t("about.decision")} | {one.rule: one.rule for one in record.verdict}
    known = [rule.id for rule in REGISTRY if record.read_as in rule.readings]
    asked = [item.condition for item in record.conditions or ()]
    rules |= {rule: t.word("about", rule) for rule in known}
    rules |= {f"fail-on:{text}": t("about.condition", condition=text) for text in asked}
    said = {
        "t": t,
        "record": record,
        "outcome": next(x for x in WORST if any(one.outcome == x for one in found)),
        "answer": decision_of(record).answer,
        "name": path.name or record.model.kind,
        # of the weights; relative where the audit was given such a path
        "uri": weights.as_uri() if weights.is_absolute() else quote(weights.as_posix()),
        "files": files,  # name → SHA-256 of the files that were read, weights first
        "document": document,
        "serial": uuid5(NAMESPACE_URL, document).urn,  # the same for the same document
        "checks": found,
        "rules": rules,
        "task": task_of(record),
        "page": page_of(t, record),
        "markdown": audit_markdown(original, lang),
    }
    texts = {DOCUMENT: json_text(original)}
    for name in FORMATS:
        text = environment().get_template(f"{name}.j2").render(said)
        is_json = name.endswith(("json", "sarif"))
        texts[name] = json.dumps(json.loads(text), indent=1) if is_json else text
    return {name: f"{text.strip()}\n".encode() for name, text in texts.items()}


def files_of(source: Source) -> Mapping[str, str]:
    """Return the audited files; refuse a model in memory, of which there is none."""
    if not source.files:
        raise UsageError(
            "this report names no file, as of a model in memory, and evidence is about files: save "
            "the model with bl.save(model, folder), and audit bl.load(folder)."
        )
    return source.files


def checks(t: Catalogue, record: Audit) -> list[Check]:
    found, gap = decision_of(record), t("sentence.gap")
    said = decision_lines(t, record)[0]
    lines = [*finding_lines(t, record), *condition_lines(t, record)]
    names = [(item.rule, line.group) for item, line in zip(record.verdict, lines, strict=False)]
    names += [(f"fail-on:{item.condition}", "condition") for item in record.conditions or ()]
    unjudged = ("model", "pass") if found.answer in UNDECIDED else ()  # nothing is passed there
    look = "warn" if found.answer in UNDECIDED else LOOKS[found.answer]
    return [Check("decision", "decision", look, said)] + [
        Check(
            name,
            group,
            "info" if (group, line.outcome) == unjudged else line.outcome,
            gap.join(filter(None, (line.sentence, line.scope))),
        )
        for (name, group), line in zip(names, lines, strict=True)
    ]


def task_of(record: Audit) -> str:
    found = record.performance
    if record.columns is not None:
        return f"tabular-{record.model.task}"
    if found is not None and found.regression is not None:
        return "tabular-regression"
    shape = record.model.input_shape if record.classes is not None else found and found.image_shape
    return "image-classification" if shape and shape[0] > 1 else "tabular-classification"
