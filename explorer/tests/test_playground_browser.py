"""The playground in a real browser: what the page computes is what bilens computes.

Broken once: with x + x₀ for x − x₀, with the linear part left out, with no curvature in the lower
bound, with a removed eigenvector taken off twice, with Shift ignored, with another model not told,
with bounds rounded to the nearest, with proven edges of the other direction.
"""

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
import tiny
from bilens.algebra.directions import centred_directions, contrast_direction
from bilens.report.text import floored, raised
from bilens_explorer import playground
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder, id_of
from chromium import needs_browser
from commands import model_folder
from explorer_server import opened_page, served

pytestmark = needs_browser
KEY = id_of("one")
HOSTILE = '<img src=x onerror="console.log(1)">'
NAMES = ("upright", "level", HOSTILE)
COMPUTE = """async ([key, rows, base]) => {
    const { get } = await import("/static/lib.js");
    const q = await import("/static/quadratic.js");
    const given = await get(`/models/${key}/playground`);
    const map = q.quadraticMap(given.map);
    const start = map.seen(Float64Array.from(base));
    return rows.map((row) => {
        const x = Float64Array.from(row);
        const at = map.seen(x);
        const logits = map.logits(at);
        const label = q.largestAt(logits);
        const forms = [q.direction(3, 1), q.direction(3, 2, 0)].map(map.form);
        return {
            logits: [...logits],
            shares: q.softmax(logits),
            values: forms.map((form) => form.value(at)),
            parts: forms.map((form) => [...q.attributed(form, at, start)]),
            lower: q.lowerRadius(map, given.spectra, at, label),
            near: ((one) => ({ ...one, example: [...one.example] }))(q.nearCrossing(map, x, label)),
        };
    });
}"""

SHOWN = """async ([values]) => {
    const { number } = await import("/static/lib.js");
    return values.map((one) => ["floor", "ceil"].map((way) => number(one, 3, way)));
}"""

TURNED = """async ([key]) => {
    const { get } = await import("/static/lib.js");
    const { turned } = await import("/static/quadratic.js");
    const pair = (asked) => get(`/models/${key}/playground/pair?${asked}`);
    const [there, back] = [await pair("first=2&second=1"), await pair("first=1&second=2")];
    return [there.pairs, turned(back.pairs)].map(({ values, low, high }) => [...values, low, high]);
}"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tiny.classifier(bias=True, residual=True, dtype=torch.float32)
    options = {"input_shape": (6, 6), "output_names": NAMES}
    model_folder(tmp_path / "runs" / "one", model, **options)
    return tmp_path / "runs"


@pytest.fixture
def page(browser: Any, root: Path) -> Iterator[Any]:
    with served(root) as address, opened_page(browser, base_url=address) as found:
        yield found


def own_map(root: Path) -> bl.QuadraticMap:
    module = bl.load(root / "one").module
    assert isinstance(module, bl.nn.BilinearClassifier)
    return module.double().quadratic_map().detach()


def opened(page: Any) -> Any:
    page.goto(f"/models/{KEY}/playground?lang=en")
    board = page.get_by_role("application", name="Drawing board")
    board.wait_for()
    return board


def taken(page: Any, name: str) -> list[list[float]]:
    """The numbers of a table that is taken away, without its heads."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"{name} as CSV").press("Enter")
    rows = list(csv.reader(Path(download.value.path()).read_text("utf-8").splitlines()))
    return [[float(cell) for cell in row[1:]] for row in rows[1:]]


def drawn(page: Any) -> torch.Tensor:
    return torch.tensor(taken(page, "input"), dtype=torch.float64)[:, 0]


def test_one_class_over_another_is_turned_round_with_its_proven_edges(page: Any) -> None:
    opened(page)
    there, back = page.evaluate(TURNED, [KEY])
    assert back == pytest.approx(there, rel=1e-5)


def test_the_page_computes_what_bilens_does(page: Any, root: Path) -> None:
    f, x = own_map(root), tiny.images().test_images[:6].double()
    base = torch.rand(tiny.PIXELS).double()
    opened(page)
    found = page.evaluate(COMPUTE, [KEY, x.tolist(), base.tolist()])
    u = torch.stack([centred_directions(3)[1], contrast_direction(3, 2, 0)])
    parts = bl.attribute(f.compose_output(u), x, base)
    radii = bl.certify.l2_radius(f, x, f(x).argmax(dim=1))
    tight = {"rtol": 1e-5, "atol": 1e-5}
    for row, mine in enumerate(found):
        given = {name: torch.tensor(mine[name]).double() for name in ("logits", "values", "parts")}
        torch.testing.assert_close(given["logits"], f(x[row]), **tight)
        torch.testing.assert_close(torch.tensor(mine["shares"]), f(x[row]).softmax(0).float())
        torch.testing.assert_close(given["values"], u @ f(x[row]), **tight)
        torch.testing.assert_close(given["parts"], parts[row], **tight)
        whole = u @ (f(x[row]) - f(base))
        torch.testing.assert_close(given["parts"].sum(dim=1), whole, **tight)
        exact = float(radii.radius[row])
        assert 0.5 * exact < mine["lower"] <= exact * (1 + 1e-5)
        assert exact * (1 - 1e-5) <= mine["near"]["distance"] < 1.01 * exact
        example = torch.tensor(mine["near"]["example"], dtype=torch.float64)
        order = f(example).sort(descending=True)
        assert order.values[0] - order.values[1] < 1e-4  # at the border


