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
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from markupsafe import Markup, escape

from bilens.api.history import now
from bilens.base.errors import BilensError, UsageError
from bilens.records.base import displayable, json_text
from bilens.report.html import environment
from bilens.report.markup import quiet
from bilens.report.text import LANGUAGES, grouped, load_catalogue
from bilens_explorer.app import draw_page
from bilens_explorer.compare import held_pairs
from bilens_explorer.endpoint import Arguments, Endpoint
from bilens_explorer.endpoints import ENDPOINTS
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import without_paths
from bilens_explorer.pages import NAMES, PALETTE, REPORT_STYLES, SCRIPTS, STATIC, STYLES, words_of

LARGEST = 5_000_000  # bytes of the file
SPARE = 2000  # bytes that are not counted one by one
LEFT_OUT = re.compile(r"/models/\w+/text")  # what needs a server
COMPARED = re.compile(r"/compare/(\w+)/(\w+)")
SUMMARY = re.compile(r"/models/\w+/summary")
DOCUMENT = re.compile(r"/models/\w+/summary|/(audits|reports)/\w+")  # files of their own
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
FIRST, LAST = 1, 9
KINDS = {  # what has room first, and last; all others are small
    "/models/{key}/playground": FIRST,
    "/models/{key}/eigenvectors": 2,
    "/models/{key}/interactions": 3,
    "/compare/eigenvectors": 4,
    "/models/{key}/playground/pair": 5,
}
DRAWN = tuple(f"/models/{{key}}/{name}" for name in ("spectrum", "eigenvectors", "interactions"))
DIGITS = 6  # of numbers that are only drawn
Key = tuple[str, str]  # path and language
Ask = Callable[[str, str], str]  # path and language → text of the page, empty without one
Report = Callable[[str, int, int], None]
Part = tuple[tuple[int, int, int], str, Callable[[], str | None]]  # order, key, what makes it


@dataclass
class Exported:
    """A file, and what had no room in it."""

    html: str
    left_out: list[str] = field(default_factory=list)  # addresses


