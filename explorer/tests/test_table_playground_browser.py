"""The playground of a table in a real browser: the form, what columns do, the nearest other answer.

Broken once: with the mean of a column not taken off, with Sunday as day 0, with bounds ignored in
the plane, without its stationary points, with a change of a text that costs nothing, with a number
filled in for nothing, with the distance before whole numbers are rounded, with 1e300 taken,
with a surface that is upside down.
"""

import csv
import shutil
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
from bilens.algebra.directions import centred_directions
from bilens.api.given_data import interface_of
from bilens.cli.app import main
from bilens.data.labelled_data import read_labelled
from bilens_explorer.folder import id_of
from chromium import needs_browser
from explorer_server import opened_page, served

pytestmark = needs_browser
CITIES = ("<b>Ōsaka</b>", "Tokyo", "Nagoya")
ROWS = 400
AGE, INCOME, CITY = 0, 2, 3  # inputs; beside age stands whether it is missing
MODEL = """async ([name, act, ...given]) => {
    const { get } = await import("/static/lib.js");
    const { tableModel } = await import("/static/table_play.js");
    const q = await import("/static/quadratic.js");
    const model = tableModel(await get(`/models/${name}/playground`));
    const at = (values) => [...model.map.logits(model.at(values))];
    const form = (first) => model.map.form(q.direction(model.map.outputs, first));
    const acts = {
        answers: (rows) => rows.map(at),
        parts: (rows, first) => rows.map((row) => model.parts(form(first), row)),
        effect: (row, first, column) => model.effect(form(first), row, column),
        surface: (row, first, one, two) => model.surface(form(first), row, one, two),
        nearest: (row, free, wanted) => model.nearest(row, new Map(free), wanted),
    };
    return acts[act](...given);
}"""
# of a (which is not known) and b: yes less no is 2 where a is not known, and 2b − 2.2
UNKNOWN = """async ([a, free]) => {
    const { tableModel } = await import("/static/table_play.js");
    const packed = (shape, values) => {
        const bytes = new Uint8Array(new Float64Array(values).buffer);
        return { shape, dtype: "float64", base64: btoa(String.fromCharCode(...bytes)) };
    };
    const number = { kind: "number", unit: "", low: -3, high: 3, whole: false };
    const map = {
        down: packed([2, 1], [0, 0]), left: packed([1, 3], [0, 0, 0]),
        right: packed([1, 3], [0, 0, 0]), linear: packed([2, 3], [0, 0, 0, 0, 2, 2]),
        constant: packed([2], [0, -2.2]),
    };
    const columns = [
        { ...number, name: "a", inputs: [0, 1], parts: ["value", "(missing)"] },
        { ...number, name: "b", inputs: [2], parts: ["value"] },
    ];
    const given = { input_mean: [0, 0, 0], input_scale: [1, 1, 1], baseline: [0, 0, 0] };
    const model = tableModel({ map, columns, ...given });
    return model.nearest([a, 0], new Map(free), null);
}"""
STEPS = """async ([problems]) => {
    const { nearestStep } = await import("/static/nearest_change.js");
    return problems.map(([forms, bounds]) => nearestStep(forms, bounds));
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of a table: classes and numbers depend on a product, a text and a date."""
    where = tmp_path_factory.mktemp("tables")
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(ROWS, 2, generator=generator)
    lines = ["age,income,city,since,loan,price"]
    for row in range(ROWS):
        age, income = round(45 + 12 * float(z[row, 0])), round(400 + 90 * float(z[row, 1]), 1)
        score = (age - 45) / 12 * (income - 400) / 90 + (row % 3 == 1) + 0.1 * (row % 12)
        loan = "reject" if score < 0.3 else "ask" if score < 1.2 else "grant"
        day = f"2024-{1 + row % 12:02}-{1 + row % 28:02} {row % 24:02}:30"
        known = "" if row % 23 == 0 else age
        lines.append(f"{known},{income},{CITIES[row % 3]},{day},{loan},{score:.3f}")
    (where / "t.csv").write_text("\n".join(lines))
    known = ("code", *("7" if row % 3 else "" for row in range(ROWS)))
    parts = (line.partition(",")[2] for line in lines)
    both = (f"{code},{part}" for code, part in zip(known, parts, strict=True))
    (where / "seven.csv").write_text("\n".join(both))
    for name, target, other in (
        ("t", "loan", "price"),
        ("t", "price", "loan"),
        ("seven", "loan", "price"),
    ):
        table = where / f"{name}.csv"
        run = ["train", "table", table, f"--target={target}", f"--drop={other}", "-q"]
        run += ["--column-scale", "standard"]
        with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
            patch.setattr(
                sys,
                "argv",
                [
                    "bilens",
                    *map(str, run),
                    f"--out={where / 'runs' / (target if name == 't' else name)}",
                ],
            )
            main()
    return where / "runs"


