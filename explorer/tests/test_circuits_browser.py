"""The circuits of a trace in a real browser: by mouse and by keyboard alone, hostile text is text.

Broken once: with the coefficient of a pair not doubled, with the search deaf to labels, with a
token set as markup.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
from bilens.records.mlp_trace import Trace
from bilens.report.circuit_graph import latent_subject
from bilens_explorer.folder import id_of
from chromium import needs_browser
from explorer_server import served
from trace_documents import make_trace
from traced_folder import HOSTILE, write_traced

pytestmark = needs_browser
PAGE = f"/reports/{id_of('trace.json')}/circuits?lang=en"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folder") / "runs"


@pytest.fixture(scope="module")
def trace(root: Path) -> Trace:
    found = write_traced(root)
    subject = latent_subject(found, found.circuits[1].latent, output=True)
    bl.History(root).say("label", "model", subject, "ending of tales", "Ada")
    document = make_trace()
    hostile = iter(HOSTILE * 99)
    for one in document["input_latents"] + [each["output"] for each in document["circuits"]]:
        for context in one["contexts"]:
            context["tokens"] = [next(hostile) for _ in context["tokens"]]
        for token in one["tokens"]["high"] + one["tokens"]["low"]:
            token["text"] = next(hostile)
    for ranked, text in zip(document["ranking"], HOSTILE, strict=False):
        ranked["peak"] = text
    document["circuits"][0]["causal"]["behaviour"] = {"high": HOSTILE[:3], "low": HOSTILE[3:5]}
    document["source"] |= {"path": "model", "weights_sha256": found.source.weights_sha256}
    (root / "hostile.json").write_text(json.dumps(document))
    sae = document["saes"][0]
    for latent, text in ((1, HOSTILE[0]), (4, HOSTILE[1]), (6, HOSTILE[2])):
        about = f"latent:{sae['hook']}:{sae['weights_sha256'][:8]}:{latent}"
        bl.History(root).say("label", "model", about, text, HOSTILE[3])
    return found


@pytest.fixture(scope="module")
def address(root: Path, trace: Trace) -> Iterator[str]:
    assert trace.circuits
    with served(root) as found:
        yield found


def opened(page: Any, more: str = "") -> Any:
    page.goto(PAGE + more)
    page.locator(".graph .node").first.wait_for()
    return page.locator(".graph")


def drawn(page: Any, column: int) -> list[str]:
    found: list[str] = page.locator(f".graph .column-{column} title").all_inner_texts()
    return found or page.locator(f".graph .column-{column} title").all_text_contents()


def window(page: Any) -> list[float]:
    return [float(part) for part in page.locator(".graph").get_attribute("viewBox").split()]


def test_numbers_are_those_of_the_record(page: Any, trace: Trace) -> None:
    opened(page, "&least=0")
    circuit = trace.circuits[0]
    facts = page.locator(".circuit > .facts-list dd").all_inner_texts()
    assert facts[1] == str(len(circuit.features))
    assert float(facts[2].rstrip("%").replace("−", "-")) == pytest.approx(
        100 * (circuit.share_of_variance or 0), abs=0.06
    )
    first, second = circuit.features[:2]
    z = f"z{first} · z{second}"
    page.locator(f'.node[data-id="pair:{first}x{second}"]').press("Enter")
    told = page.locator(".details tbody tr", has=page.get_by_text(z, exact=True)).first
    value = float(told.locator("td").nth(2).inner_text().replace("−", "-"))
    assert value == pytest.approx(2 * circuit.matrix[0][1], rel=1e-3)
    assert len(page.locator(".circuit-list tbody tr").all()) == len(trace.ranking)
    page.get_by_label("Numbers", exact=True).select_option("context")
    told = page.locator(".circuit .quiet", has_text="add up to").inner_text()
    z_there = circuit.example
    total = circuit.constant + sum(
        z_there[m] * (circuit.linear[m] + sum(a * b for a, b in zip(row, z_there, strict=True)))
        for m, row in enumerate(circuit.matrix)
    )
    said = re.search(r"add up to (\S+);", told)
    assert said is not None
    assert float(said[1].replace("−", "-")) == pytest.approx(total, rel=1e-3)


@pytest.mark.slow
def test_search_finds_tokens_latents_and_labels(page: Any, trace: Trace) -> None:
    opened(page)
    first, second = trace.circuits[:2]

    def found(text: str) -> list[str]:
        page.get_by_role("searchbox").fill(text)
        rows = page.locator(".circuit-list tbody tr td:nth-child(2)").all_inner_texts()
        return [row.strip() for row in rows]

    page.locator(".circuit-list").get_by_text("ending of tales").wait_for()
    assert found("of tales") == [str(second.latent)]
    assert str(first.latent) in found(first.output.tokens.high[0].text.strip())
    assert str(first.latent) in found(str(first.features[0]))
    assert found("no such word anywhere") == []
    assert found(str(second.latent))
    page.reload()
    assert page.get_by_role("searchbox").input_value() == str(second.latent)


@pytest.mark.slow
def test_the_list_is_sorted_by_numbers_and_stays_so(page: Any) -> None:
    page.goto(PAGE)
    page.locator(".circuit-list thead button").nth(6).click()
    shown = "rows => rows.map(row => Number(row.cells[6].dataset.value))"
    rows = page.locator(".circuit-list tbody tr")
    before = rows.evaluate_all(shown)
    assert before == sorted(before)
    assert len({*before}) > 1
    page.locator("#circuit-search").press_sequentially(" ")
    assert rows.evaluate_all(shown) == before
    page.evaluate("""() => {
        const body = document.querySelector(".circuit-list tbody");
        body.rows[0].cells[6].dataset.value = "";
        body.rows[1].cells[6].dataset.value = "1e-9";
    }""")
    page.locator(".circuit-list thead button").nth(6).click()
    values = rows.evaluate_all("rows => rows.map(row => row.cells[6].dataset.value)")
    assert values[-2:] == ["1e-9", ""]  # the smallest, and behind it what is not known


def test_the_causal_check_is_told_or_why_there_is_none(page: Any, trace: Trace) -> None:
    opened(page)
    made = [one.latent for one in trace.circuits if one.causal.behaviour is not None]
    for circuit in trace.circuits:
        page.get_by_role("button", name=f"Circuit of latent {circuit.latent}", exact=True).click()
        there = page.get_by_text("No causal check was made").count() == 0
        assert there == (circuit.latent in made)
    check = next(one for one in trace.circuits if one.latent in made).causal.checks[0]
    page.get_by_role("button", name=f"Circuit of latent {made[0]}", exact=True).press("Enter")
    numbers = page.get_by_role("region", name="Causal check in numbers").locator("td")
    before = numbers.nth(2).inner_text().split()[0].replace("−", "-")
    assert float(before) == pytest.approx(check.before.value, rel=1e-3)
    if check.before.low > 0:
        share = numbers.nth(4).inner_text().split("%")[0].replace("−", "-")
        assert float(share) == pytest.approx(100 * check.share.value, abs=0.06)
    else:  # it is a quotient by what may be zero
        assert numbers.nth(4).inner_text() == "—"
        assert page.get_by_text("the behaviour holds zero, so that no share").count() > 0


@pytest.mark.slow
def test_the_graph_by_mouse(page: Any, trace: Trace) -> None:
    graph = opened(page)
    first, second = trace.circuits[0].features[:2]
    before = window(page)
    page.mouse.move(*middle(graph))
    page.mouse.down()
    page.mouse.move(middle(graph)[0] + 80, middle(graph)[1] + 40, steps=4)
    page.mouse.up()
    assert window(page)[0] < before[0]
    assert window(page)[2] == before[2]
    page.locator(f'.node[data-id="in:{first}"]').click()
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"document.querySelector('.graph').viewBox.baseVal.width < {before[2]}")
    page.get_by_role("button", name="Fit").click()
    page.get_by_role("slider").fill("100")
    fewest = page.locator(".graph .node").count()
    page.get_by_role("slider").fill("0")
    assert page.locator(".graph .node").count() > fewest
    page.locator(f'.node[data-id="in:{second}"]').click()
    assert page.locator(f'.node[data-id="in:{second}"].here').count() == 1


def middle(graph: Any) -> tuple[float, float]:
    """A place of the graph where no node is."""
    graph.scroll_into_view_if_needed()
    box = graph.bounding_box()
    return box["x"] + 8, box["y"] + box["height"] - 12


def test_the_graph_by_keyboard_alone(page: Any, trace: Trace) -> None:
    graph = opened(page, "&least=0")
    page.get_by_role("button", name="Fit").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('.graph')")
    before = window(page)
    page.keyboard.press("ArrowRight")
    assert window(page)[0] > before[0]
    page.keyboard.press("+")
    assert window(page)[2] < before[2]
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert window(page) == before  # it opens whole
    page.keyboard.press("Tab")
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert page.locator(".node.column-1.here").count() == 1
    page.get_by_role("slider").press("ArrowRight")
    page.get_by_text("5%", exact=True).wait_for()
    page.get_by_role("slider").press("ArrowLeft")
    page.locator(".node.here").press("ArrowRight")
    page.keyboard.press("Enter")
    assert "Product" in page.locator(".details h4").first.inner_text()
    subject = latent_subject(trace, trace.circuits[0].latent, output=True)
    page.locator(".node.here").press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator(".details").get_by_role("button", name=re.compile("^Label: ")).press("Enter")
    page.keyboard.type("tale")
    page.get_by_label("Your name").press_sequentially("Kei")
    page.keyboard.press("Enter")
    page.locator(".graph .column-3", has_text="tale").wait_for()
    said = page.evaluate(f"fetch('/api/v1/models/{id_of('model')}').then((one) => one.json())")
    assert said["entries"][0]["subject"] == subject
    assert graph.get_attribute("aria-label")


@pytest.mark.slow
def test_the_graph_is_taken_away(page: Any, trace: Trace) -> None:
    circuit = trace.circuits[0]
    opened(page, f"&circuit={circuit.latent}")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="JSON of circuit-tracer").click()
    found = json.loads(Path(waiting.value.path()).read_text())
    nodes = [one["node_id"] for one in found["nodes"]]
    assert found["qParams"]["pinnedIds"] == nodes[: len(circuit.features) + 1]
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Circuit of latent {circuit.latent} as SVG").press("Enter")
    picture = Path(waiting.value.path()).read_text()
    assert f"z{circuit.features[0]}" in picture
    assert picture.startswith("<svg")


def test_hostile_tokens_and_labels_are_text(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.goto(PAGE.replace(id_of("trace.json"), id_of("hostile.json")) + "&least=0")
    page.get_by_text(HOSTILE[1]).first.wait_for()
    for latent in ("in:1", "in:4", "out"):
        page.locator(f'.node[data-id="{latent}"]').press("Enter")
    text = page.locator("main").text_content()
    assert sum(payload in text for payload in HOSTILE) >= 20
    inside = (
        "main :is(script, img, iframe, object, embed, math, form[action], base, style, a[href^=j])"
    )
    assert page.locator(inside).count() == 0
    assert not [url for url in asked if "example.invalid" in url]


@pytest.mark.slow
def test_two_fingers_zoom_and_one_moves_the_graph(browser: Any, address: str) -> None:
    context = browser.new_context(base_url=address, has_touch=True, is_mobile=True)
    page = context.new_page()
    place = middle(opened(page))
    hand = context.new_cdp_session(page)

    def touch(kind: str, *fingers: float) -> None:
        points = [{"x": place[0] + at, "y": place[1], "id": k} for k, at in enumerate(fingers)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    before = window(page)
    touch("touchStart", 20, 60)
    for step in range(1, 8):
        touch("touchMove", 20, 60 + 10 * step)
    touch("touchEnd")
    page.wait_for_function(f"document.querySelector('.graph').viewBox.baseVal.width < {before[2]}")
    zoomed = window(page)
    touch("touchStart", 100)
    for step in range(1, 8):
        touch("touchMove", 100 - 10 * step)
    touch("touchEnd")
    page.wait_for_function(f"document.querySelector('.graph').viewBox.baseVal.x > {zoomed[0]}")
    assert window(page)[2] == zoomed[2]
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["view=a,b,c", "least=x"])
def test_an_odd_address_is_no_error(page: Any, damage: str) -> None:
    opened(page, f"&{damage}&circuit=-1")


def test_a_trace_without_circuits_leads_to_its_report(page: Any) -> None:
    page.goto(PAGE.replace(id_of("trace.json"), id_of("readings.json")))
    page.get_by_text("This trace has no circuits").wait_for()
    assert page.get_by_role("link", name="The whole report").count() == 1
