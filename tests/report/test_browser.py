"""The page in a real browser, opened from a file, with every request recorded and refused.

Damage seen to fail: a least width of 50rem for the class index; a style sheet from elsewhere; a
heading level skipped.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import table_documents
from bilens.report.html import render_index
from bilens.report.reports import AuditReport
from chromium import needs_browser
from evidence_documents import INDEX
from report_documents import make_document, variants

WIDTHS = (360, 400, 768, 1400)
LONG = ["x" * 200, "<b>bold & bright</b>", "犬" * 60]


pytestmark = needs_browser


@dataclass
class Visit:
    """A page that was opened, and what it asked for or complained about."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: Path) -> None:
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route("**/*", self.answer)
        self.page.goto(path.as_uri())

    def answer(self, route: Any) -> None:
        self.requests.append(route.request.url)
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            route.abort()


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    """What the pages share, and their process with it: the first of them stays."""
    found = browser.new_context()
    found.new_page()
    yield found
    found.close()


@pytest.fixture
def visit(browser: Any, context: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    options = getattr(request, "param", None)
    page = browser.new_page(**options) if options else context.new_page()
    yield Visit(page)
    page.close()


def write(folder: Path, document: dict[str, Any], lang: str = "en") -> Path:
    path = folder / "report.html"
    AuditReport(document).to_html(path, lang=lang)
    return path


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_page_asks_for_nothing_and_complains_about_nothing(
    visit: Visit, tmp_path: Path, lang: str
) -> None:
    path = write(tmp_path, make_document(names=LONG), lang)
    visit.open(path)
    visit.page.wait_for_load_state("networkidle")
    assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]
    assert visit.complaints == []
    assert visit.page.evaluate("document.documentElement.lang") == lang
    assert visit.page.title().startswith({"en": "Audit report", "ja": "監査レポート"}[lang])


OUTSIDE = """
width => [...document.querySelectorAll("body *")].filter(node =>
    !node.closest(".scroll, .class-index, svg, .skip") &&
    node.getBoundingClientRect().right > width + 0.5
).map(node => node.outerHTML.slice(0, 80))
"""


CUT = """
() => [...document.querySelectorAll("svg text")].filter(text => {
    const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
    return own.width && (own.left < all.left - 1 || own.right > all.right + 1
        || own.top < all.top - 2 || own.bottom > all.bottom + 2);
}).map(text => text.textContent)
"""
COLUMNS_OF_LETTERS = """
() => [...document.querySelectorAll(".scroll > table:not(.index) td, .scroll tbody th")].filter(
    cell => cell.innerText.length > 6 && cell.clientHeight > 8 * cell.clientWidth
).map(cell => cell.innerText)
"""


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("name", ["long names", "no image", "many classes"])
def test_the_page_never_scrolls_sideways(
    visit: Visit, tmp_path: Path, lang: str, name: str
) -> None:
    documents = variants() | {"long names": make_document(names=LONG)}
    visit.open(write(tmp_path, documents[name], lang))
    for width in WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate(OUTSIDE, width) == []


@pytest.mark.parametrize(("name", "lang"), [("classes", "ja"), ("numbers", "en"), ("read", "ja")])
def test_the_page_of_a_table_never_scrolls_sideways(
    visit: Visit, tmp_path: Path, name: str, lang: str
) -> None:
    document = table_documents.variants()[name]
    names, document["model"]["input_names"][:3] = document["model"]["input_names"][:3], LONG
    if document["columns"]["reading"] is not None:
        (first, *_) = document["columns"]["reading"]["columns"]
        first |= {"name": LONG[2]}
        document["model"]["input_names"][:3] = names
    document["source"]["path"] = "検査工程の判定モデル" * 8
    AuditReport(document).to_html(tmp_path / "table.html", lang=lang)
    visit.open(tmp_path / "table.html")
    for width in WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate(OUTSIDE, width) == []
        assert visit.page.evaluate(CUT) == []
        assert visit.page.evaluate(COLUMNS_OF_LETTERS) == []
    assert visit.complaints == []


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_an_index_never_scrolls_sideways_and_leads_to_the_pages(
    visit: Visit, tmp_path: Path, lang: str
) -> None:
    row = INDEX.models[2]
    rows = (*INDEX.models, *(replace(row, model=f"runs/{name}", error=name) for name in LONG))
    (tmp_path / "index.html").write_text(render_index(replace(INDEX, models=rows), lang), "utf-8")
    write(tmp_path, make_document(), lang).rename(tmp_path / row.page)
    visit.open(tmp_path / "index.html")
    for width in WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        wide = (
            "[...document.querySelectorAll('.scroll')].filter(n => n.scrollWidth > n.clientWidth)"
        )
        assert visit.page.evaluate(f"{wide}.length") == 0
    visit.page.get_by_text(row.model, exact=True).click()
    assert visit.page.evaluate("document.querySelectorAll('h1').length") == 1
    assert visit.page.url.endswith("/c%20d.html")
    assert visit.complaints == []


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("name", ["decided do_not_use", "failed"])
def test_the_decision_and_the_groups_fill_one_printed_page(
    visit: Visit, tmp_path: Path, name: str, lang: str
) -> None:
    """Of A4, less its margins: 184 × 269 mm; what follows begins the next one."""
    visit.open(write(tmp_path, variants()[name], lang))
    visit.page.emulate_media(media="print")
    visit.page.set_viewport_size({"width": round(184 / 25.4 * 96), "height": 900})
    bottom = visit.page.evaluate(
        "document.querySelector('.verdict').getBoundingClientRect().bottom + window.scrollY"
    )
    assert bottom <= 269 / 25.4 * 96
    after = "getComputedStyle(document.querySelector('.verdict')).breakAfter"
    assert visit.page.evaluate(after) == "page"


