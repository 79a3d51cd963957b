"""The HTML page: complete, self-contained, and no text of a document becomes markup.

Damage seen to fail: autoescape off; `<` not escaped in the embedded JSON; a section left out.
"""

import html
import itertools
import json
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from bilens.records.base import to_json
from bilens.report.html import embedded_json
from bilens.report.reports import AuditReport
from bilens.report.text import LANGUAGES, load_catalogue
from every_document import DOCUMENTS
from report_documents import make_document, page_of, variants

VOID = {"meta", "link", "img", "br", "wbr"}
XSS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "--><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='http://example.com/x.png'>",
    '"><svg onload=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</text></svg><script>alert(1)</script>",
    "</desc><script>alert(1)</script>",
    "<a href=javascript:alert(1)>x</a>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=x>",
    "<embed src=x>",
    "<base href=//example.com/>",
    "<meta http-equiv=refresh content=0;url=//example.com>",
    "<link rel=stylesheet href=//example.com/x.css>",
    "<style>*{background:url(//example.com)}</style>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<template><script>alert(1)</script></template>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<form action=//example.com><button>x</button></form>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=`alert(1)",
    "{{ 7 * 7 }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{0.__class__} {name} %s %(x)s",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "\u003cscript\u003ealert(1)",
    "a\u2028b\u2029c\u0000d\ud800e\u202ef",
    "]]><script>alert(1)</script>",
    "\\u003c/script\\u003e",
    "\r\n\r\n<script>alert(1)</script>",
]


