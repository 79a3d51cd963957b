"""The explorer in a real browser: by mouse and keyboard, at every width, without a complaint.

Broken once: with the script's file refused by the policy, with a table wider than the window.
"""

from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens_explorer.records.models import id_of
from chromium import needs_browser
from commands import model_folder
from report_documents import audit_of, failed, make_document

pytestmark = needs_browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "runs"
    for name in ("alpha", "beta", "x" * 120):
        model_folder(folder / name, tiny.classifier())
    history = bl.History(folder)
    for document in (make_document(), failed()):
        history.add(audit_of(folder / "beta", document).record)
    return folder


def shown(page: Any) -> list[str]:
    rows = page.locator("table.models tbody tr")
    return [row.locator("a").inner_text() for row in rows.all() if row.is_visible()]


@pytest.mark.slow
def test_models_are_searched_and_sorted(page: Any) -> None:
    page.goto("/?lang=en")
    assert shown(page)[0] == "beta"
    page.get_by_role("searchbox").fill("alpha")
    assert shown(page) == ["alpha"]
    assert page.locator(".controls output").inner_text() == "1 of 3"
    page.reload()  # the address keeps what was searched
    assert shown(page) == ["alpha"]
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Model").press("Enter")
    assert shown(page)[:2] == ["alpha", "beta"]
    page.get_by_role("button", name="Model").click()
    assert shown(page)[1:] == ["beta", "alpha"]


def test_models_are_searched_and_chosen_by_keyboard_alone(page: Any) -> None:
    page.goto("/?lang=en")
    page.get_by_role("searchbox").focus()
    page.keyboard.type("eta")
    assert shown(page) == ["beta"]
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.press("Tab")
    page.keyboard.type("Not audited")  # of the decisions
    assert set(shown(page)) == {"alpha", "x" * 120}
    page.get_by_role("link", name="日本語").press("Enter")
    page.wait_for_url("**lang=ja**")
    assert set(shown(page)) == {"alpha", "x" * 120}


def test_models_are_chosen_by_decision_and_rule_and_the_address_keeps_it(page: Any) -> None:
    page.goto("/?lang=en")
    page.get_by_label("Decision").select_option("never")
    assert set(shown(page)) == {"alpha", "x" * 120}
    page.get_by_label("Decision").select_option("")
    page.get_by_label("Rule", exact=True).select_option("exact")
    page.get_by_role("button", name="Audited (UTC)").press("Enter")
    page.reload()
    assert shown(page) == ["beta"]
    assert page.locator("th[aria-sort=ascending]").inner_text() == "Audited (UTC)"
    page.get_by_role("link", name="日本語").click()
    page.wait_for_url("**lang=ja**")
    assert shown(page) == ["beta"]


def test_two_models_are_chosen_for_a_comparison_by_keyboard_and_by_mouse(page: Any) -> None:
    page.goto("/?lang=en")
    link = page.get_by_role("link", name="Compare the two")
    for name in ("alpha", "beta"):
        assert not link.is_visible()
        page.get_by_role("checkbox", name=f"Compare {name}").press("Space")
    both = {id_of("alpha"), id_of("beta")}
    asked = dict(part.split("=") for part in link.get_attribute("href").split("?")[1].split("&"))
    assert {asked["a"], asked["b"]} == both
    page.get_by_role("checkbox", name="Compare beta").press("Space")
    assert not link.is_visible()
    page.get_by_role("checkbox", name="Compare beta").click()
    link.click()
    page.get_by_role("heading", name="Comparison").wait_for()


@pytest.mark.slow
def test_a_change_is_said_and_nothing_that_was_typed_is_lost(
    page: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilens_explorer.folder.FRESH", 0.0)
    page.goto(f"/models/{id_of('beta')}?lang=en")
    page.get_by_role("button", name="Note").first.click()
    page.locator("textarea").fill("half a thought")
    look = "dispatchEvent(new Event('online'))"
    with page.expect_response("**/state"):
        page.evaluate(look)
    assert page.get_by_role("button", name="Load again").count() == 0
    bl.History(root).say("note", "beta", "model", "from elsewhere", "Kei")
    page.evaluate(look)
    again = page.get_by_role("button", name="Load again")
    again.wait_for()
    page.once("dialog", lambda asked: asked.dismiss())
    again.click()
    assert page.locator("textarea").input_value() == "half a thought"
    (root / "beta").rename(root.parent / "away")
    page.evaluate(look)
    page.get_by_text("no longer in the folder").first.wait_for()
    (root.parent / "away").rename(root / "beta")


@pytest.mark.slow
def test_on_a_narrow_page_cells_have_names_and_heads_stay(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto("/?lang=en")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="beta"))
    cells = row.get_by_role("cell")  # the box and the decision, with which a card begins, need none
    names = [cells.nth(place).get_attribute("data-label") for place in range(2, 6)]
    before = "each => getComputedStyle(each, '::before').content"
    assert [cells.nth(place).evaluate(before) for place in range(2, 6)] == [
        f'"{one}"' for one in names
    ]
    assert all(names)
    assert page.get_by_role("columnheader").count() == 7
    page.get_by_role("button", name="Model").click()
    assert shown(page)[0] == "alpha"


@pytest.mark.slow
def test_all_columns_are_seen_on_a_desk(page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    for lang in ("en", "ja"):
        page.goto(f"/?lang={lang}")
        box = page.locator(".scroll:has(table.models)")
        assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0
