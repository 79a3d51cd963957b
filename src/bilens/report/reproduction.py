"""The page of a reproduction: each study's numbers beside the published ones, and its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from bilens.report.html import environment
from bilens.report.markup import element, joined

IMAGE = re.compile(r"!\[[^]]*]\(([^)]+)\)")
INLINE = (
    (re.compile(r"`([^`]+)`"), "code"),
    (re.compile(r"\*\*([^*]+)\*\*"), "strong"),
    (re.compile(r"(?<![\w*])\*([^\W_][^*]*)\*(?![\w*])"), "em"),  # and q* stays as it is
)
LINK = re.compile(r"\[([^]]+)]\([^)]+\)")  # of a page that may lie elsewhere


def render_reproduction(
    studies: Sequence[Mapping[str, Any]],
    drawings: Mapping[str, str],
    left_out: Mapping[str, str],
    version: str,
) -> str:
    """Return one page without script or network; a drawing is an SVG file by study and name."""
    parts = [
        {**study, "text": from_markdown(study["text"], drawings, study["name"])}
        for study in studies
    ]
    template = environment().get_template("reproduction.html.j2")
    return template.render(studies=parts, left_out=left_out, version=version)


def from_markdown(text: str, drawings: Mapping[str, str], study: str) -> Markup:
    """Return the few forms that pages of studies use: headings, lists, tables, drawings, text."""
    return joined(*(block(part, drawings, study) for part in re.split(r"\n\s*\n", text)))


def block(text: str, drawings: Mapping[str, str], study: str) -> Markup:
    lines = text.strip().splitlines()
    if image := IMAGE.fullmatch(text.strip()):
        return element("figure", Markup(drawings[f"{study}/{image[1]}"]))  # noqa: S704 - our own
    if text.startswith("#"):
        return element("h3", inline(text.lstrip("# ")))
    if text.startswith("|") and len(lines) > 1:
        return table(lines)
    if text.startswith(("* ", "- ")):
        points = re.split(r"\n[*-] ", text[2:])
        return element("ul", *(element("li", inline(point)) for point in points))
    return element("p", inline(text))


def table(lines: Sequence[str]) -> Markup:
    head, body = cells(lines[0]), [cells(line) for line in lines[2:]]
    rows = [element("tr", *(element("td", inline(cell)) for cell in row)) for row in body]
    heads = element("tr", *(element("th", inline(cell), scope="col") for cell in head))
    whole = element("table", element("thead", heads), element("tbody", *rows))
    return element("div", whole, class_="scroll")


def cells(line: str) -> Iterable[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def inline(text: str) -> Markup:
    shown = LINK.sub(r"\1", str(escape(text)))
    for pattern, tag in INLINE:
        shown = pattern.sub(rf"<{tag}>\1</{tag}>", shown)
    return Markup(shown)  # noqa: S704 - escaped above