class Page(HTMLParser):
    """The elements of a page, in order, and its scripts and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def structure(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def render(document: dict[str, Any], lang: str = "en") -> Page:
    return Page(page_of(document, lang))


@cache
def opened(name: str, lang: str) -> Page:
    return render(DOCUMENTS[name], lang)


SECTIONS = {
    "classes": "verdict checks coverage exactness performance classes ranks truncation predictions "
    "warnings proven",
    "attack": "proof curves numbers perturbations",
    "bilinear conversion": "bill stages layers readings lost",
    "certificate": "proven radii truncation inputs rounding",
    "layers": "verdict checks coverage performance charts table directions",
    "sweep_report": "numbers maps outliers checks coverage",
    "columns": "verdict checks coverage performance columns rows",
    "network reading": "held single pairs distances triples unexplained",
    "trace": "layer ranking agreement contrasts circuits features",
}


def each_page(function: Any) -> Any:
    named = pytest.mark.parametrize("name", DOCUMENTS)(function)
    return pytest.mark.parametrize("lang", LANGUAGES)(named)


@each_page
def test_every_section_is_there_in_order_and_linked(name: str, lang: str) -> None:
    document, page = DOCUMENTS[name], opened(name, lang)
    assert page.all("html") == [{"lang": lang}]
    expected = SECTIONS[document.get("read_as", document["kind"])].split()
    if document.get("inventory"):
        expected.insert(expected.index("coverage") + 1, "inventory")
    if document.get("difference"):
        expected.append("difference")
    if document.get("read_as") == "layers" and document.get("overfitting"):
        expected.insert(expected.index("directions") + 1, "warnings")
    if name in ("layers seen", "layers guessed"):
        expected.insert(expected.index("directions"), "seen")
    if name in ("layers unread", "layers unlisted"):
        expected = [one for one in expected if one not in ("charts", "table", "directions")]
    if document.get("inputs"):
        expected.insert(expected.index("warnings"), "given")
    columns = document.get("columns") or {}
    if columns.get("reading"):
        expected.append("reading")
    if any(row["kind"] == "asked" for row in columns.get("rows", [])):
        at = expected.index("columns")
        expected[at : at + 2] = ["rows", "columns"]
    if document["kind"] == "trace" and document.get("attention_edges"):
        expected.insert(expected.index("features"), "attention")
    if document["kind"] == "trace" and not document["circuits"]:
        expected = ["layer", "readings"]
    if document["kind"] == "network reading" and not document["distances"]:
        expected = ["held", "single", "unexplained"]
    elif document["kind"] == "network reading" and document["induction"] is None:
        expected.remove("triples")
    if document["kind"] == "bilinear conversion" and not document["gain"]:
        expected = ["bill", "stages", "layers"]
    places = [attributes["id"] for attributes in page.all("section") if "id" in attributes]
    assert places == [*expected, "reproduce", "scope"]
    links = {attributes["href"] for attributes in page.all("a")}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {f"#{place}" for place in places} <= links <= {f"#{name}" for name in ids}


@each_page
def test_one_h1_and_no_level_is_skipped(name: str, lang: str) -> None:
    elements = opened(name, lang).elements
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@each_page
def test_nothing_comes_from_elsewhere(name: str, lang: str) -> None:
    page = opened(name, lang)
    for _, attributes in page.elements:
        for key in {"src", "href", "srcset", "data", "action", "poster"} & set(attributes):
            assert (attributes[key] or "").startswith(("data:", "#"))
        assert not [key for key in attributes if key.startswith("on") or key == "style"]
    kind = DOCUMENTS[name]["kind"]
    assert page.all("script") == [{"type": "application/json", "id": f"bilens-{kind}"}]
    (policy,) = (m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "script-src" not in policy
    assert "http" not in policy


@each_page
def test_every_image_has_a_text_and_every_drawing_a_title(name: str, lang: str) -> None:
    page = opened(name, lang)
    pictures = [attributes for attributes in page.all("img") if "class" in attributes]
    assert all(attributes["alt"] for attributes in pictures)
    assert all("alt" in attributes for attributes in page.all("img"))
    drawings = [attributes for attributes in page.all("svg") if "aria-hidden" not in attributes]
    assert all(attributes["role"] == "img" for attributes in drawings)
    assert len(page.all("desc")) == len(drawings)
    assert len(page.all("title")) >= len(drawings) + 1  # and what a mark says when pointed at


@each_page
def test_every_head_of_a_table_says_what_it_heads(name: str, lang: str) -> None:
    page = opened(name, lang)
    assert {attributes["scope"] for attributes in page.all("th")} <= {"col", "row", "colgroup"}
    regions = [attributes["aria-label"] for attributes in page.all("div") if "role" in attributes]
    assert all(regions)
    assert len(page.all("table")) <= len(page.all("caption")) + len(regions)


@each_page
def test_no_placeholder_is_left(name: str, lang: str) -> None:
    texts = "".join(opened(name, lang).text)
    assert not re.search(r"\{\w*\}|\bnan\b|Undefined", texts)
    assert lang == "en" or "None" not in texts  # an English sentence may begin so


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_embedded_json_is_the_document(name: str) -> None:
    assert json.loads("".join(opened(name, "en").scripts)) == DOCUMENTS[name]
    assert opened(name, "en").scripts == opened(name, "ja").scripts


def poisoned(text: str) -> dict[str, Any]:
    """A document that holds a text wherever a document holds one."""
    document = make_document(classes=2, shape=(2, 2), names=[text, f"2 {text}"])
    document["source"] = {
        "path": text,
        "weights_sha256": text,
        "files": {text: text},
        "provenance": {text: text, "recipe": json.dumps({text: text})},
        "given_in_training": False,
        "hooks": [],
    }
    document["data"] |= {"name": text, "source": text, "source_kind": text, "sha256": text}
    document["reproduce"] |= {"command": text, "hardware": text, "date": text}
    document["reproduce"]["versions"] = {"bilens": text, text: text}
    document["model"] |= {"kind": text, "dtype": text}
    document["exactness"][0]["precision"] = text
    document["classes"]["explanations"][0]["kind"] = text
    document["verdict"].append({"rule": text, "outcome": text, "values": {text: text}})
    document["verdict"][1] = {
        "rule": "complete",
        "outcome": "fail",
        "values": {"residual": 1.0, "classes": 2, "incomplete": text},
    }
    return document


@pytest.mark.parametrize("text", XSS)
def test_no_text_of_a_document_becomes_markup(text: str) -> None:
    """The page has the very elements and attributes that it has with a harmless text."""
    page = render(poisoned(text))
    harmless = render(poisoned("x" * len(text)))
    assert page.structure() == harmless.structure()
    assert json.loads("".join(page.scripts)) == poisoned(text)


@pytest.mark.parametrize("text", XSS)
def test_a_text_is_shown_as_it_was_written(text: str) -> None:
    document = make_document(classes=2, shape=(2, 2))
    document["reproduce"]["command"] = text
    source = page_of(document)
    shown = re.search(r"<pre><code>(.*?)</code></pre>", source, re.DOTALL)
    assert shown is not None
    expected = "".join(c if c == " " or c.isprintable() else "\ufffd" for c in text)
    assert html.unescape(shown[1]) == expected


def test_json_for_a_script_element_holds_nothing_that_html_reads() -> None:
    record = AuditReport(make_document(names=["<a>&", "</script>\u2028\u2029<!--"])).record
    text = embedded_json(record)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == to_json(record)


def texts(name: str, lang: str = "en") -> str:
    return re.sub(r"\s+", " ", " ".join(opened(name, lang).text))


def test_the_verdict_comes_first_and_in_words() -> None:
    text = texts("healthy")
    order = ("May this model be used?", "Next – ", "Is the reading right?", "All checks")
    places = [text.index(words) for words in (*order, "How to read this report")]
    assert places == sorted(places)
    assert text.index("Who has to accept it") < text.index("Few directions")
    assert "✓ No issue" in text
    failed = texts("failed")
    for words in ("✗ Problem", "! Caution", "? Cannot be judged", "all 36 directions"):
        assert words in failed
    assert "Reading wrong" in failed


def test_the_small_data_set_is_called_small() -> None:
    sentence = "These inputs belong to the small embedded set of 5,000 real digits"
    assert sentence in texts("healthy")
    assert sentence not in texts("odd")
    assert "同梱された小規模なデータ" in texts("healthy", "ja")


def test_without_data_the_page_says_so_in_every_place() -> None:
    assert texts("no data").count("No data were given") == 1
    assert texts("no data").count("No test inputs with right answers were given") == 2
    assert "Accuracy is not known" in texts("no data")
    assert "Without data, nothing is said" in texts("no data")


def test_a_subspace_is_flagged_and_the_null_interval_is_named() -> None:
    assert "One of 3 eigenvalues too close to separate" in texts("odd")
    assert "equal eigenvalues" not in texts("healthy")
    assert texts("healthy").count("beyond the null interval: 2 for, 1 against") == 3
    assert texts("healthy").count("null (95%): +0.50") == 3


def test_the_embedding_basis_is_labelled_and_not_to_be_compared() -> None:
    assert "embedding basis (the paper’s convention)" in texts("healthy")
    assert "Do not compare the last column between models." in texts("healthy")


def test_a_wrong_answer_is_explained() -> None:
    text = texts("healthy")
    assert "Why it was wrong. What in the input spoke for the wrong class 0: " in text
    assert "(rows " in text
    assert text.count("Why it was wrong.") == 1


@pytest.mark.parametrize("name", ["healthy", "failed"])
def test_the_parts_of_a_score_add_up_as_shown(name: str) -> None:
    """What a reader adds up differs from the score by the rounding of each part, not more."""
    source = page_of(variants()[name])
    for table in re.findall(r'<table class="sum">.*?</table>', source, re.DOTALL):
        rows = re.findall(r'<td class="num">([^<]*)</td>\s*<td class="strip-cell">', table)
        *parts, score = (float(text.replace("−", "-").replace(",", "")) for text in rows)
        assert sum(parts) == pytest.approx(score, abs=0.005 * (len(parts) + 1))


def test_many_classes_are_all_there() -> None:
    page = opened("many classes", "en")
    cards = [part for part in page.all("details") if (part.get("id") or "").startswith("class-")]
    assert len(cards) == 30


def test_of_very_many_classes_those_with_the_most_to_show_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bilens.report.sections.classes.MOST_CARDS", 2)
    document = make_document(classes=4)
    for index, beyond in ((1, 9), (3, 8)):
        document["classes"]["readings"][index]["significant_positive"] = beyond
    page = page_of(document)
    assert re.findall(r'id="class-(\d)"', page) == ["1", "3"]
    assert "Drawn are the 2 of 4 classes" in page


def test_inputs_that_are_no_images_name_their_strongest_numbers() -> None:
    text = texts("no image")
    assert "9 numbers" in text
    reading = variants()["no image"]["classes"]["readings"][0]["positive"][0]["vector"]
    strongest = max(range(9), key=lambda index: abs(reading[index]))
    assert f"Strongest inputs: no. {strongest + 1} (" in text


def test_a_page_is_little_more_than_its_document() -> None:
    """The real audit of 784 pixels and 10 classes stays below 1.5 MB."""
    document = make_document(classes=10, shape=(28, 28))
    assert len(page_of(document, "ja").encode()) < 1_500_000


def test_the_same_document_gives_the_same_page() -> None:
    assert page_of(make_document()) == page_of(make_document())


def test_templates_and_styles_hold_no_address() -> None:
    source = page_of(make_document())
    assert "http://" not in source
    assert "https://" not in source
    assert "url(" not in source


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_sentence_of_the_page_is_in_its_language(lang: str) -> None:
    other = load_catalogue("ja" if lang == "en" else "en")
    text = texts("healthy", lang)
    assert other("guide.heading") not in text
    assert load_catalogue(lang)("guide.heading") in text
