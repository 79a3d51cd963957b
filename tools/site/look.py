"""What is seen of the built site: links, words, what pages ask for, how far tasks are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# What somebody comes with, the words of the heading that answers it, and its page.
TASKS = {
    "audit my ONNX": ("docs/loading_files.html", "onnx"),
    "approve a retrained model": ("docs/comparing.html", "comparing-two-models---baseline"),
    "ablate a direction in TransformerLens": (
        "docs/intervening.html",
        "in-transformerlens-and-nnsight",
    ),
    "what is a quadratic form here": ("docs/math.html", "what-a-quadratic-form-is-here"),
    "add a format": ("docs/adding.html", "to-add-a-format-a-rule-a-command"),
}
FIRST = "index.html"
CLICKS = 2
SCHEME = re.compile(r"[a-z]+:|//")


@dataclass
class Page(HTMLParser):
    """One page of the site: what it links to and shows, its anchors, the words of its text."""

    text: str
    links: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # links in the text, not in the navigation
    anchors: set[str] = field(default_factory=set)
    words: int = 0
    inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.anchors.add(values["id"])
        found = values.get("href") or values.get("src")
        if found and tag != "base":
            self.links.append(found)
        if tag in ("article", "script", "style"):
            self.inside.append(tag)
        if found and tag == "a" and self.inside == ["article"]:
            self.told.append(found)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside == ["article"]:
            self.words += len(data.split())


def read_site(folder: Path) -> dict[str, Page]:
    """Return the pages of a site by their paths."""
    files = sorted(folder.rglob("*.html"))
    return {path.relative_to(folder).as_posix(): Page(path.read_text("utf-8")) for path in files}


def targets(name: str, links: Iterable[str], root: str = "/") -> Iterator[tuple[str, str]]:
    """Yield path and anchor of the links of a page that lead to files of the site.

    `root` is where the site begins on its server. A link from that server's own root that leads
    out of it stays as it is, and is no file of the site.
    """
    for link in links:
        if not SCHEME.match(link):
            path, _, anchor = unquote(link).partition("#")
            if path.startswith("/"):
                inside = path.removeprefix(root) if root != "/" else path
                yield FIRST if inside in ("", ".") else inside, anchor
                continue
            parts: list[str] = []
            for part in [*name.split("/")[:-1], *path.split("/")] if path else name.split("/"):
                if part == "..":
                    parts.pop()
                elif part not in ("", "."):
                    parts.append(part)
            yield "/".join(parts) or FIRST, anchor


def broken_links(folder: Path, pages: dict[str, Page], root: str = "/") -> list[str]:
    """Return the links that lead to no file, or to no heading of a page."""
    return [
        f"{name}: {path}#{anchor}"
        for name, page in pages.items()
        for path, anchor in targets(name, page.links, root)
        if not (folder / path).is_file()
        or (anchor and path in pages and anchor not in pages[path].anchors | {"__top"})
    ]


def clicks_to(pages: dict[str, Page], path: str, anchor: str) -> list[str] | None:
    """Return the pages from the first one to another by links in their texts; None if too far."""
    if path not in pages or (anchor and anchor not in pages[path].anchors):
        return None
    ways = {FIRST: [FIRST]}
    for _ in range(CLICKS):
        for name, way in [*ways.items()]:
            for target, _ in targets(name, pages[name].told):
                if target in pages:
                    ways.setdefault(target, [*way, target])
    return ways.get(path)


def outside_requests(folder: Path, browser: Any, names: Iterable[str]) -> list[str]:
    """Open pages of the site as files, and return what they ask for that is not in its folder."""
    own, asked = folder.resolve().as_uri(), list[str]()
    context = browser.new_context()
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    for name in names:
        page.goto(f"{own}/{name}", wait_until="load")
    context.close()
    return [url for url in asked if not url.startswith((f"{own}/", "data:", "blob:"))]


def search(folder: Path, browser: Any, words: str) -> list[str]:
    """Return the titles that the search of the site finds."""
    page = browser.new_page()
    page.goto(f"{folder.resolve().as_uri()}/{FIRST}")
    page.locator("[data-md-component=search-query]").click()
    page.keyboard.insert_text(words)
    page.keyboard.press("End")  # the search listens to keys
    results = page.locator(".md-search-result__article h1, .md-search-result__article h2")
    results.first.wait_for(timeout=10_000)
    titles = [str(text) for text in results.all_inner_texts()]
    page.close()
    return titles
