"""Hostile text, wherever people and files can put it, is shown and never run.

Broken once: with a note put into the page unescaped (there and in the one file), with names put
there by a script as markup.
"""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

import bilens as bl
import tiny
import trace_documents
from bilens.report.reports import TraceReport
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder, id_of
from chromium import needs_browser
from commands import model_folder
from explorer_server import served
from report_documents import audit_of, failed

pytestmark = needs_browser
ACTS = (  # each would leave a mark in the window
    "<script>hit=1</script>",
    "<img src=x onerror=hit=1>",
    "<svg onload=hit=1>",
    "<svg><script>hit=1</script></svg>",
    "<iframe srcdoc='<script>parent.hit=1</script>'>",
    "<details open ontoggle=hit=1>",
    "<input autofocus onfocus=hit=1>",
    "<a href=javascript:hit=1 id=main>x</a>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=javascript:hit=1>",
    "<math><mtext><style><img src=x onerror=hit=1>",
    "<template><img src=x onerror=hit=1></template>",
    "javascript:hit=1",
    "{{constructor.constructor('hit=1')()}}",
    "${hit=1}",
    "&lt;img src=x onerror=hit=1&gt;",
)
BREAKS = ("", '">', "'>", "</script>", "--></title></textarea></noscript></template>")
PAYLOADS = [start + act for start, act in product(BREAKS, ACTS)]
NAMES = [text.replace("/", "∕") for text in PAYLOADS]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Payloads as names of models and classes, as tokens, labels, notes, authors and reasons."""
    folder = tmp_path_factory.mktemp("folder") / "runs"
    for index, name in enumerate(NAMES):
        classes = tuple(PAYLOADS[(3 * index + each) % len(PAYLOADS)] for each in range(3))
        model = tiny.classifier()
        model_folder(
            folder / name, model, output_names=tuple(f"{c}{i}" for i, c in enumerate(classes))
        )
    history = bl.History(folder)
    history.add(audit_of(folder / NAMES[0], failed()).record)
    for text in PAYLOADS:
        for subject in ("class:0:positive:0", f"column:{text}"[:200], "rule:exact"):
            history.say("label", NAMES[0], subject, text, text[:100])
            history.say("note", NAMES[0], subject, text, text[:100])
    history.say("accept", NAMES[0], "rule:exact", PAYLOADS[1], PAYLOADS[1], "2999-01-01")
    document = json.dumps(trace_documents.make_trace())
    for index, word in enumerate(trace_documents.WORDS):
        document = document.replace(json.dumps(word), json.dumps(PAYLOADS[3 * index + 1]))
    TraceReport(json.loads(document)).to_json(folder / "trace.json")
    return folder


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    found = browser.new_page()
    dialogs: list[str] = []
    found.on("dialog", lambda dialog: dialogs.append(dialog.message))
    yield found
    found.close()
    assert dialogs == []


def unharmed(page: Any) -> None:
    page.wait_for_selector("main:not(:has([aria-busy]))")
    page.locator("h1").first.wait_for()  # there is a page
    assert page.evaluate("typeof window.hit") == "undefined", page.url
    assert page.locator("base, iframe, meta[http-equiv=refresh], img[src=x]").count() == 0, page.url
    assert page.locator("[onerror], [onload], [onfocus], [ontoggle]").count() == 0, page.url


def test_there_are_many() -> None:
    assert len(set(PAYLOADS)) >= 60


def test_nothing_that_is_shown_is_run(page: Any, root: Path) -> None:
    with served(root) as address:
        page.goto(f"{address}/?lang=en")
        unharmed(page)
        page.get_by_role("button", name="more").click()  # which fetches all others
        page.locator("table.models tbody tr").nth(len(NAMES) - 1).wait_for()
        listed = page.locator("table.models tbody th a").all_inner_texts()
        assert set(NAMES) <= {text.strip() for text in listed}
        key, trace = id_of(NAMES[0]), id_of("trace.json")
        views = [link.get_attribute("href") for link in page.locator("main a[href]").all()]
        paths = [f"/models/{key}", f"/reports/{trace}", "/audits/1", *views[:4]]
        text = httpx.get(f"{address}/models/{key}").text
        paths += [
            part.split('"')[0] for part in text.split(' href="')[1:] if part.startswith("/models")
        ]
        text = httpx.get(f"{address}/").text
        paths += [part.split('"')[0] for part in text.split(' href="')[1:] if "/circuits?" in part]
        for path in dict.fromkeys(paths):
            page.goto(address + path.replace("&amp;", "&"))
            unharmed(page)


# compared with each other; with all payloads as names of classes
@pytest.mark.parametrize("models", [3, pytest.param(27, marks=pytest.mark.slow)])
def test_nothing_in_the_file_is_run(page: Any, root: Path, tmp_path: Path, models: int) -> None:
    few, file = tmp_path / "runs", tmp_path / "explorer.html"
    for name in NAMES[:models]:
        shutil.copytree(root / name, few / name)
    for path in (root / "trace.json", *root.glob("bilens.db*")):
        shutil.copy(path, few)
    file.write_text(export(ServedFolder(few), "en").html, "utf-8")
    first = id_of(NAMES[0])
    compared = re.findall(r'data-path="(/compare/\w+/\w+)" lang="en"', file.read_text("utf-8"))
    assert len(compared) == (3 if models == 3 else 0)
    for path in ("/", f"/models/{first}", f"/reports/{id_of('trace.json')}/circuits", *compared):
        page.goto("about:blank")
        page.goto(f"{file.as_uri()}#{path}")
        unharmed(page)
        assert page.get_by_text("This is not part of the file").count() == 0, path
    page.goto("about:blank")
    page.goto(f"{file.as_uri()}#/models/{first}")
    assert page.locator("h1").inner_text() == NAMES[0]
    assert page.locator("#people").get_by_text(PAYLOADS[1], exact=False).count() > 0
