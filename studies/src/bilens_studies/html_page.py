"""The page of a reproduction: each study's numbers beside the published ones, and its text."""

from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from bilens_studies.page_writer import templates

SHOWN_AS = {  # instead of what Markdown says: a study is a section of a page that may lie elsewhere
    "heading_open": "<h3>",
    "heading_close": "</h3>\n",
    "link_open": "",
    "link_close": "",
    "table_open": '<div class="scroll"><table>\n',
    "table_close": "</table></div>\n",
    "th_open": '<th scope="col">',
}


def render_reproduction(
    studies: Sequence[Mapping[str, Any]],
    drawings: Mapping[str, str],
    left_out: Mapping[str, str],
    rule: str,
    version: str,
) -> str:
    """Return one page without script or network; a drawing is an SVG file by study and name."""
    parts = [
        {**study, "text": from_markdown(study["text"], drawings, study["name"])}
        for study in studies
    ]
    return (
        templates()
        .get_template("index.html")
        .render(studies=parts, left_out=left_out, rule=rule, version=version)
    )


def from_markdown(text: str, drawings: Mapping[str, str], study: str) -> Markup:
    """Return the text of a study; HTML in it is shown as text, an image is the drawing itself."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    for kind, shown in SHOWN_AS.items():
        reader.add_render_rule(kind, lambda *_, shown=shown: shown)
    reader.add_render_rule(
        "image", lambda _, tokens, index, *__: drawings[f"{study}/{tokens[index].attrs['src']}"]
    )
    return Markup(reader.render(text))  # noqa: S704 - escaped, and drawings of our own
