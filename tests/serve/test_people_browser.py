"""What people say, in a real browser: by mouse and by keyboard alone, nothing typed is lost.

Broken once: with the shown label not renewed after it was saved, with `after` not sent, with the
form's text lost where it is refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.serve.folder import id_of
from chromium import needs_browser
from commands import model_folder
from explorer_server import opened_page, served

pytestmark = needs_browser
KEY, SUBJECT = id_of("beta"), "class:1:positive:0"
HOSTILE = '<img src=x onerror="console.log(1)">'
ADD = f"""async () => {{
    const {{ nameable }} = await import("/static/people.js");
    const list = document.createElement("ul");
    for (const subject of ["{SUBJECT}", "{SUBJECT}", "latent:17"]) {{
        const item = document.createElement("li");
        item.append(nameable("{KEY}", subject));
        list.append(item);
    }}
    document.querySelector("main").prepend(list);
}}"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    model_folder(tmp_path / "runs" / "beta", tiny.classifier())
    return tmp_path / "runs"


@pytest.fixture
def page(browser: Any, root: Path) -> Iterator[Any]:
    with served(root) as address, opened_page(browser, address) as found:
        yield found


def test_a_label_is_set_by_mouse_and_shown_everywhere(page: Any, root: Path) -> None:
    bl.History(root).say("label", "beta", SUBJECT, HOSTILE, "Kei")
    page.goto(f"/models/{KEY}/spectra?lang=en")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.evaluate(ADD)
    page.get_by_text(HOSTILE).first.wait_for()
    assert page.locator(".nameable img").count() == 0
    assert sum(url.endswith(f"/api/v1/models/{KEY}") for url in asked) == 1
    page.get_by_role("button", name=f"Label: {SUBJECT}").first.click()
    assert page.get_by_label("Label", exact=True).input_value() == HOSTILE
    page.get_by_label("Label", exact=True).fill("loop of a 6")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Save the label").click()
    page.get_by_text("loop of a 6").nth(1).wait_for()
    assert page.locator(".nameable form").count() == 0
    assert [one.text for one in bl.History(root).entries("beta")] == ["loop of a 6", HOSTILE]
    page.get_by_role("button", name="Label: latent:17").click()
    assert page.get_by_label("Your name").input_value() == "Ada"  # remembered


def test_a_label_is_set_by_keyboard_alone(page: Any, root: Path) -> None:
    page.goto(f"/models/{KEY}/spectra?lang=ja")
    page.evaluate(ADD)
    page.get_by_role("button", name="ラベル: latent:17").focus()
    page.keyboard.press("Enter")
    page.get_by_label("ラベル", exact=True).wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.ariaLabel") == "ラベル: latent:17"
    page.keyboard.press("Enter")
    page.get_by_label("ラベル", exact=True).wait_for()
    page.keyboard.type("括弧を閉じる")
    page.keyboard.press("Tab")
    page.keyboard.type("圭")
    page.keyboard.press("Enter")
    page.locator(".label", has_text="括弧を閉じる").wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "ラベル: latent:17"
    (entry,) = bl.History(root).entries("beta")
    assert (entry.action, entry.subject, entry.author) == ("label", "latent:17", "圭")


def test_what_another_said_since_is_shown_before_anything_is_sent(page: Any, root: Path) -> None:
    page.goto(f"/models/{KEY}/spectra?lang=en")
    page.evaluate(ADD)
    page.get_by_role("button", name=f"Label: {SUBJECT}").first.click()
    page.get_by_label("Label", exact=True).fill("mine")
    page.get_by_label("Your name").fill("Ada")
    bl.History(root).say("label", "beta", SUBJECT, "theirs", "Kei")
    page.get_by_role("button", name="Save the label").click()
    page.get_by_role("alert").get_by_text("theirs").wait_for()
    assert page.get_by_label("Label", exact=True).input_value() == "mine"
    assert page.locator(".label").first.inner_text() == "theirs"
    page.get_by_role("button", name="Send all the same").click()
    page.locator(".label", has_text="mine").first.wait_for()
    assert [one.text for one in bl.History(root).entries("beta")] == ["mine", "theirs"]


def test_what_is_refused_is_said_and_stays(page: Any, root: Path) -> None:
    page.goto(f"/models/{KEY}/spectra?lang=en")
    page.evaluate(ADD)
    page.get_by_role("button", name=f"Label: {SUBJECT}").first.click()
    page.get_by_label("Label", exact=True).fill("mine")
    page.get_by_label("Your name").fill(" ")
    page.get_by_role("button", name="Save the label").click()
    page.get_by_text("author must not be empty").wait_for()
    assert page.get_by_label("Label", exact=True).input_value() == "mine"
    assert bl.History(root).entries("beta") == []