def opened(page: Any, name: str = "loan", lang: str = "en") -> None:
    page.goto(f"/models/{id_of(name)}/playground?lang={lang}")
    page.get_by_role("table").first.wait_for()


def asked(page: Any, act: str, *given: Any, name: str = "loan") -> Any:
    return page.evaluate(MODEL, [id_of(name), act, *given])


def own_map(root: Path, name: str = "loan") -> bl.QuadraticMap:
    module = bl.load(root / name).module
    assert isinstance(module, bl.nn.BilinearClassifier)
    return module.double().quadratic_map().detach()


def held_out(root: Path, name: str = "loan") -> tuple[list[list[Any]], torch.Tensor]:
    """Rows as the form has them, and as bilens reads the same file."""
    path = root / name / "test.csv"
    rows = []
    for cells in csv.DictReader(path.read_text().splitlines()):
        days = (datetime.fromisoformat(cells["since"]) - datetime(2024, 1, 1)) / timedelta(days=1)
        age = float(cells["age"]) if cells["age"] else None
        rows.append([age, float(cells["income"]), cells["city"], days])
    return rows, read_labelled(path, None, interface_of(bl.load(root / name))).inputs.double()


def test_answers_and_contributions_are_those_of_bilens(page: Any, root: Path) -> None:
    opened(page)
    for name in ("loan", "price"):
        f, (rows, x) = own_map(root, name), held_out(root, name)
        assert any(row[0] is None for row in rows)
        found = torch.tensor(asked(page, "answers", rows, name=name), dtype=torch.float64)
        torch.testing.assert_close(found, f(x), rtol=1e-8, atol=1e-8)
    f, (rows, x) = own_map(root), held_out(root)
    model = bl.load(root / "loan")
    mean = torch.tensor(model.input_mean, dtype=torch.float64)
    parts = bl.attribute(f.compose_output(centred_directions(3)[1:2]), x, mean)[:, 0]
    names = [name.split("=")[0].split(":")[0] for name in model.input_names or ()]
    columns = ("age", "income", "city", "since")
    place = torch.tensor([[float(name == column) for name in names] for column in columns])
    found = torch.tensor(asked(page, "parts", rows, 1), dtype=torch.float64)
    torch.testing.assert_close(found, parts @ place.double().T, rtol=1e-7, atol=1e-7)


def test_effects_are_the_output_with_one_and_two_columns_changed(page: Any, root: Path) -> None:
    opened(page)
    f, (rows, x) = own_map(root), held_out(root)
    u = centred_directions(3)[2]
    row, start = rows[1], x[1]
    for value, output in asked(page, "effect", row, 2, 1):
        there = start.index_fill(0, torch.tensor([INCOME]), value)
        assert output == pytest.approx(float(u @ f(there)), abs=1e-7)
    texts = asked(page, "effect", row, 2, 2)
    assert {text for text, _ in texts} == {*CITIES}
    assert dict(texts)[row[2]] == pytest.approx(float(u @ f(start)), abs=1e-7)
    found = asked(page, "surface", row, 2, 0, 1)
    for i, j in ((0, 0), (24, 3), (7, 20)):
        there = start.clone()
        there[AGE], there[INCOME] = found["across"][j], found["up"][i]
        assert found["cells"][i][j] == pytest.approx(float(u @ f(there)), abs=1e-7)


