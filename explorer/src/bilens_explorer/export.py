"""The explorer as one file: its pages, its data and its script, for a reader without a server.

The pages are those of the server, drawn one after the other from the first page on, so that a
view needs nothing of its own here but the list of data that it asks for (`Endpoint.held`).
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from markupsafe import Markup, escape

from bilens.api import now
from bilens.base.errors import BilensError, UsageError
from bilens.records import displayable, json_text
from bilens.report import LANGUAGES, environment, grouped, load_catalogue, paragraph, quiet
from bilens_explorer.app import ENDPOINTS, draw_page
from bilens_explorer.compare import held_pairs
from bilens_explorer.endpoint import Arguments, Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import without_paths
from bilens_explorer.pages import NAMES, PALETTE, REPORT_STYLES, SCRIPTS, STATIC, STYLES, words_of
from bilens_explorer.records.models import Overview

LARGEST = 5_000_000  # bytes of the file for each model
MOST = 20  # models of a file
SPARE = 6000  # bytes that are not counted one by one
COMPARED = re.compile(r"/compare/(\w+)/(\w+)")
FRAMED = re.compile(r'<main id="main"[^>]*>(.*)</main>', re.DOTALL)
LINK = re.compile(r'<a (?:[^>]* )?href="(/[^"]*)"[^>]*>.*?</a>', re.DOTALL)
ARRAY = re.compile(r'"dtype":"float(\d+)","base64":"([^"]*)"')
DATA = re.compile(r'<script type="application/json".*?</script>', re.DOTALL)
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w-]+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async function|function|const) (\w+))", re.MULTILINE)
POLICY = (
    "default-src 'none'; script-src 'sha256-{}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
DRAWN = tuple(f"/models/{{key}}/{name}" for name in ("spectrum", "eigenvectors", "interactions"))
DIGITS = 6  # of numbers that are only drawn
Report = Callable[[str, int, int], None]
Part = tuple[str, Callable[[], str]]  # key, and what makes it: empty where it cannot be made


@dataclass
class Exported:
    """A file as it is filled: its pages, its data, and the addresses of what had no room."""

    html: str = ""
    pages: dict[tuple[str, str], str] = field(default_factory=dict)  # by path and language
    embedded: dict[str, str] = field(default_factory=dict)  # packed, by what a view asks for
    left_out: list[str] = field(default_factory=list)

    def add_page(self, served: ServedFolder, path: str, lang: str, room: int) -> int:
        """Draw a page in both languages where it fits, and return the room that is left."""
        drawn = {each: FRAMED.search(draw(served, path, each)) for each in LANGUAGES}
        mains = {(path, each): main[1] for each, main in drawn.items() if main is not None}
        # without script it is read in one language, beside the other
        sizes = {
            each: len(linked(main, set(), "ja").encode()) + 200 for (_, each), main in mains.items()
        }
        size = sum(sizes.values()) + sizes.get(lang, 0)
        if size > room:
            self.left_out.append(path)
            return room
        self.pages |= mains
        return room - size

    def add_part(self, key: str, make: Callable[[], str], room: int) -> int:
        """Embed what a view asks for where it fits, and return the room that is left."""
        value = make() if room > 0 else ""
        size = len(json.dumps(key)) + len(value) + 8
        if room <= 0 or size > room:
            self.left_out.append(key.partition("?")[0].partition("@")[0])
        elif value:
            self.embedded[key], room = value, room - size
        return room

    def linked_pages(self, told: Mapping[str, Markup]) -> Iterator[tuple[str, str, Markup]]:
        """Yield the pages, linked inside the file; `told` says on the first one what is in it."""
        held = {path for path, _ in self.pages} | {key.partition("@")[0] for key in self.embedded}
        for (path, lang), main in self.pages.items():
            t = load_catalogue(lang)
            copy = quiet(t("explorer.file.copy", day=now()[:10]))  # in place of: it is only read
            main = main.replace(str(quiet(t("explorer.read_only"))), str(copy))
            text = linked(main, held, lang)
            if path == "/":
                text = text.replace("</h1>", f"</h1>{told[lang]}", 1)
            yield path, lang, Markup(text)  # noqa: S704


def export(served: ServedFolder, lang: str, report: Report = lambda *_: None) -> Exported:
    """Return the models of a folder as one page that asks nobody for anything.

    Each model has `LARGEST` bytes: for its pages, for what their views ask for, and last for its
    whole audits; the first one bears what all share. Comparisons and other reports have what is
    left of all. It opens in `lang`, and whole reports are in it; pages and summaries are in both
    languages. `report` is told (stage, done, total). UsageError for more than `MOST` models.
    """
    models = [row.id for row in served.overview().models]
    if len(models) > MOST:
        raise UsageError(
            f"{served.folder.name} has {len(models)} models, and a file holds {MOST} at most: "
            "choose some with --model."
        )
    script = bundle()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    frame: dict[str, Any] = {
        "t": load_catalogue(lang),
        "folder": displayable(served.folder.name),
        "policy": POLICY.format(digest),
        "script": Markup(script),  # noqa: S704 - of this package
        "styles": [Markup(STATIC[name].read_text("utf-8")) for name in (*REPORT_STYLES, *STYLES)],  # noqa: S704
        "languages": NAMES,
        "given": {
            "words": {each: words_of(load_catalogue(each)) for each in LANGUAGES},
            "palette": PALETTE,
            "language": dict(NAMES)[lang],
        },
    }
    template = environment("bilens_explorer").get_template("explorer-file.html.j2")
    file, parts = Exported(), list_parts(served, lang, models)
    done, total = 0, sum(map(len, parts.values()))
    shared = SPARE + len(template.render(**frame, pages=[], embedded={}).encode())
    left = file.add_page(served, "/", lang, MOST * LARGEST) - MOST * LARGEST - shared
    for key in (*models, ""):
        left += LARGEST if key else 0
        room = min(LARGEST, left) if key else left
        left -= room
        for path in list_pages(served, key):
            room = file.add_page(served, path, lang, room)
        for address, make in parts[key]:
            report("computing", done, total)
            room, done = file.add_part(address, make, room), done + 1
        left += room
    report("computing", total, total)
    file.left_out = [*dict.fromkeys(file.left_out)]
    inside = served.overview(), served.shows_rows, len(file.left_out)
    told = {each: inside_told(each, *inside) for each in LANGUAGES}
    pages = file.linked_pages(told)
    file.html = template.render(**frame, pages=[*pages], embedded=file.embedded)
    return file


def inside_told(lang: str, found: Overview, shows_rows: bool, left_out: int) -> Markup:
    """Say what is in the file, and how many parts had no room."""
    t, audits = load_catalogue(lang), sum(row.audits for row in found.models)
    counts = {"models": len(found.models), "audits": audits, "reports": len(found.reports)}
    lines = [t("explorer.file.inside", **{key: grouped(one) for key, one in counts.items()})]
    lines.append(t(f"explorer.file.{'rows' if shows_rows else 'no_rows'}"))
    lines += [t("explorer.file.left_out", count=grouped(left_out))] if left_out else []
    return paragraph(t("sentence.gap").join(lines), class_="callout")


def list_pages(served: ServedFolder, key: str) -> Iterator[str]:
    """Yield the addresses of a model's pages, with no key those that belong to several."""
    if key:
        path = f"/models/{key}"
        yield from (path, *(f"{path}/{view}" for view in served.model(key).views))
        return
    traces = (row for row in served.overview().reports if row.kind == "trace")
    yield from (f"/reports/{row.id}/circuits" for row in traces)
    yield from (f"/compare/{a}/{b}" for a, b in held_pairs(served))