def test_a_bound_is_never_shown_better_than_it_is(page: Any) -> None:
    opened(page)
    shown = page.evaluate(SHOWN, [[6194.9, 0.00012361, -2.7137, 1235678.0, 0.1]])
    assert [one[0] for one in shown] == [
        "6,190",
        "0.000123",
        "−2.72",
        "1.23\u00a0×\u00a010⁶",
        "0.1",
    ]
    assert [one[1] for one in shown] == [
        "6,200",
        "0.000124",
        "−2.71",
        "1.24\u00a0×\u00a010⁶",
        "0.1",
    ]
    shares = page.evaluate(
        """async (values) => {
            const { percent, share } = await import("/static/lib.js");
            return [...values.map((one) => percent(one)), share(0.99996), share(1 - 1e-12)];
        }""",
        [0.99984, 1, 0.00004, 0, -0.00001],
    )
    assert shares == ["99.9%", "100.0%", "<0.1%", "0.0%", "0.0%", "0.999", "1"]
    for box in page.get_by_role("checkbox").all():
        found = box.bounding_box()
        assert min(found["width"], found["height"]) >= 24


@pytest.mark.slow
def test_an_image_is_drawn_by_keyboard_and_by_mouse(page: Any, root: Path) -> None:
    f = own_map(root)
    board = opened(page)
    assert drawn(page).abs().sum() == 0
    board.focus()
    for key in ("Space", "ArrowUp", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    by_keyboard = drawn(page).reshape(6, 6)
    assert by_keyboard.nonzero().tolist() == [[1, 1], [1, 2], [3, 3]]
    torch.testing.assert_close(
        torch.tensor(taken(page, "logits")).double()[:, 0],
        f(by_keyboard.flatten()),
        rtol=1e-5,
        atol=1e-5,
    )
    board.press("e")
    assert drawn(page).reshape(6, 6).nonzero().tolist() == [[1, 2], [3, 3]]
    box = board.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 2, steps=4)
    page.mouse.up()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 2)  # not pressed
    assert (drawn(page).reshape(6, 6)[0] > 0.3).all()
    before = drawn(page).reshape(6, 6)
    page.get_by_role("button", name="Shift ↓").press("Enter")
    shifted = drawn(page).reshape(6, 6)
    assert torch.equal(shifted[1:], before[:-1])
    assert shifted[0].abs().sum() == 0
    page.get_by_role("button", name="Invert").click()
    assert torch.equal(drawn(page).reshape(6, 6), 1 - shifted)
    page.get_by_role("button", name="Clear").click()
    assert drawn(page).abs().sum() == 0


@pytest.mark.slow
def test_another_language_keeps_the_drawing(page: Any) -> None:
    opened(page)
    ink(page)
    first = drawn(page)
    page.get_by_text("is at a distance of").wait_for()
    page.get_by_role("link", name="日本語").click()
    page.get_by_role("application", name="描画ボード").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="inputをCSVで保存").click()
    rows = list(csv.reader(Path(download.value.path()).read_text("utf-8").splitlines()))
    assert [float(row[1]) for row in rows[1:]] == first.tolist()


def ink(page: Any) -> None:
    page.get_by_role("application").focus()
    for key in ("Space", "Shift+ArrowUp", "Shift+ArrowUp"):
        page.keyboard.press(key)


@pytest.mark.slow
def test_a_test_image_is_taken_again_after_it_was_drawn_on(page: Any, root: Path) -> None:
    data = tiny.images(name="mnist")
    tiny.write_idx(root.parent / "cache" / "bilens" / "mnist", data)
    about = {"input_shape": (6, 6), "provenance": {"data_name": "mnist"}}
    bl.save(tiny.classifier(dtype=torch.float32), root / "one", overwrite=True, **about)
    opened(page)
    first = drawn(page)
    assert first.abs().sum() > 0
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Take an image").select_option(index=1)
    assert torch.equal(drawn(page), first)
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Take an image").press("ArrowDown")
    assert torch.equal(drawn(page), first)