def test_headings_images_and_tables_can_be_followed_without_seeing_them(
    visit: Visit, tmp_path: Path
) -> None:
    visit.open(write(tmp_path, make_document()))
    levels = visit.page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(node => +node.tagName[1])"
    )
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    images = visit.page.evaluate(
        "[...document.images].map(image => [image.alt, image.complete, image.naturalWidth])"
    )
    assert len(images) > 20
    assert all(alt and complete and width > 0 for alt, complete, width in images)


def test_the_keyboard_reaches_every_link_and_every_part_that_opens(
    visit: Visit, tmp_path: Path
) -> None:
    visit.open(write(tmp_path, make_document()))
    visit.page.evaluate("document.querySelectorAll('summary').forEach((s, i) => s.dataset.at = i)")
    expected = visit.page.evaluate("document.querySelectorAll('summary').length")
    reached, marked = set(), True
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.className") == "skip"
    assert visit.page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        place, outline = visit.page.evaluate(
            "[document.activeElement].map(n => [n.dataset.at, getComputedStyle(n).outlineStyle])[0]"
        )
        if place is not None:
            reached.add(place)
            marked = marked and outline == "solid"
    assert len(reached) == expected == 4
    assert marked, "the focus can be seen"


def test_a_part_closes_and_opens_with_the_keyboard(visit: Visit, tmp_path: Path) -> None:
    visit.open(write(tmp_path, make_document()))
    summary = visit.page.locator("#class-0 > summary")
    summary.focus()
    visit.page.keyboard.press("Enter")
    assert visit.page.locator("#class-0").get_attribute("open") is None
    visit.page.keyboard.press("Enter")
    assert visit.page.locator("#class-0").get_attribute("open") is not None


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True)
def test_a_page_without_scripts_shows_everything(visit: Visit, tmp_path: Path) -> None:
    visit.open(write(tmp_path, make_document()))
    assert visit.page.locator("#class-2 img").first.is_visible()
    assert visit.page.locator("#predictions table").first.is_visible()


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_it_prints_on_several_pages_with_everything_open(
    visit: Visit, tmp_path: Path, lang: str
) -> None:
    visit.open(write(tmp_path, make_document(), lang))
    visit.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = false)")
    visit.page.emulate_media(media="print", color_scheme="dark")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert visit.page.evaluate(
        "document.querySelector('#class-0 .reading').getBoundingClientRect().height > 100"
    )
    pdf = visit.page.pdf(prefer_css_page_size=True, print_background=True)
    assert len(re.findall(rb"/Type\s*/Page[^s]", pdf)) > 1


CONTRAST = """
() => {
  const numbers = text => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")].filter(node =>
    !node.closest("script, .icon, .skip") && [...node.childNodes].some(
      child => child.nodeType === 3 && child.textContent.trim())
  ).map(node => {
    const style = getComputedStyle(node), inside = node.closest("svg") !== null;
    if (inside && !["text", "tspan"].includes(node.tagName)) return null;
    const colour = numbers(inside ? style.fill : style.color);
    const [low, high] = [light(colour), light(ground(node))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), node.outerHTML.slice(0, 100)];
  }).filter(found => found !== null && found[0] < 4.5);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["failed", "odd"])
def test_every_text_can_be_read_in_light_and_dark(
    visit: Visit, tmp_path: Path, scheme: str, name: str
) -> None:
    visit.page.emulate_media(color_scheme=scheme)
    visit.open(write(tmp_path, variants()[name]))
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(number) for number in re.findall(r"\d+", ground)[:3]) / 3
    assert brightness < 60 if scheme == "dark" else brightness > 200
    assert visit.page.evaluate(CONTRAST) == []


def test_the_notebook_frame_shows_the_page(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html>{AuditReport(make_document())._repr_html_()}", "utf-8")
    visit.open(path)
    frame = visit.page.frame_locator("iframe")
    assert "Audit of an AI model" in frame.locator("h1").inner_text()
    assert visit.complaints == []