def draw(served: ServedFolder, path: str, lang: str) -> str:
    """Return a page as text; empty where it cannot be drawn, and is no part of the file."""
    found = COMPARED.fullmatch(path)
    place, query = ("/compare", {"a": found[1], "b": found[2]}) if found else (path, {"every": ""})
    with suppress(Exception):
        return draw_page(served, place, query, lang)
    return ""


def list_parts(served: ServedFolder, lang: str, models: list[str]) -> dict[str, list[Part]]:
    """Return the data and documents of each model, in order; under "" those of several.

    Summaries are in both languages, whole reports in one.
    """
    found: dict[str, list[Part]] = {key: [] for key in (*models, "")}
    held = [(one, asked) for one in ENDPOINTS if one.held for asked in one.held(served)]
    # views of one output share what is slow
    held.sort(key=lambda each: (each[1].get("layer", ""), each[1].get("output", "")))
    for one, asked in held:
        part = held_key(one.path, asked), partial(packed_answer, served, one, asked)
        found[asked["key"] if one.path.startswith("/models/") else ""].append(part)
    for key in models:
        page = served.model(key)
        summary = f"/models/{key}/summary"
        if page.model.answered is not None:
            made = [
                (f"{summary}@{x}", partial(packed_document, served, summary, x)) for x in LANGUAGES
            ]
            found[key] = [*made, *found[key]]
        for path in (f"/audits/{one.number}" for one in page.audits):
            found[key].append((path, partial(packed_document, served, path, lang)))
    for path in (f"/reports/{row.id}" for row in served.overview().reports):
        found[""].append((path, partial(packed_document, served, path, lang)))
    return found


