"""What people say, in a real browser: by mouse and by keyboard alone, nothing typed is lost.

Broken once: with the shown label not renewed after it was saved, with `after` not sent, with the
form's text lost where it is refused, with the secret of an earlier start kept, with what the page
says of itself left as it was after an entry, with "Failed to fetch" shown.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens_explorer.folder import id_of
from chromium import needs_browser
from commands import model_folder
from explorer_server import opened_page, served
from report_documents import audit_of, failed

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
    root = tmp_path / "runs"
    model_folder(root / "beta", tiny.classifier())
    bl.History(root).add(audit_of(root / "beta", failed()).record)
    return root


@pytest.fixture
def page(browser: Any, root: Path) -> Iterator[Any]:
    with served(root) as address, opened_page(browser, base_url=address) as found:
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def finding(page: Any, title: str) -> Any:
    return page.locator("article.finding").filter(has=page.get_by_role("heading", name=title))


def test_a_finding_is_accepted_and_taken_back_by_keyboard_alone(page: Any, root: Path) -> None:
    page.goto(f"/models/{KEY}?lang=en")
    found = finding(page, "Residual of eigenvalues")
    found.get_by_role("button", name="Accept").focus()
    page.keyboard.press("Enter")
    found.get_by_label("Why").wait_for()
    page.keyboard.type("known")
    page.keyboard.press("Tab")
    page.keyboard.type("01312999")
    found.get_by_label("Your name").focus()
    page.keyboard.type("圭")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    found.get_by_text("Accepted until 2999-01-31").wait_for()
    assert set(bl.History(root).accepted("beta")) == {"complete"}
    assert page.evaluate("document.activeElement.ariaLabel") == "Accept: Residual of eigenvalues"
    found.get_by_role("button", name="Take back").press("Enter")
    found.get_by_label("Why").wait_for()
    page.keyboard.press("Tab")  # no reason is needed, and the name is remembered
    page.keyboard.press("Enter")
    found.get_by_text("took it back").wait_for()
    assert found.get_by_text("Accepted until").count() == 0
    assert not found.get_by_role("button", name="Take back").is_visible()
    assert bl.History(root).accepted("beta") == {}
    found.get_by_role("button", name="Reject").press("Enter")
    found.get_by_label("Why").wait_for()
    page.keyboard.type("no fault")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    found.locator("q", has_text="no fault").wait_for()
    assert bl.History(root).entries("beta")[0].action == "reject"


@pytest.mark.slow
def test_a_note_is_on_a_finding_and_others_forms_stay(page: Any, root: Path) -> None:
    page.goto(f"/models/{KEY}?lang=en")
    whole, found = finding(page, "The model as a whole"), finding(page, "Residual of eigenvalues")
    whole.get_by_role("button", name="Note").click()
    whole.get_by_label("Note", exact=True).fill("for later")
    found.get_by_role("button", name="Note").click()
    found.get_by_label("Note", exact=True).fill(HOSTILE)
    found.get_by_label("Your name").fill(HOSTILE)
    found.get_by_role("button", name="Save the note").click()
    found.locator("q", has_text=HOSTILE).wait_for()
    assert whole.get_by_label("Note", exact=True).input_value() == "for later"
    (entry,) = bl.History(root).entries("beta")
    assert (entry.action, entry.subject, entry.text) == ("note", "rule:complete", HOSTILE)
    page.reload()
    found.locator("q", has_text=HOSTILE).wait_for()
    assert page.locator("article img").count() == 0
    whole.get_by_role("button", name="Note").press("Enter")
    whole.get_by_label("Note", exact=True).wait_for()
    page.keyboard.type("by keys")
    page.keyboard.press("Tab")  # the name is remembered
    page.keyboard.press("Enter")
    whole.locator("q", has_text="by keys").wait_for()
    for way in ("Accept", "Reject"):
        found.get_by_role("button", name=way).click()
        found.get_by_label("Why").fill(f"{way} by mouse")
        found.locator("form button").first.click()
        found.locator("q", has_text=f"{way} by mouse").wait_for()
    assert [one.action for one in bl.History(root).entries("beta")][:2] == ["reject", "accept"]


def noted(page: Any, text: str) -> Any:
    """The model as a whole, with a note that is written and not yet sent."""
    whole = finding(page, "The model as a whole")
    whole.get_by_role("button", name="Note").click()
    whole.get_by_label("Note", exact=True).fill(text)
    whole.get_by_label("Your name").fill("Ada")
    return whole


@pytest.mark.slow
def test_after_an_own_entry_the_page_is_of_today(page: Any, root: Path) -> None:
    page.clock.install()
    page.goto(f"/models/{KEY}?lang=en")
    noted(page, "seen").get_by_role("button", name="Save the note").click()
    page.locator("#people q", has_text="seen").wait_for()
    assert page.get_by_text("Nobody has said anything yet").count() == 0
    found = finding(page, "Residual of eigenvalues")
    found.get_by_role("button", name="Accept").click()
    found.get_by_label("Why").fill("known")
    day = found.get_by_label("UTC")
    assert day.get_attribute("min") == page.evaluate("new Date().toISOString().slice(0, 10)")
    found.get_by_role("button", name="Accept the finding").click()
    found.get_by_text(re.compile("^Accepted")).first.wait_for()
    with page.expect_response("**/state"):
        page.clock.fast_forward(10_000)
    page.wait_for_timeout(100)
    assert page.get_by_text("Something changed here").count() == 0
    bl.History(root).say("note", "beta", "model", "theirs", "Kei")
    noted(page, "more").get_by_role("button", name="Save the note").click()
    page.get_by_role("button", name="Send all the same").wait_for()
    with page.expect_response("**/state"):
        page.clock.fast_forward(60_000)
    page.get_by_text("Something changed here").wait_for()  # what another said is not taken over


@pytest.mark.slow
def test_a_note_outlives_a_restart_of_the_server(page: Any, root: Path) -> None:
    of_earlier = re.compile('"secret": "[^"]+"')
    address = f"**/models/{KEY}?lang=en"

    def earlier(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(
            response=answer, body=of_earlier.sub('"secret": "of an earlier start"', answer.text())
        )

    page.route(address, earlier)
    page.goto(f"/models/{KEY}?lang=en")
    assert "of an earlier start" in page.locator("#given").text_content()
    page.unroute(address)
    noted(page, "typed before").get_by_role("button", name="Save the note").click()
    page.locator("#people q", has_text="typed before").wait_for()
    assert [one.text for one in bl.History(root).entries("beta")] == ["typed before"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silent", "no JSON"])
def test_where_nobody_answers_a_sentence_says_so(page: Any, how: str) -> None:
    page.goto(f"/models/{KEY}?lang=ja")
    page.route(
        "**/api/v1/**",
        lambda route: route.fulfill(body="<p>") if how != "silent" else route.abort(),
    )
    whole = page.locator("article.finding").last
    whole.get_by_role("button", name="メモ").click()
    whole.get_by_label("メモ", exact=True).fill("書いた")
    whole.get_by_label("お名前").fill("圭")
    whole.get_by_role("button", name="メモを保存").click()
    whole.get_by_role("alert").get_by_text("エクスプローラーが応答しません").wait_for()
    assert whole.get_by_label("メモ", exact=True).input_value() == "書いた"


@pytest.mark.slow
def test_the_summary_is_read_at_any_width(page: Any) -> None:
    for lang, name in (("en", "A4 summary of the last audit"), ("ja", "最新の監査の要約（A4）")):
        page.goto(f"/models/{KEY}?lang={lang}")
        page.get_by_role("link", name=name).press("Enter")
        page.wait_for_url("**/summary?*")
        assert page.get_by_role("heading", level=1).inner_text() == "beta"
        page.locator(".badge").first.evaluate("badge => badge.append(' and 長い判定'.repeat(9))")
        for width in (360, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_where_nothing_can_be_kept_nothing_is_offered(page: Any) -> None:
    page.route(
        f"**/api/v1/models/{KEY}",
        lambda route: route.fulfill(json=route.fetch().json() | {"writable": False}),
    )
    page.goto(f"/models/{KEY}?lang=en")
    page.evaluate(ADD)
    for button in (page.locator(".nameable button"), page.locator("article button")):
        button.first.wait_for(state="hidden")
        assert button.count() > 0


def test_a_label_of_other_weights_is_marked_whatever_was_audited(page: Any, root: Path) -> None:
    """It stood unmarked at an eigenvector of weights that were saved since the audit."""
    bl.History(root).say("label", "beta", "class:0:positive:0", "loop of a 6", "Kei")
    at = f"/models/{KEY}/spectra?lang=en&layer=layers.0&output=0&vector=1"
    shown = page.locator(".nameable", has_text="loop of a 6")
    page.goto(at)
    shown.wait_for()
    assert shown.locator("small").inner_text() == ""
    model_folder(root / "beta", tiny.classifier(seed=4), overwrite=True)
    page.goto(at)
    shown.get_by_text("given for other weights").wait_for()
    shown.get_by_role("button", name="Label").click()
    page.get_by_label("Label", exact=True).fill("stroke of a 7")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Save the label").click()
    fresh = page.locator(".nameable", has_text="stroke of a 7")
    fresh.wait_for()
    assert fresh.locator("small").inner_text() == ""  # it is of what is drawn
    model_folder(root / "beta", tiny.classifier(), overwrite=True)
    page.goto(at)
    fresh.get_by_text("given for other weights").wait_for()
