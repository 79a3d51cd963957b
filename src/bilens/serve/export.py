"""The explorer as one file: its pages, its data and its script, for a reader without a server.

The pages are those of the server, asked one after the other from the first page on, so that a
view needs nothing of its own here but the list of data that it asks for (`Endpoint.held`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal
from markupsafe import Markup
from starlette.types import Message

from bilens.base.errors import BilensError
from bilens.records.base import displayable, json_text
from bilens.report.html import environment
from bilens.report.text import LANGUAGES, load_catalogue
from bilens.serve.app import build_app
from bilens.serve.endpoint import Asked
from bilens.serve.endpoints import ENDPOINTS
from bilens.serve.folder import ServedFolder
from bilens.serve.guard import Guard
from bilens.serve.pages import NAMES, PALETTE, REPORT_STYLES, SCRIPTS, STATIC, STYLES, words_of

HOST = "127.0.0.1:1"  # that the pages are asked of, in this process
LARGEST = 5_000_000  # bytes of the file
LEFT_OUT = re.compile(r"(/models/\w+)?/jobs(/.*)?")  # what needs a server
FRAMED = re.compile(r'<main id="main"[^>]*>(.*)</main>', re.DOTALL)
LINK = re.compile(r' href="(/[^"]*)"')
DATA = re.compile(r'<script type="application/json".*?</script>', re.DOTALL)
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w-]+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async function|function|const) (\w+))", re.MULTILINE)
POLICY = (
    "default-src 'none'; script-src 'sha256-{}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
Key = tuple[str, str]  # path and language


@dataclass
class Exported:
    """A file, and what had no room in it."""

    html: str
    left_out: list[str] = field(default_factory=list)  # addresses


def export(served: ServedFolder, lang: str) -> Exported:
    """Return the explorer of a folder as one page that asks nobody for anything.

    Args:
        served: the folder.
        lang: in which it opens, and its reports are; pages are in both.
    """
    with start_blocking_portal() as portal:
        pages, reports = portal.call(crawl, build_app(served, [HOST]), lang)
    script = bundle()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    there = {path for path, _ in pages} | {*reports}
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
        },
        "pages": [(*key, Markup(linked(main, there))) for key, main in pages.items()],  # noqa: S704
    }
    template = environment().get_template("explorer-file.html.j2")
    room = LARGEST - len(template.render(**frame, embedded={}).encode())
    parts = {key: packed(text) for key, text in data(served)}
    whole = {key: packed(json.dumps(text)) for key, text in reports.items()}
    embedded: dict[str, str] = {}
    left_out = []
    for key, value in [*by_size(parts), *by_size(whole)]:  # data first, and as many as there can be
        room -= len(json.dumps(key)) + len(value) + 8
        if room < 0:
            left_out.append(key.partition("?")[0])
        else:
            embedded[key] = value
    return Exported(template.render(**frame, embedded=embedded), left_out)


async def crawl(app: Guard, lang: str) -> tuple[dict[Key, str], dict[str, str]]:
    """Return the pages that links lead to, and the reports, which are whole files."""
    pages: dict[Key, str] = {}
    reports: dict[str, str] = {}
    for each in (lang, *(other for other in LANGUAGES if other != lang)):
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            if (path, each) in pages or path in reports or LEFT_OUT.fullmatch(path):
                continue
            status, text = await answer(app, path, each)
            if status != 200:
                continue
            if main := FRAMED.search(text):
                pages[path, each] = main[1]
                links = LINK.findall(main[1])
                waiting += [urlsplit(unescape(link)).path for link in reversed(links)]
            elif each == lang:
                reports[path] = DATA.sub("", text)  # the document stands in the page once more
    return pages, reports


async def answer(app: Guard, path: str, lang: str) -> tuple[int, str]:
    """Return status and text of one page, asked without a socket."""
    told: list[Message] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": f"lang={lang}".encode(),
        "root_path": "",
        "headers": [(b"host", HOST.encode())],
        "server": None,
        "client": None,
    }

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in told)
    return told[0]["status"], body.decode("utf-8")


def data(served: ServedFolder) -> Iterator[tuple[str, str]]:
    """Yield what the views ask for: address and JSON; what cannot be read says so in the page."""
    for one in ENDPOINTS:
        for asked in () if one.held is None else one.held(served):
            try:
                found = one.find(served, Asked(asked.path, one.checked(texts(asked))))
            except BilensError as error:
                told = displayable(str(error).replace(str(served.folder), served.folder.name))
                yield held_key(one.path, asked), json.dumps({"error": told})
                continue
            if found is not None:
                yield held_key(one.path, asked), json_text(displayable(found))


def texts(asked: Asked) -> dict[str, str]:
    return {name: str(value) for name, value in sorted(asked.query.items())}


def held_key(path: str, asked: Asked) -> str:
    """Return what the page's script asks for, whatever the order of a query."""
    pairs = [*map(list, texts(asked).items())]
    query = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    return f"{path.format(**asked.path)}?{query}"


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def by_size(parts: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(parts.items(), key=lambda part: len(part[1]))


def linked(main: str, there: set[str]) -> str:
    """Return a page whose links stay in the file; what is not in it is no link."""

    def link(found: re.Match[str]) -> str:
        path = urlsplit(unescape(found[1])).path
        return f' href="#{path}"' if path in there else ""  # the language stays as it is

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
