"""A text in a real browser: typed, its tokens chosen by mouse and by keys, hostile text is text.

Broken once: with the chosen token not kept in the address, with tokens coloured by no latent.
"""

import re
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
from bilens_explorer.folder import id_of
from chromium import needs_browser
from traced_folder import HOSTILE, write_traced

pytestmark = needs_browser
PAGE = f"/models/{id_of('model')}/text?lang=en"
API = f"/api/v1/models/{id_of('model')}/text"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "runs"
    trace = write_traced(root)
    history, sae = bl.History(root), trace.saes[0]
    for latent in range(sae.num_latents):
        about = f"latent:{sae.hook}:{sae.weights_sha256[:8]}:{latent}"
        history.say("label", "model", about, HOSTILE[latent], HOSTILE[-1])
    return root


def typed(page: Any, text: str) -> Any:
    """The last answer that is asked for, read from the page's own request."""
    with page.expect_response(
        lambda one: one.url.endswith(API) and one.request.method == "POST"
    ) as answer:
        page.get_by_role("textbox").first.fill(text)
    found = answer.value.json()
    heading = re.compile(f"^{len(found['tokens'])} tokens?$")
    page.get_by_role("heading", name=heading).wait_for()
    return found


def opened(page: Any, address: str = PAGE) -> None:
    page.goto(address)
    page.locator(".read").wait_for()


def test_what_is_typed_is_read(page: Any) -> None:
    opened(page)
    found = typed(page, "Anna was not happy .")
    assert page.locator(".read mark").count() == 5
    first = page.locator(".named-bars tbody tr").first.locator("td").last.inner_text()
    assert float(first) == pytest.approx(found["next"][0]["probability"], rel=1e-3)
    circuits = page.get_by_role("region", name=re.compile("^Circuits at"))
    for row, one in zip(
        circuits.locator("tbody tr").all(), found["latents"]["circuits"], strict=True
    ):
        cells = [cell.replace("−", "-") for cell in row.locator("td").all_inner_texts()]
        assert cells[1] == ("yes" if one["activations"][-1] else "no")
        assert float(cells[3]) == pytest.approx(one["values"][-1], rel=6e-3)
    page.get_by_label("Latents and circuits of").select_option("")
    circuits.wait_for(state="detached")
    assert page.locator(".read mark").count() == 5


@pytest.mark.slow
def test_tokens_are_walked_and_chosen_by_keys(page: Any) -> None:
    opened(page)
    typed(page, "The cake was good .")
    page.locator(".read mark[aria-current]").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=re.compile("What may follow “was”")).wait_for()
    page.wait_for_url("**token=2**")
    page.reload()
    page.get_by_role("heading", name=re.compile("What may follow “was”")).wait_for()
    assert page.locator(".read mark[aria-current]").inner_text().startswith("was")
    page.locator(".read mark").nth(1).click()
    page.get_by_role("heading", name=re.compile("What may follow “cake”")).wait_for()
    page.get_by_role("textbox").first.press("Control+End")
    page.keyboard.type(" The")
    page.get_by_role("heading", name=re.compile("What may follow “The”")).wait_for()


@pytest.mark.slow
def test_tokens_are_coloured_by_a_latent(page: Any) -> None:
    opened(page)
    found = typed(page, "The cake was good .")
    one = found["latents"]["outputs"]["latents"][0]
    page.get_by_label("Colour").first.select_option(f"out:{one['latent']}")
    values = [text.strip() for text in page.locator(".read .value").all_text_contents()]
    numbers = [float(value.replace("−", "-")) for value in values]
    assert numbers == pytest.approx([0, *one["activations"]], rel=6e-3)
    grounds = page.locator(".read mark").evaluate_all(
        "all => all.map((one) => one.style.background)"
    )
    assert [bool(ground) for ground in grounds][1:] == [value > 0 for value in one["activations"]]
    button = page.locator("[data-shade^='in:']").first
    button.press("Enter")
    assert page.locator("[data-shade][aria-pressed='true']").count() == 1


@pytest.mark.slow
def test_hostile_texts_and_labels_are_text(page: Any) -> None:
    opened(page)
    shown = ""
    for at in range(0, len(HOSTILE), 2):
        typed(page, " ".join(HOSTILE[at : at + 2]))
        shown += page.locator("main").text_content()
    assert sum(payload in shown for payload in HOSTILE[:12]) >= 8  # the labels
    assert (
        page.locator("main :is(script, img, iframe, object, embed, math, base, style)").count() == 0
    )
    page.get_by_role("textbox").first.fill("")
    page.locator(".read").wait_for(state="detached")
