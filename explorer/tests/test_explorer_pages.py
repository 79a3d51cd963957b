"""Every page of the explorer that links lead to: for hands, eyes and screen readers.

Broken once: with a control without a name, with grey text too pale, with a table wider than the
window, with a script that fails, with a view that names no report to those without script, with
views that say that a report has what they draw, with autoencoders counted among the models that a
file compares.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bilens_explorer.compare import held_pairs
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import id_of
from chromium import needs_browser
from explorer_folder import HOSTILE, write_folder

pytestmark = needs_browser
LINK = re.compile(r' href="(/[^"]*)"')
REPORTS = re.compile(r"/(audits|reports)/\w+$")  # files of their own, which have their own test
MISSED = """() => [...document.querySelectorAll("main a[href], main button, main input")]
    .filter((each) => each.checkVisibility() && !each.disabled && each.tabIndex < 0)
    .map((each) => each.outerHTML.slice(0, 200))"""
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "runs")


@pytest.fixture(scope="module")
def paths(address: str) -> list[str]:
    """All pages, as a reader would find them."""
    found, waiting = [], ["/"]
    while waiting:
        path = waiting.pop()
        if path in found or path.startswith("/static") or REPORTS.search(path):
            continue
        found.append(path)
        page = httpx.get(address + path, timeout=60)
        assert page.status_code == 200, path
        waiting += [urlsplit(link).path for link in LINK.findall(page.text)]
    models = httpx.get(f"{address}/api/v1/overview", timeout=60).json()["models"]
    keys = {row["name"]: row["id"] for row in models}
    return [*found, f"/compare?a={keys['images']}&b={keys[HOSTILE]}"]


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(base_url=address, reduced_motion="reduce")
    found = context.new_page()
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield found
    context.close()
    assert complaints == []


def opened(page: Any, path: str, lang: str) -> None:
    page.goto(f"{path}{'&' if '?' in path else '?'}lang={lang}")
    page.wait_for_selector("main:not(:has([aria-busy]))")
    wrong = [text for text in page.locator("[role=alert]").all_inner_texts() if text]
    assert wrong == [], path


def views(paths: list[str]) -> list[str]:
    """One page of each kind, and every one that is drawn."""
    kinds = {re.sub(r"/\w{16}", "/key", path): path for path in paths}
    drawn = ("/playground", "/circuits", "/spectra", "/mistakes")
    return [path for path in paths if path in kinds.values() or path.endswith(drawn)]


EVERY = pytest.param("en", "light", 2560, True, marks=pytest.mark.slow)


@pytest.mark.parametrize(("lang", "theme", "width", "every"), [("ja", "dark", 360, False), EVERY])
def test_no_page_bars_anybody(
    page: Any, paths: list[str], lang: str, theme: str, width: int, every: bool
) -> None:
    """By what axe-core finds, by sideways scrolling, and by keyboard; its focus is seen."""
    axe = (files(pytest.importorskip("axe_playwright_python")) / "axe.min.js").read_text("utf-8")
    page.emulate_media(color_scheme=theme)
    faults = []
    for path in paths if every else views(paths):
        page.set_viewport_size({"width": width, "height": 900})
        opened(page, path, lang)
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        faults += [
            (path, one["id"], [node["html"][:200] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in SERIOUS
        ]
        # one of a group of tabs or of radio buttons stands for all of them
        faults += [(path, "not reached", missed) for missed in page.evaluate(MISSED)]
        page.keyboard.press("Tab")
        if page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none":
            faults.append((path, "focus is not seen", []))
        for other in (2560, 360):
            page.set_viewport_size({"width": other, "height": 900})
            if page.evaluate("document.documentElement.scrollWidth") > other:
                faults.append((path, "too wide", [other]))
    assert faults == [], "\n".join(map(str, faults))


def test_without_script_every_view_names_a_report(
    browser: Any, address: str, paths: list[str]
) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    views, named = 0, set()
    told: dict[str, set[str]] = {}
    for path in paths:
        page.goto(f"{path}{'&' if '?' in path else '?'}lang=en", wait_until="domcontentloaded")
        assert page.locator("h1").count() == 1, path
        for text in page.locator("noscript p:nth-child(2)").filter(visible=True).all_inner_texts():
            told.setdefault(text.strip(), set()).add("/".join(path.split("/")[3:]))
        views += page.locator("noscript p:first-child").filter(visible=True).count()
        named |= {
            link.get_attribute("href")
            for link in page.locator("noscript a").all()
            if link.is_visible()
        }
    context.close()
    assert views > 8
    assert told["Spectra and findings of its last audit are in Audit 2 of images"] == {"spectra"}
    assert told["Without a script, this can be read: Audit 2 of images"] >= {"playground"}
    never = {"spectra"}  # no audit of a language model, but a trace
    assert told["No audit of it is in the history yet."] >= never
    assert told["Without a script, this can be read: trace.json"] == {"circuits"}
    for link in named:
        assert httpx.get(address + link, timeout=60).status_code == 200, link
    assert {"audits", "reports"} == {link.split("/")[1] for link in named}


@pytest.mark.slow
def test_hostile_names_stay_text(page: Any, paths: list[str]) -> None:
    for path in paths:
        opened(page, path, "en")
        assert page.locator("img[src=x]").count() == 0
    page.goto("/?lang=en")
    assert page.get_by_role("link", name=HOSTILE).count() == 1


def test_the_folder_has_every_kind_of_page(paths: list[str]) -> None:
    ends = {path.rpartition("/")[2] for path in paths}
    assert {"spectra", "playground", "mistakes"} <= ends


def test_a_file_compares_the_models_and_not_their_autoencoders(root: Path) -> None:
    names = ("images", HOSTILE, "table", "language/model")
    assert held_pairs(ServedFolder(root)) == [*combinations(sorted(map(id_of, names)), 2)]


APART = (  # hashes and commands, what people and data say, names of languages
    "#reproduce, code, pre, samp, q, script, style, option, [lang=en], .passage, .token, .graph, "
    ".languages"
)
READ = f"""() => {{
    const copy = document.body.cloneNode(true);
    copy.querySelectorAll({APART!r}).forEach(each => each.remove());
    copy.querySelectorAll("p, li, td, th, dd, dt, h1, h2, h3, h4, text, label, figcaption, button")
        .forEach(each => each.append(String.fromCharCode(10)));
    return copy.textContent;
}}"""
TYPED = "() => [...document.querySelectorAll('input[type=number]')].map(each => each.value)"
CLIPPED = """() => [...document.querySelectorAll("main svg text")].filter(each => {
    const [box, whole] = [each, each.ownerSVGElement].map(one => one.getBoundingClientRect());
    if (!each.textContent.trim() || each.closest(".graph")) return false;
    return box.top < whole.top - 1 || box.bottom > whole.bottom + 1
        || box.left < whole.left - 1 || box.right > whole.right + 1;
}).map(each => each.textContent)"""
FAULTS = {
    "more digits than anybody reads": r"\d[.,]\d{8,}",
    "a sign in front of a sign": "[−-] ?[−-] ?[0-9]",
    "percent written in another way": r"\d [%％]|％",
}
ENGLISH = r"(?:\b[A-Za-z][a-z'’]+\b[ ,;:]+){3,}[a-z]+"
NUMBER = re.compile(r"\d+\.\d{3,}")


def neighbours(line: str) -> list[tuple[str, str]]:
    """Pairs of numbers that are one value, written twice: the last digit or their count differs."""
    found = sorted({*NUMBER.findall(line)}, key=len)
    pairs = []
    for a, b in combinations(found, 2):
        digits, more = (len(one.partition(".")[2]) for one in (a, b))
        last_differs = abs(int(a.replace(".", "")) - int(b.replace(".", ""))) == 1
        if last_differs if digits == more else f"{float(b):.{digits}f}" == a:
            pairs.append((a, b))
    return pairs


def test_one_value_in_two_forms_is_found() -> None:
    assert neighbours("0.8416 0.8417") == [("0.8416", "0.8417")]
    assert neighbours("0.2417 beside 0.24174") == [("0.2417", "0.24174")]
    assert neighbours("0.2417 beside 0.24184, 0.25") == []


@pytest.mark.parametrize("lang", [pytest.param("en", marks=pytest.mark.slow), "ja"])
def test_every_page_reads_well(page: Any, paths: list[str], lang: str) -> None:
    """One number for a value, few digits, one way of percent, one language, nothing cut off."""
    documents = [f"/audits/{number}" for number in (1, 2, 3)]
    documents += [path.removesuffix("/circuits") for path in paths if path.endswith("/circuits")]
    page.set_viewport_size({"width": 1440, "height": 900})
    faults = []
    for path in [*paths, *documents]:
        opened(page, path, lang)
        text = page.evaluate(READ)
        checks = FAULTS | ({"English": ENGLISH} if lang == "ja" else {})
        for what, pattern in checks.items():
            faults += [(path, what, found[0]) for found in re.finditer(pattern, text)]
        faults += [
            (path, "two numbers", two) for line in text.split("\n") for two in neighbours(line)
        ]
        faults += [(path, "typed", value) for value in page.evaluate(TYPED) if len(value) > 11]
        if lang == "en":  # other fonts than those of this machine are as wide
            faults += [(path, "cut off", value) for value in page.evaluate(CLIPPED)]
        if path.endswith("/spectra"):
            bands = page.locator(".plot .band").evaluate_all(
                "all => all.map(x => x.height.baseVal.value)"
            )
            faults += (
                [(path, "band", bands)] if len(bands) != 2 or abs(bands[0] - bands[1]) > 0.1 else []
            )
    assert faults == [], "\n".join(map(str, faults))
