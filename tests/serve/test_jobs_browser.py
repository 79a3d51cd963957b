"""Jobs in a real browser: started, watched and cancelled by keyboard, and read without a script.

Broken once: with rows exchanged without the focus, with events not listened to, with forms shown
to a browser that runs no script.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import fake_commands
import tiny
from bilens.records.explorer import id_of
from chromium import needs_browser
from commands import model_folder
from report_documents import audit_of

pytestmark = needs_browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("folder") / "runs"
    for name in ("quick", "slow"):
        model_folder(folder / name, tiny.classifier())
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    weights = bl.load(folder / "quick").weights_sha256
    audit_of(folder / "quick", weights_sha256=weights).to_json(folder / "document.json")
    on_the_way = ["say", "Layer 1: 1/2"]
    plan = {"quick": [on_the_way, ["remember"]], "slow": [on_the_way, ["sleep", 60]]}
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", fake_commands.install(folder.parent / "python"))
        yield folder


def focused(page: Any) -> str:
    return str(page.evaluate("document.activeElement.getAttribute('aria-label')"))


def test_an_audit_is_started_by_keyboard_and_followed_to_its_report(page: Any) -> None:
    page.goto(f"/models/{id_of('quick')}?lang=en")
    page.get_by_role("navigation", name="Views of this model").get_by_text("Jobs").press("Enter")
    page.wait_for_url("**/jobs?lang=en")
    page.locator("summary", has_text="Audit").press("Enter")
    form = page.get_by_role("form", name="Audit")
    assert form.get_by_label("Data", exact=True).locator("option").all_inner_texts() == [
        "none",
        "rows.csv",
    ]
    form.get_by_label("Data", exact=True).select_option("rows.csv")
    form.get_by_label("Conditions").press_sequentially("nothing")
    form.get_by_role("button", name="Start").press("Enter")
    page.get_by_text("there is no rule 'nothing'").wait_for()
    form.get_by_label("Conditions").fill("exact\nr2<0.9\n")
    form.get_by_role("button", name="Start").press("Enter")
    page.get_by_text("Asked for as job 1.").wait_for()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="1", exact=True))
    row.get_by_role("link", name="Report of job 1").wait_for()
    page.get_by_role("status").get_by_text("Job 1: done").wait_for()
    page.get_by_role("link", name="1", exact=True).press("Enter")
    command = "bilens audit --history=. --data=rows.csv --fail-on=exact '--fail-on=r2<0.9' -- quick"
    assert page.locator("pre").first.inner_text() == command
    page.get_by_text("Recorded as audit 1").wait_for()
    page.get_by_role("link", name="Report of job 1").press("Enter")
    page.wait_for_url("**/audits/1?lang=en")


def test_a_job_is_cancelled_by_keyboard_and_by_mouse_and_the_place_is_kept(page: Any) -> None:
    page.goto(f"/models/{id_of('slow')}/jobs?lang=en")
    page.locator("summary", has_text="Explanation").press("Enter")
    form = page.get_by_role("form", name="Explanation")
    form.get_by_label("Test input").press_sequentially("3")
    form.get_by_role("button", name="Start").press("Enter")
    page.get_by_text("Layer 1: 1/2").wait_for()  # it came by itself
    bar = page.get_by_role("progressbar", name="Progress of job")
    assert [bar.get_attribute(name) for name in ("value", "max")] == ["1", "2"]
    page.goto("/jobs?lang=ja")
    page.get_by_text("2中1").wait_for()
    words = page.locator("[lang=en]", has_text="Layer 1: 1/2")
    assert words.evaluate("each => each.parentElement.textContent").startswith("コマンドの出力：")
    page.goto("/jobs?lang=en")
    page.get_by_text("Layer 1: 1/2").wait_for()
    cancel = page.get_by_role("button", name="Cancel job")
    cancel.focus()
    name = focused(page)
    assert name.startswith("Cancel job")
    cancel.press("Enter")
    page.get_by_role("status").get_by_text("cancelled").last.wait_for()
    page.get_by_role("cell", name="cancelled", exact=True).wait_for()
    row = page.evaluate("document.activeElement.closest('tr').cells[0].textContent")
    assert name == f"Cancel job {row}"
    page.goto(f"/models/{id_of('slow')}/jobs?lang=en")
    page.locator("summary", has_text="Explanation").click()
    form.get_by_label("Test input").fill("3")
    form.get_by_role("button", name="Start").click()
    cancel.click()
    page.get_by_role("cell", name="cancelled", exact=True).nth(1).wait_for()


def test_the_queue_is_read_without_a_script(browser: Any, address: str) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/jobs?lang=ja")
    page.get_by_role("cell", name="中止済み").first.wait_for()
    page.goto(f"/models/{id_of('slow')}/jobs?lang=en")
    assert "This view is drawn by a script" in page.content()
    assert not page.get_by_role("button", name="Start").count()
    context.close()


@pytest.mark.slow  # every page is looked at in test_explorer_pages.py, on fewer models
@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for lang in ("en", "ja"):
        for place in ("/jobs", "/jobs/1", f"/models/{id_of('slow')}/jobs"):
            page.goto(f"{place}?lang={lang}")
            for summary in page.locator("summary").all():
                summary.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
