"""The reports as HTML pages, no script, no network, everything inside; and printed as PDF."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bilens.base.errors import FileError, UsageError
from bilens.base.files import write_file
from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import NO_LETTERS, Document, Json, displayable, json_text, kind_of
from bilens.records.bilinear_conversion import Conversion
from bilens.records.decision import AuditIndex
from bilens.records.guarantees import Certificate
from bilens.records.mlp_trace import Trace
from bilens.records.network_reading import NetworkReading
from bilens.records.sweep_report import SweepSummary
from bilens.report.markup import Content, card, element, facts, heading, items, quiet, section
from bilens.report.sections.attack_page import attack_page
from bilens.report.sections.audit_page import audit_page
from bilens.report.sections.certificate_page import certificate_page
from bilens.report.sections.conversion import conversion_page
from bilens.report.sections.decision_page import index_page
from bilens.report.sections.network_page import network_page
from bilens.report.sections.overview import AnyReport, Page, run_facts
from bilens.report.sections.sweep_page import sweep_page
from bilens.report.sections.trace_page import trace_page
from bilens.report.text import MARKS, Catalogue, load_catalogue

LONG = 32  # characters; a longer value gets a line of its own
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge")


PAGES: Final[Mapping[type[Document], Callable[..., Page]]] = {
    Audit: audit_page,
    Certificate: certificate_page,
    Attack: attack_page,
    Trace: trace_page,
    Conversion: conversion_page,
    SweepSummary: sweep_page,
    NetworkReading: network_page,
}


def page_of(t: Catalogue, record: AnyReport) -> Page:
    """Return the page of a record whose texts can be shown."""
    return PAGES[type(record)](t, record)


def render_html(record: Document, lang: str = "en", note: Content = "") -> str:
    """Return a record as one HTML page, with the record itself inside; a note comes first."""
    assert isinstance(record, AnyReport), "a record that has a page"
    t = load_catalogue(lang)
    of_texts = isinstance(record, Trace | Conversion | NetworkReading)
    shown = displayable(record, MARKS if of_texts else NO_LETTERS)
    page = page_of(t, shown)
    parts = [(name, markup) for name, markup in page.parts if markup]
    parts.append(("reproduce", reproduce(t, shown, record, page.conventions)))
    title = page.title or shown.source.path or shown.model.kind
    version = shown.reproduce.versions.get("bilens", "")
    return drawn(t, page, parts, record, title, version, note)


def render_index(index: AuditIndex, lang: str = "en") -> str:
    """Return the index of many audits as one HTML page that links to their own."""
    t = load_catalogue(lang)
    page = index_page(t, displayable(index))
    return drawn(t, page, [*page.parts], index, page.title, index.version)


def drawn(
    t: Catalogue,
    page: Page,
    parts: list[tuple[str, Markup]],
    record: Document,
    title: str,
    version: str,
    note: Content = "",
) -> str:
    parts.append(("scope", section(t, "scope", items(page.limits, "sentences"))))
    template = environment().get_template("page.html.j2")
    return template.render(
        t=t,
        page=page,
        title=title,
        parts=parts,
        kind=kind_of(type(record)),
        version=version,
        note=note,
        document_json=embedded_json(record),
    )


@cache
def environment(package: str = "bilens.report") -> Environment:
    """Return the templates of a package, and those of reports behind them.

    Every value is escaped, and every unknown name an error.
    """
    packages = dict.fromkeys((package, "bilens.report"))
    found = Environment(
        loader=ChoiceLoader([PackageLoader(one) for one in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    return found


def embedded_json(record: Document) -> Markup:
    """Return a record for a script element: equal under `json.loads`, and it cannot end it."""
    text = json_text(record)  # ASCII, so U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character is left that HTML would read


def reproduce(
    t: Catalogue, record: AnyReport, original: AnyReport, conventions: Sequence[tuple[str, str]]
) -> Markup:
    """Return how to run the same again, the facts in the weights' file, and conventions."""
    steps: list[tuple[str, Content]] = []
    for key, value in run_facts(record, original).items():
        shown: Content = value
        if key in ("command", "file", "weights", "data", "document"):
            shown = element("code", value)
        steps.append((t(f"reproduce.{key}"), element("pre", shown) if key == "command" else shown))
    parts = [facts(steps, "steps")]
    said = [
        element(
            "div",
            element("dt", name),
            element("dd", value),
            class_="long" if len(value) > LONG else None,
        )
        for name, value in provenance(record)
    ]
    if said:
        parts.append(card([t("reproduce.provenance")], element("dl", *said, class_="numbers")))
    else:
        parts.append(quiet(t("reproduce.provenance_none")))
    if conventions:
        parts += [heading(t("reproduce.conventions")), facts(conventions, "steps")]
    return section(t, "reproduce", *parts)


def provenance(record: AnyReport) -> Iterator[tuple[str, str]]:
    """Yield what the file of the weights says; a recipe in JSON with each of its settings."""
    for name, value in record.source.provenance.items():
        settings = None
        with suppress(ValueError, RecursionError):
            if value.startswith("{"):
                settings = displayable(json.loads(value))
        if settings is None:
            yield name, value
        else:
            yield from ((f"{name}.{key}", plain(setting)) for key, setting in settings.items())


def plain(value: Json) -> str:
    """Return a JSON value as a text, a list without its brackets."""
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def find_chromium() -> str:
    """Return the program that prints, the first of `BROWSERS` on the path."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UsageError(
            "a PDF is printed by Chromium, and none is on the PATH (looked for "
            f"{', '.join(BROWSERS)}): install one, or write --html and print it from a browser."
        )
    return found


def write_pdf(html: str, path: Path) -> None:
    """Print a page to a PDF file, in one step, by a Chromium that is installed."""
    program = find_chromium()
    with TemporaryDirectory(prefix="bilens-") as folder:
        page, printed = Path(folder, "page.html"), Path(folder, "page.pdf")
        page.write_text(html, "utf-8")
        command = [program, "--headless", "--disable-gpu", "--no-pdf-header-footer"]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command += [f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}", page.as_uri()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603
            content = printed.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            fault = f"{path}: {program} did not print the page ({type(error).__name__})"
            raise FileError(f"{fault}: write --html and print it from a browser.") from None
    write_file(path, content)
