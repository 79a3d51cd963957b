"""The explorer as one file: its pages, its data and its script, for a reader without a server.

The pages are those of the server, drawn one after the other from the first page on, so that a
view needs nothing of its own here but the list of data that it asks for (`Endpoint.held`).
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from html import unescape
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from markupsafe import Markup, escape

from bilens.api import now
from bilens.base.errors import BilensError, UsageError
from bilens.records import displayable, json_text
from bilens.report import LANGUAGES, environment, grouped, load_catalogue, quiet
from bilens_explorer.app import ENDPOINTS, draw_page
from bilens_explorer.compare import held_pairs
from bilens_explorer.endpoint import Arguments, Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import without_paths
from bilens_explorer.pages import NAMES, PALETTE, REPORT_STYLES, SCRIPTS, STATIC, STYLES, words_of

LARGEST = 5_000_000  # bytes of the file
SPARE = 2000  # bytes that are not counted one by one
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
Pages = dict[tuple[str, str], str]  # path and language → what the page holds
Part = tuple[str, Callable[[], str]]  # key, and what makes it: empty where it cannot be made


@dataclass
class Exported:
    """A file, and what had no room in it."""

    html: str
    left_out: list[str] = field(default_factory=list)  # addresses


def export(served: ServedFolder, lang: str, report: Report = lambda *_: None) -> Exported:
    """Return the explorer of a folder as one page that asks nobody for anything.

    What does not fit below `LARGEST` is left out. Pages have half of the room, models as the first
    page lists them; then comes what their views ask for, model by model, and last whole reports.
    It opens in `lang`, and whole reports are in it; pages and summaries are in both languages.
    `report` is told (stage, done, total). UsageError if not even the first page fits.
    """
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
    room = LARGEST - SPARE - len(template.render(**frame, pages=[], embedded={}).encode())
    pages, left_out = draw_pages(served, lang, room)
    room -= sum(size_of(main, key[1] == lang) for key, main in pages.items())
    models = [row.id for row in served.overview().models]
    there = [key for key in models if (f"/models/{key}", lang) in pages]
    embedded: dict[str, str] = {}
    parts = [*list_parts(served, lang, there)]
    for done, (key, make) in enumerate(parts):
        report("computing", done, len(parts))
        value = make() if room > SPARE else ""
        size = len(json.dumps(key)) + len(value) + 8
        if room <= SPARE or size > room:
            left_out.append(key.partition("?")[0].partition("@")[0])
        elif value:
            embedded[key], room = value, room - size
    report("computing", len(parts), len(parts))
    held = {path for path, _ in pages} | {key.partition("@")[0] for key in embedded}
    drawn = []
    for (path, each), main in pages.items():
        more = without_page(each, len(models) - len(there)) if path == "/" else ""
        drawn.append((path, each, Markup(more + linked(as_copy(main, each), held, each))))  # noqa: S704
    html = template.render(**frame, pages=drawn, embedded=embedded)
    return Exported(html, [*dict.fromkeys(left_out)])


def draw_pages(served: ServedFolder, lang: str, room: int) -> tuple[Pages, list[str]]:
    """Return the pages that fit into half of the room, and the addresses of the others."""
    pages: Pages = {}
    left_out: list[str] = []
    for path in list_pages(served):
        drawn = {each: FRAMED.search(draw(served, path, each)) for each in LANGUAGES}
        mains = {(path, each): main[1] for each, main in drawn.items() if main is not None}
        room -= sum(size_of(main, key[1] == lang) for key, main in mains.items())
        if room < 0 and path == "/":
            raise UsageError(
                f"The first page alone is larger than a file of {LARGEST:,} bytes: export a "
                "folder with fewer models, or serve this one."
            )
        if room < 0:
            left_out.append(path)
            continue
        pages |= mains
        if path == "/":
            room //= 2
    return pages, left_out


def list_pages(served: ServedFolder) -> Iterator[str]:
    """Yield the addresses of all pages but whole documents, first what has room first."""
    found = served.overview()
    yield "/"
    for row in found.models:
        path = f"/models/{row.id}"
        yield from (path, *(f"{path}/{view}" for view in served.model(row.id).views))
    yield from (f"/reports/{row.id}/circuits" for row in found.reports if row.kind == "trace")
    yield from (f"/compare/{a}/{b}" for a, b in held_pairs(served))


def draw(served: ServedFolder, path: str, lang: str) -> str:
    """Return a page as text; empty where it cannot be drawn, and is no part of the file."""
    found = COMPARED.fullmatch(path)
    place, query = ("/compare", {"a": found[1], "b": found[2]}) if found else (path, {"every": ""})
    with suppress(Exception):
        return draw_page(served, place, query, lang)
    return ""


def size_of(main: str, twice: bool) -> int:
    """Return the most bytes that a page takes; without script it is read in one language."""
    return (len(linked(main, set(), "ja").encode()) + 200) * (2 if twice else 1)


def list_parts(served: ServedFolder, lang: str, there: list[str]) -> Iterator[Part]:
    """Yield what the pages of models ask for, a model and a layer after the other, then documents.

    Summaries are in both languages, whole reports in one.
    """
    places = {key: at for at, key in enumerate(there)}
    held = [
        (places.get(asked.get("key", ""), len(places) if asked else -1), one, asked)
        for one in ENDPOINTS
        if one.held is not None
        for asked in one.held(served)
        if not one.path.startswith("/models/") or asked["key"] in places
    ]
    # views of one output share what is slow
    held.sort(key=lambda each: (each[0], each[2].get("layer", ""), each[2].get("output", "")))
    summaries = [f"/models/{key}/summary" for key in there]
    for path, each in product(summaries, LANGUAGES):
        yield f"{path}@{each}", partial(packed_document, served, path, each)
    for _, one, asked in held:
        yield held_key(one.path, asked), partial(packed_answer, served, one, asked)
    audits = [one.number for key in there for one in served.model(key).audits]
    reports = [f"/reports/{row.id}" for row in served.overview().reports]
    for path in (*(f"/audits/{number}" for number in audits), *reports):
        yield path, partial(packed_document, served, path, lang)


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


def as_copy(main: str, lang: str) -> str:
    """Return a page that says what it is, in place of that it may only be read."""
    t = load_catalogue(lang)
    told = quiet(t("explorer.file.copy", day=now()[:10]))
    return main.replace(str(quiet(t("explorer.read_only"))), str(told))


def without_page(lang: str, count: int) -> str:
    told = load_catalogue(lang)("explorer.file.without_page", count=grouped(count))
    return str(quiet(told)) if count else ""


def bundle() -> str:
    """Return the script's modules as one classic script: each a function that is run once."""
    parts = []
    for name in SCRIPTS:
        text = STATIC[name].read_text("utf-8")
        given = ", ".join(found[2] for found in EXPORT.finditer(text))
        text = EXPORT.sub(r"\1", IMPORT.sub(r"const \1 = modules['\2'];", text))
        parts.append(f"modules['{name[:-3]}'] = (() => {{\n{text}\nreturn {{ {given} }};\n}})();\n")
    return "const modules = {};\n" + "".join(parts).replace("</", "<\\/")