def packed_document(served: ServedFolder, path: str, lang: str) -> str:
    """Return a summary or a whole report, without the document that stands in it once more."""
    text = DATA.sub("", draw(served, path, lang))
    return packed(json.dumps(text)) if text else ""


def packed_answer(served: ServedFolder, one: Endpoint, asked: Arguments) -> str:
    """Return the answer of an endpoint as packed JSON; numbers that are only drawn are shorter."""
    try:
        found = one.find(served, **asked)
    except BilensError as error:
        told = displayable(without_paths(str(error), served.folder))
        return packed(json.dumps({"error": told}))
    text = json_text(displayable(found))
    if one.path not in DRAWN:
        return packed(text)
    short = json.loads(text, parse_float=lambda number: float(f"{float(number):.{DIGITS}g}"))
    if "bounds" in short:  # a proven bound never becomes smaller
        bounds = json.loads(text)["bounds"]
        short["bounds"] = [each if each is None else above(each) for each in bounds]
    return packed(json.dumps(short, separators=(",", ":")))


def above(bound: float) -> float:
    return float(f"{bound * (1 + 10 ** (1 - DIGITS)):.{DIGITS}g}")


def held_key(path: str, asked: Arguments) -> str:
    """Return the address by which the page's script asks, whatever the order of a query."""
    named = sorted((name, value) for name, value in asked.items() if f"{{{name}}}" not in path)
    pairs = [[name, str(value)] for name, value in named]
    query = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    return f"{path.format(**asked)}?{query}"


def packed(text: str) -> str:
    """Return JSON, and behind a zero byte the bytes of its arrays, packed.

    All first bytes of the numbers come first, then all second ones: exponents are alike.
    """
    arrays: list[bytes] = []

    def plane(found: re.Match[str]) -> str:
        raw = np.frombuffer(base64.b64decode(found[2]), np.uint8)
        arrays.append(raw.reshape(-1, int(found[1]) // 8).T.tobytes())
        return f'"dtype":"float{found[1]}","base64":{len(raw)}'

    head = ARRAY.sub(plane, text).encode()
    return base64.b64encode(
        gzip.compress(b"\0".join([head, b"".join(arrays)]), 9, mtime=0)
    ).decode()


def linked(main: str, held: set[str], lang: str) -> str:
    """Return a page whose links stay in the file; what is not in it is no link and says so."""
    why = escape(load_catalogue(lang)("explorer.file.not_in"))

    def link(found: re.Match[str]) -> str:
        path = urlsplit(unescape(found[1])).path
        if path in held:  # the language stays as it is
            return found[0].replace(f'href="{found[1]}"', f'href="#{path}"')
        return found[0].replace(
            f'href="{found[1]}"', f'role="link" aria-disabled="true" title="{why}"'
        )

    return LINK.sub(link, main)


def bundle() -> str:
    """Return the script's modules as one classic script: each a function that is run once."""
    parts = []
    for name in SCRIPTS:
        text = STATIC[name].read_text("utf-8")
        given = ", ".join(found[2] for found in EXPORT.finditer(text))
        text = EXPORT.sub(r"\1", IMPORT.sub(r"const \1 = modules['\2'];", text))
        parts.append(f"modules['{name[:-3]}'] = (() => {{\n{text}\nreturn {{ {given} }};\n}})();\n")
    return "const modules = {};\n" + "".join(parts).replace("</", "<\\/")