def problem(seed: int, forms: int, steps: int) -> tuple[list[Any], list[list[float]]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(forms):
        half = torch.randn(steps, steps, generator=generator).double()
        if seed % 5 == 0:
            half = torch.diag(half.diagonal())  # with its slope along one axis alone
        g = torch.randn(steps, generator=generator).double()
        if seed % 5 == 0:
            g[0] = 0
        c = float(torch.rand(1, generator=generator)) + 0.05
        found.append({"c": c, "g": g.tolist(), "A": ((half + half.T) / 2).tolist()})
    ends = torch.rand(steps, 2, generator=generator).double() * 3
    low = -ends[:, 0] if seed % 7 else ends[:, 0] / 3  # now and then without the row itself
    return found, torch.stack([low, low.clamp_min(0) + ends[:, 1]], dim=1).tolist()


def by_force(forms: list[Any], bounds: list[list[float]], count: int) -> float:
    """The least distance over a grid of points at which all forms are 0 or less."""
    axes = [torch.linspace(low, high, count, dtype=torch.float64) for low, high in bounds]
    t = torch.cartesian_prod(*axes).reshape(-1, len(bounds))
    there = torch.ones(len(t), dtype=torch.bool)
    for form in forms:
        g, a = (torch.tensor(form[key], dtype=torch.float64) for key in ("g", "A"))
        there &= form["c"] + t @ g + ((t @ a) * t).sum(dim=1) <= 0
    return float(t[there].norm(dim=1).min()) if bool(there.any()) else float("inf")


@pytest.mark.parametrize(("forms", "steps", "count"), [(1, 1, 200_001), (1, 2, 501), (2, 2, 501)])
def test_the_nearest_step_is_exact_where_it_says_so(
    page: Any, forms: int, steps: int, count: int
) -> None:
    opened(page)
    problems = [problem(seed, forms, steps) for seed in range(60)]
    found = page.evaluate(STEPS, [problems])
    assert sum(one["exact"] for one in found) > 30
    assert sum(one["t"] is not None for one in found) > 20
    for (given, bounds), one in zip(problems, found, strict=True):
        grid = by_force(given, bounds, count)
        mine = float("inf") if one["t"] is None else float(torch.tensor(one["t"]).double().norm())
        assert mine <= grid * (1 if one["exact"] else 1.02) + 1e-6
        if one["exact"] and mine < float("inf"):
            assert mine >= grid - 3 * max(high - low for low, high in bounds) / count - 1e-6
        for low_high, step in zip(bounds, one["t"] or [], strict=False):
            assert low_high[0] <= step <= low_high[1]


@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e-6, 1e6])
def test_the_nearest_step_does_not_depend_on_the_unit_of_the_output(page: Any, unit: float) -> None:
    opened(page)
    form = {"c": unit, "g": [2 * unit, unit], "A": [[-unit, 0], [0, 0.3 * unit]]}
    (found,) = page.evaluate(STEPS, [[[[form], [[0, 3], [-3, 3]]]]])
    assert found["exact"]
    assert float(torch.tensor(found["t"]).norm()) == pytest.approx(2.3073, abs=1e-3)


def test_a_change_is_shown_with_all_its_digits(page: Any) -> None:
    opened(page)
    shown = page.evaluate("""async () => {
        const { shownValue } = await import("/static/table_columns.js");
        const column = { kind: "number", unit: "", parts: ["value"] };
        return [5400000, 5400401, 123454].map((value) => shownValue(column, value, 15));
    }""")
    assert shown[0] != shown[1]
    assert shown[2] == "123,454"


def test_a_search_over_many_finds_what_is_there(page: Any) -> None:
    opened(page)
    problems = [problem(seed, 1, 4) for seed in range(30)]
    for (given, bounds), one in zip(problems, page.evaluate(STEPS, [problems]), strict=True):
        grid = by_force(given, bounds, 25)
        assert not one["exact"]
        if grid < float("inf"):
            assert float(torch.tensor(one["t"]).norm()) <= grid * 1.02 + 1e-6


def test_the_nearest_change_changes_the_answer_and_no_less_does(page: Any, root: Path) -> None:
    opened(page)
    f, (rows, x) = own_map(root), held_out(root)
    model = bl.load(root / "loan")
    scale = torch.tensor(model.input_scale, dtype=torch.float64)
    for row, start in zip(rows[1:4], x[1:4], strict=True):
        label = int(f(start).argmax())
        free = [[1, [100, 700]], [2, None]]
        found = asked(page, "nearest", row, free, None)
        assert found["exact"]
        (after,) = asked(page, "answers", [found["values"]])
        assert max(range(3), key=after.__getitem__) != label
        assert (found["values"][0], found["values"][3]) == (row[0], row[3])
        best = float("inf")
        for city, income in product(range(3), torch.linspace(100, 700, 2001).tolist()):
            there = start.clone()
            there[INCOME] = income
            there[CITY : CITY + 3] = torch.eye(3)[city]
            if int(f(there).argmax()) != label:
                step = abs(income - float(start[INCOME])) / float(scale[INCOME])
                cost = float(there[CITY + city] != start[CITY + city])
                best = min(best, (cost + step**2) ** 0.5)
        assert found["distance"] == pytest.approx(best, abs=0.3 / float(scale[INCOME]) + 1e-6)
    assert asked(page, "nearest", rows[1], [], None) == {"exact": True}