@dataclass
class Pages:
    """The pages of a file, and the links of them that lead to whole documents."""

    held: dict[Key, str] = field(default_factory=dict)
    documents: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def export(served: ServedFolder, lang: str, report: Report = lambda *_: None) -> Exported:
    """Return the explorer of a folder as one page that asks nobody for anything.

    What does not fit below `LARGEST` is left out: pages and data of the models that the first page
    has last, and of the others whole documents, then interactions, then eigenvectors.
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
    models = [row.id for row in served.overview().models]

    def ask(path: str, each: str) -> str:
        found = COMPARED.fullmatch(path)
        place, query = ("/compare", {"a": found[1], "b": found[2]}) if found else (path, {})
        with suppress(Exception):  # what cannot be drawn is no part of the file
            return draw_page(served, place, query, each)
        return ""

    compared = [f"/compare/{a}/{b}" for a, b in held_pairs(served)]
    pages = crawl(ask, lang, room, compared)
    room -= sum(size_of(main, key[1] == lang) for key, main in pages.held.items())
    there = {key: at for at, key in enumerate(models) if (f"/models/{key}", lang) in pages.held}
    parts = [*documents(ask, pages, lang, there), *data(served, there, room, report)]
    embedded: dict[str, str] = {}
    left_out = pages.left_out
    for _, key, make in sorted(parts, key=lambda part: part[0]):
        value = make() if room > SPARE else None
        size = 0 if value is None else len(json.dumps(key)) + len(value) + 8
        if value is None or size > room:
            left_out.append(key.partition("?")[0].partition("@")[0])
        elif value:
            embedded[key], room = value, room - size
    held = {path for path, _ in pages.held} | {key.partition("@")[0] for key in embedded}
    drawn = []
    for (path, each), main in pages.held.items():
        more = without_page(each, len(models) - len(there)) if path == "/" else ""
        drawn.append((path, each, Markup(more + linked(as_copy(main, each), held, each))))  # noqa: S704
    return Exported(
        template.render(**frame, pages=drawn, embedded=embedded), [*dict.fromkeys(left_out)]
    )


def crawl(ask: Ask, lang: str, room: int, more: list[str]) -> Pages:
    """Return the pages that links lead to, model by model, until half of the room is full.

    At last come some more. UsageError if not even the first page fits.
    """
    found, waiting, seen = Pages(), [*more, "/"], set[str]()
    share = room
    while waiting:
        path = waiting.pop()
        if path in seen or LEFT_OUT.fullmatch(path):
            continue
        seen.add(path)
        if DOCUMENT.fullmatch(path):
            found.documents.append(path)
            continue
        if share <= 0:
            found.left_out.append(path)
            continue
        drawn = {each: FRAMED.search(ask(path, each)) for each in LANGUAGES}
        mains = {each: main[1] for each, main in drawn.items() if main is not None}
        share -= sum(size_of(main, each == lang) for each, main in mains.items())
        if share < 0:
            found.left_out.append(path)
            if path == "/":
                raise UsageError(
                    f"The first page alone is larger than a file of {LARGEST:,} bytes: export a "
                    "folder with fewer models, or serve this one."
                )
            continue
        if path == "/":
            share //= 2  # the rest is for data
        for each, main in mains.items():
            found.held[path, each] = main
            links = [urlsplit(unescape(link)).path for link in LINK.findall(main)]
            waiting += [link for link in reversed(links) if link not in seen]
    return found


def size_of(main: str, twice: bool) -> int:
    """Return the most bytes that a page takes; without script it is read in one language."""
    return (len(linked(main, set(), "ja").encode()) + 200) * (2 if twice else 1)


def documents(ask: Ask, pages: Pages, lang: str, there: dict[str, int]) -> Iterator[Part]:
    """Yield summaries, in both languages, and whole reports, in one."""

    def drawn(path: str, each: str) -> str:
        # the document stands in a report's page once more
        text = DATA.sub("", ask(path, each))
        return packed(json.dumps(text)) if text else ""

    for path in pages.documents:
        if SUMMARY.fullmatch(path):
            at = there.get(path.split("/")[2], len(there))
            for each in LANGUAGES:
                yield (FIRST, at, 0), f"{path}@{each}", partial(drawn, path, each)
        else:
            yield (LAST, 0, 0), path, partial(drawn, path, lang)


def data(served: ServedFolder, there: dict[str, int], room: int, report: Report) -> Iterator[Part]:
    """Yield what the views ask for; what cannot be read says so in the page.

    One output of a layer after the other, since its views share what is slow. Models for which
    there is no room are not computed.
    """
    wanted = []
    for one in ENDPOINTS:
        for asked in () if one.held is None else one.held(served):
            model = asked.get("key", "")
            at = there.get(model, -1 if one.path == "/overview" else len(there))
            if one.path.startswith("/models/") and model not in there:
                continue
            layer = asked.get("layer", ""), asked.get("output", "")
            wanted.append(((at, *layer, KINDS.get(one.path, 0)), one, asked))
    wanted.sort(key=lambda each: each[0])
    for done, ((at, *_), one, asked) in enumerate(wanted):
        report("computing", done, len(wanted))
        kind, key = KINDS.get(one.path, 0), held_key(one.path, asked)
        value = packed(found_text(served, one, asked)) if room > 0 else None
        if kind <= FIRST:
            room -= 0 if value is None else len(value)
        yield (max(kind, FIRST), at, kind), key, partial(lambda value: value, value)
    report("computing", len(wanted), len(wanted))


def found_text(served: ServedFolder, one: Endpoint, asked: Arguments) -> str:
    """Return the answer of an endpoint as JSON; numbers that are only drawn are shorter."""
    try:
        found = one.find(served, **asked)
    except BilensError as error:
        told = displayable(without_paths(str(error), served.folder))
        return json.dumps({"error": told})
    text = json_text(displayable(found))
    if one.path not in DRAWN:
        return text
    short = json.loads(text, parse_float=lambda number: float(f"{float(number):.{DIGITS}g}"))
    if "bounds" in short:  # a proven bound never becomes smaller
        bounds = json.loads(text)["bounds"]
        short["bounds"] = [each if each is None else above(each) for each in bounds]
    return json.dumps(short, separators=(",", ":"))


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
        if LEFT_OUT.fullmatch(path):
            return ""
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
