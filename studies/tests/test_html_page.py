"""The text of a study in the page: what Markdown is drawn, and that nothing in it is taken as HTML.

Broken once: with `"html": True`, and without the rule for links.
"""

import pytest

from bilens_studies.html_page import from_markdown


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("## How", "<h3>How</h3>"),
        ("* one\n* *two*", "<ul>\n<li>one</li>\n<li><em>two</em></li>\n</ul>"),
        ("1. first\n2. second", "<ol>\n<li>first</li>\n<li>second</li>\n</ol>"),
        ("q* and r* of `a*b`", "<p>q* and r* of <code>a*b</code></p>"),
        ("<b onload=x>bold</b>", "<p>&lt;b onload=x&gt;bold&lt;/b&gt;</p>"),
        ("[the *page*](../other.md) of it", "<p>the <em>page</em> of it</p>"),
        ("[bad](javascript:x)", "<p>[bad](javascript:x)</p>"),
        ("![a drawing](a.svg)", "<p><svg>x</svg></p>"),
    ],
)
def test_markdown_is_drawn_without_its_links_and_html(text: str, drawn: str) -> None:
    assert from_markdown(text, {"toy/it/a.svg": "<svg>x</svg>"}, "toy/it").strip() == drawn


def test_a_table_scrolls_and_its_heads_are_of_columns() -> None:
    table = from_markdown("| a | b |\n|---|---|\n| 1 | <i> |", {}, "")
    assert table.startswith('<div class="scroll"><table>')
    assert table.count('<th scope="col">') == 2
    assert "<td>&lt;i&gt;</td>" in table