def test_contributions_and_what_remains_without_an_eigenvector(page: Any, root: Path) -> None:
    f = own_map(root)
    opened(page)
    ink(page)
    page.get_by_label("Class", exact=True).select_option(label="level")
    x = drawn(page)
    eigs = bl.eigendecompose_all(f, centred_directions(3))[1]
    mine = torch.tensor(taken(page, "contributions"), dtype=torch.float64)[:, 0]
    expected = eigs.eigenvalues * (eigs.eigenvectors @ x) ** 2
    torch.testing.assert_close(mine, expected[: len(mine)], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        torch.tensor(taken(page, "attributions"), dtype=torch.float64)[:, 0],
        bl.attribute(f.compose_output(centred_directions(3)[1:2]), x[None])[0, 0],
        rtol=1e-4,
        atol=1e-6,
    )
    strongest = int(mine.abs().argmax())
    box = page.get_by_role("checkbox", name=f" {strongest + 1}: λ")
    box.click()
    page.get_by_role("table", name="Logits without").wait_for()
    box.click()
    assert page.get_by_role("table", name="Logits without").count() == 0
    box.press("Space")
    without = page.get_by_role("table", name="Logits without").get_by_role("row", name="level")
    left = float(f(x)[1] - mine[strongest])
    assert number_of(without) == pytest.approx(left, rel=1e-3, abs=1e-3)
    page.get_by_label("Eigenvectors kept").select_option("2")
    whole = eigs.contributions(x[None]).pairs.sum()
    left = float(f(x)[1] - whole + expected[:2].sum())
    assert number_of(without) == pytest.approx(left, rel=1e-3, abs=1e-3)
    page.get_by_label("Over", exact=True).select_option(label="upright")
    page.get_by_label("Eigenvectors kept").select_option("")
    pair = bl.eigendecompose(f.form(contrast_direction(3, 1, 0)))
    name = f"1: λ = {float(pair.eigenvalues[0]):.3g}".replace("-", "−")
    page.get_by_role("checkbox", name=f" {name}").wait_for()
    page.reload()  # the address keeps what is looked at
    assert page.get_by_label("Over", exact=True).input_value() == "0"


def number_of(row: Any) -> float:
    return float(row.locator("td").last.inner_text().replace("−", "-"))


def test_the_radius_stands_beside_the_nearest_image(page: Any, root: Path) -> None:
    f = own_map(root)
    opened(page)
    ink(page)
    x = drawn(page)[None]
    exact = bl.certify.l2_radius(f, x, f(x).argmax(dim=1))
    distance = raised(float(exact.distance[0]), 4)
    told = page.get_by_text(f"is at a distance of {distance}: proven")
    told.wait_for()
    assert floored(float(exact.radius[0]), 4) not in told.inner_text()  # one number for one value
    page.get_by_role("img", name="The image with another answer").wait_for()


@pytest.mark.slow
def test_a_model_that_changes_or_goes_keeps_the_drawing(page: Any, root: Path) -> None:
    opened(page)
    ink(page)
    page.get_by_text("is at a distance of").wait_for()
    before = drawn(page)
    other = tiny.classifier(seed=5, dtype=torch.float32)
    bl.save(other, root / "one", overwrite=True, input_shape=(6, 6), output_names=NAMES)
    page.get_by_role("button", name="Invert").click()
    page.get_by_role("button", name="Take the new model").press("Enter")
    page.get_by_text("is at a distance of").wait_for()
    assert torch.equal(drawn(page), 1 - before)
    torch.testing.assert_close(
        torch.tensor(taken(page, "logits")).double()[:, 0],
        own_map(root)(1 - before),
        rtol=1e-5,
        atol=1e-5,
    )
    (root / "one" / "model.safetensors").write_bytes(b"broken")
    page.get_by_role("button", name="Invert").click()
    page.get_by_text("Your drawing is kept").wait_for()
    assert torch.equal(drawn(page), before)


@pytest.mark.slow
def test_names_are_text_and_nothing_is_wider_than_the_window(page: Any) -> None:
    for lang, width in (("en", 360), ("ja", 360), ("en", 1920), ("ja", 1920)):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"/models/{KEY}/playground?lang={lang}")
        page.get_by_role("rowheader", name=HOSTILE).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_a_deeper_model_says_why_it_is_not_computed(page: Any, root: Path) -> None:
    shutil.rmtree(root / "one")
    model_folder(root / "one", tiny.classifier(n_layers=2))
    page.goto(f"/models/{KEY}/playground?lang=en")
    page.get_by_text("has 2 layers one behind the other").wait_for()


def test_in_the_file_bounds_stand_in_place_of_the_radius(
    browser: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = own_map(root)
    file = tmp_path / "explorer.html"
    monkeypatch.setattr(playground, "HELD", 0)  # and no pair of classes, as of a large model
    file.write_text(export(ServedFolder(root), "en").html, "utf-8")
    with opened_page(browser) as page:
        page.goto(f"{file.as_uri()}#/models/{KEY}/playground")
        page.get_by_role("application", name="Drawing board").wait_for()
        ink(page)
        x = drawn(page)[None]
        exact = float(bl.certify.l2_radius(f, x, f(x).argmax(dim=1)).radius[0])
        told = page.get_by_text("a proven lower bound, not the exact distance")
        for _ in range(50):  # until it is said of what is drawn now
            lower, upper = map(float, re.findall(r"[\d.]+\d", told.inner_text())[:2])
            if lower < exact < upper * (1 + 1e-3):
                break
            page.wait_for_timeout(100)
        assert lower < exact < upper * (1 + 1e-3)
        page.get_by_label("Over", exact=True).select_option(label="upright")
        page.get_by_text("This is not part of the file").wait_for()