def test_a_form_is_filled_and_the_change_is_put_into_it(page: Any, root: Path) -> None:
    opened(page)
    page.get_by_label("Begin with").select_option("1")
    page.get_by_label("income", exact=True).press("Control+a")
    page.keyboard.type("640")
    page.get_by_label("city", exact=True).focus()
    page.keyboard.type("Tokyo")
    row = [*held_out(root)[0][1]]
    row[1:3] = [640, "Tokyo"]
    (logits,) = asked(page, "answers", [row])
    names = bl.load(root / "loan").output_names or ()
    label = max(range(3), key=logits.__getitem__)
    answer = page.locator(".answer")
    assert answer.inner_text().startswith(names[label])
    page.get_by_role("button", name="Find").press("Enter")
    page.get_by_text("within these bounds may do it").wait_for()
    page.get_by_role("button", name="Put it into the form").press("Enter")
    assert not answer.inner_text().startswith(names[label])
    page.get_by_label("Highest income").fill("")
    page.get_by_role("button", name="Find").click()
    page.get_by_text("is missing").wait_for()


def test_what_is_not_known_is_kept_or_filled_in_at_a_price(page: Any) -> None:
    opened(page)
    both = [[0, [-3, 3]], [1, [-3, 3]]]
    for free in (both, both[1:]):
        found = page.evaluate(UNKNOWN, [None, free])
        assert found["exact"]
        assert found["distance"] == pytest.approx(0.1, abs=1e-9)
        assert found["values"] == [None, pytest.approx(0.1, abs=1e-6)]
    found = page.evaluate(UNKNOWN, [None, [both[0], [1, [-3, 0.05]]]])
    assert found == {"exact": True}  # filled in, b would have to be 1.1


def test_of_a_column_that_is_known_or_not_no_number_is_shown(page: Any, root: Path) -> None:
    """Its known values were all 7, and its field said 0."""
    opened(page, "seven")
    path = root / "seven" / "test.csv"
    x = read_labelled(path, None, interface_of(bl.load(root / "seven"))).inputs.double()
    cells = [row["code"] for row in csv.DictReader(path.read_text().splitlines())]
    answers, names = own_map(root, "seven")(x).argmax(dim=1), bl.load(root / "seven").output_names
    field, answer = page.get_by_label("code", exact=True), page.locator(".answer")
    assert field.locator("option").all_inner_texts() == ["known", "not known"]
    for row in (cells.index("7"), cells.index("")):
        page.get_by_label("Begin with").select_option(str(row))
        assert field.input_value() == ("known" if cells[row] else "not known")
        assert answer.inner_text().startswith((names or ())[int(answers[row])])
    bars = [*page.locator(".effects").get_by_text("known").all_text_contents()]
    assert bars == ["known", "▸ not known"]
    assert page.get_by_label("code may change").count() == 0


def test_the_distance_is_that_of_the_whole_numbers_that_are_shown(page: Any, root: Path) -> None:
    opened(page)
    page.get_by_label("Begin with").select_option("1")
    page.get_by_label("income may change").uncheck()
    page.get_by_role("button", name="Find").click()
    told = page.get_by_text("with whole numbers, rounded outwards")
    distance = float(told.inner_text().split()[1])
    ((_, now, then),) = [
        row.split("\t") for row in page.locator(".near tbody tr").all_inner_texts()
    ]
    assert float(then).is_integer()
    scale = (bl.load(root / "loan").input_scale or ())[AGE]
    exact = abs(float(then) - float(now)) / scale
    assert exact <= distance < exact * 1.001
    page.get_by_label("age may change").uncheck()
    page.get_by_label("income may change").check()
    page.get_by_role("button", name="Find").click()
    page.get_by_text("exact, no smaller change").wait_for(timeout=5000)
    income = page.get_by_label("income", exact=True)
    before = income.input_value()
    page.get_by_role("button", name="Put it into the form").click()
    assert income.input_value() != before


def test_a_number_beyond_all_measure_is_refused(page: Any) -> None:
    opened(page)
    answer, income = page.locator(".answer"), page.get_by_label("income", exact=True)
    income.fill("640")
    before = answer.inner_text()
    for text in ("1e300", "-1e300"):
        income.fill(text)
        page.get_by_text("The answer is still that of the value before").wait_for()
        assert (answer.inner_text(), income.input_value()) == (before, text)
    page.get_by_label("Highest income").fill("1e300")
    page.get_by_role("button", name="Find").click()
    page.locator(".near").get_by_text("are computed here").wait_for()
    income.fill("650")
    assert page.get_by_text("The answer is still").count() == 0


@pytest.mark.slow
def test_the_surface_tells_its_numbers_by_keyboard_and_pointer(page: Any, root: Path) -> None:
    opened(page)
    page.get_by_label("Begin with").select_option("1")
    page.get_by_label("Class", exact=True).select_option("2")
    found = asked(page, "surface", held_out(root)[0][1], 2, 0, 1)
    surface, told = page.get_by_role("application"), page.locator(".said").last
    for key in ("ArrowUp", "ArrowRight", "ArrowRight", "ArrowDown"):
        surface.press(key)
    text = told.inner_text()
    assert text.startswith("age = ")
    value = float(text.split(": ")[1].replace("−", "-"))
    assert value == pytest.approx(found["cells"][23][2], rel=1e-4)
    surface.hover(position={"x": 3, "y": surface.bounding_box()["height"] - 4})
    value = float(told.inner_text().split(": ")[1].replace("−", "-"))
    assert value == pytest.approx(found["cells"][0][0], rel=1e-4)


def test_a_wished_value_is_reached(page: Any) -> None:
    opened(page, "price")
    page.get_by_label("Wished value").fill("1.5")
    page.get_by_role("button", name="Find").click()
    page.get_by_role("button", name="Put it into the form").press("Enter")
    value = float(page.locator(".answer").inner_text().split(": ")[1])
    assert value == pytest.approx(1.5, abs=1e-4)
    page.get_by_label("Wished value").fill("1e9")
    page.get_by_role("button", name="Find").click()
    page.get_by_text("all of them were gone through exactly").wait_for()


@pytest.mark.slow
def test_a_model_that_changes_is_told_and_what_was_typed_stays(
    browser: Any, root: Path, tmp_path: Path
) -> None:
    there = tmp_path / "runs" / "loan"
    shutil.copytree(root / "loan", there)
    with served(tmp_path / "runs") as address, opened_page(browser, base_url=address) as page:
        opened(page)
        shutil.rmtree(there)
        shutil.copytree(root / "price", there)
        page.get_by_label("income", exact=True).fill("650")
        page.get_by_role("button", name="Take the new model").press("Enter")
        page.locator(".answer").get_by_text("price: ").wait_for()
        assert page.get_by_label("income", exact=True).input_value() == "650"


def test_what_was_typed_is_not_put_into_other_columns(page: Any) -> None:
    """Seen red: of a model with its columns in another order, the age was the income."""
    key = f"played {id_of('loan')}"
    opened(page)
    page.get_by_label("income", exact=True).fill("651")
    page.wait_for_function("key => sessionStorage.getItem(key)?.includes('651')", arg=key)
    opened(page)
    assert page.get_by_label("income", exact=True).input_value() == "651"
    swapped = """key => {
        const kept = JSON.parse(sessionStorage.getItem(key));
        kept.asked = JSON.stringify(JSON.parse(kept.asked).reverse());
        sessionStorage.setItem(key, JSON.stringify(kept));
    }"""
    page.goto("/")  # what is drawn keeps what is in the form
    page.evaluate(swapped, key)
    opened(page)
    assert page.get_by_label("income", exact=True).input_value() != "651"


@pytest.mark.slow
def test_names_are_text_and_nothing_is_wider_than_the_window(page: Any) -> None:
    for lang, width in (("en", 360), ("ja", 360), ("en", 1920)):
        page.set_viewport_size({"width": width, "height": 900})
        opened(page, lang=lang)
        page.get_by_role("rowheader", name=CITIES[0]).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
