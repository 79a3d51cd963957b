"""The explorer as one file: all pages, all data, no request, and what had no room is told.

Broken once: with a link left to the server's address, with the script's hash not in the policy,
with imports kept, with nested noscript, with no count of bytes, with notes, with a history that is
made, with notes in whole reports, with arrays that are not put back in order, with views whose
controls ask for more than the file holds, with a frame without a name, with pairs of classes that
are not turned round, with comparisons whose eigenvectors are not there, with a link to a comparison
that was left out, with lists of layers beyond those that it holds.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
import tiny
from bilens.base.errors import UsageError
from bilens.report.reports import AuditReport, TraceReport
from bilens_explorer import export as exports
from bilens_explorer.export import bundle, export, held_key
from bilens_explorer.folder import ServedFolder, id_of
from bilens_explorer.playground import pair_spectrum, playground
from chromium import needs_browser
from commands import USAGE, Shell, model_folder
from explorer_folder import unpacked
from report_documents import audit_of, failed, make_document
from traced_folder import write_traced

HOSTILE = '<img src=x onerror="alert(1)"></script><!--'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "runs"
    for name in ("mnist", "<img src=x onerror=alert(1)>"):
        model_folder(root / name, tiny.classifier())
    history = bl.History(root)
    for document in (make_document(), failed()):
        history.add(audit_of(root / "mnist", document).record)
    history.say("note", "mnist", "rule:exact", HOSTILE, HOSTILE)
    AuditReport(make_document()).to_json(root / "report.json")
    return root


@pytest.fixture(scope="module")
def file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("file") / "explorer.html"
    found.write_text(export(ServedFolder(folder, exporting=True), "en").html, "utf-8")
    return found


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    found = browser.new_page(base_url=file.as_uri())
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("request", lambda request: complaints.append(request.url))
    found.goto(file.as_uri())
    yield found
    found.close()
    # the file itself, images inside it and the report's frame ask nobody
    inside = (file.as_uri(), "data:", "about:srcdoc", "blob:")
    assert [one for one in complaints if not one.startswith(inside)] == []


@needs_browser
def test_all_pages_are_in_the_file(page: Any) -> None:
    page.get_by_role("link", name="mnist", exact=True).press("Enter")
    page.get_by_role("link", name="Layers and spectra").click()
    page.get_by_role("cell", name="layers.0").wait_for()
    page.get_by_role("link", name="日本語").click()
    page.get_by_role("link", name="層とスペクトル").wait_for()
    page.get_by_role("cell", name="layers.0").wait_for()
    page.get_by_role("link", name="English").click()
    page.get_by_role("link", name="Layers and spectra").wait_for()
    page.get_by_role("link", name="bilens").click()
    page.get_by_role("link", name="report.json").click()
    inside = page.frame_locator("iframe").get_by_role("heading", level=1)
    assert inside.inner_text() == "Audit of an AI model"
    assert page.locator("iframe").get_attribute("title") == page.locator("h1").inner_text()
    assert page.title() == f"{page.locator('h1').inner_text()} – bilens"
    assert page.get_by_text("Whole reports are in this file in one language: English.").count() == 1
    page.get_by_role("link", name="bilens").click()
    page.get_by_role("link", name="mnist", exact=True).click()
    page.get_by_role("heading", level=1, name="mnist", exact=True).wait_for()
    assert page.title() == "mnist – bilens"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.get_by_role("link", name="日本語").click()
    page.get_by_role("link", name="最新の監査の要約").click()
    page.frame_locator("iframe").locator("html[lang=ja]").wait_for()


@needs_browser
def test_arrays_are_those_of_the_model(page: Any, folder: Path) -> None:
    key = id_of("mnist")
    given = playground(ServedFolder(folder), key).map.left.base64
    read = """async ([key]) => {
        const left = (await modules.lib.get(`/models/${key}/playground`)).map.left;
        return btoa(String.fromCharCode(...left.base64));
    }"""
    assert page.evaluate(read, [key]) == given


@needs_browser
def test_a_place_that_is_not_there_says_so(page: Any) -> None:
    page.evaluate("location.hash = '/audits/999'")
    page.get_by_text("This is not part of the file").wait_for()
    assert page.locator("h1").inner_text() == "/audits/999"


@needs_browser
def test_controls_offer_what_the_file_holds(page: Any) -> None:
    page.get_by_role("link", name="mnist", exact=True).click()
    page.get_by_role("link", name="Layers and spectra").click()
    page.get_by_label("Output", exact=True).wait_for()
    assert page.get_by_label("against").count() == 0
    assert page.get_by_text("Choices that are greyed out").is_visible()
    page.locator("section.interactions input[type=number]").wait_for()
    asking = "section.interactions input:is([type=number], [type=text])"
    assert page.locator(f"{asking}:disabled").count() == 2
    assert page.locator(f"{asking}:enabled").count() == 0


@needs_browser
def test_two_models_and_two_classes_are_compared_in_the_file(page: Any, folder: Path) -> None:
    boxes = page.get_by_role("checkbox")
    for at in (0, 1):
        boxes.nth(at).check()
    page.get_by_role("link", name="Compare the two").press("Enter")
    page.locator("ol.matched li").first.wait_for()
    page.get_by_label("Output", exact=True).select_option("2")
    page.locator("ol.matched li").first.wait_for()
    page.get_by_role("link", name="日本語").click()
    page.locator("html[lang=ja] ol.matched li").first.wait_for()
    page.evaluate("path => { location.hash = path; }", f"/models/{id_of('mnist')}/playground")
    page.locator(".cards figure").first.wait_for()
    found = pair_spectrum(ServedFolder(folder), id_of("mnist"), 1, 2).pairs
    largest = {}
    for first, second in ((1, 2), (2, 1)):
        for name, value in (("クラス", first), ("比べる相手", second)):
            page.get_by_label(name, exact=True).select_option(f"{value}")
        card = page.locator(".cards figure").first
        card.wait_for()
        largest[first] = card.inner_text().partition("λ = ")[2].split()[0].replace("−", "-")
    assert float(largest[1]) == -float(largest[2])
    assert abs(float(largest[1]) - found.values[0]) <= 0.01 * abs(found.values[0])


@needs_browser
def test_what_was_left_out_is_not_offered(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("one", "two")):
        model_folder(tmp_path / "runs" / name, tiny.classifier(seed, n_layers=2))
    monkeypatch.setattr("bilens_explorer.spectra.HELD_LAYERS", 1)
    file = tmp_path / "explorer.html"
    file.write_text(export(ServedFolder(tmp_path / "runs", exporting=True), "en").html, "utf-8")
    page = browser.new_page()
    one, two = sorted(map(id_of, ("one", "two")))
    page.goto(f"{file.as_uri()}#/compare/{one}/{two}")
    listed = page.locator("[data-view=compare]").get_by_label("Layer", exact=True)
    listed.wait_for()
    assert listed.locator("option:enabled").all_inner_texts() == ["layers.0"]
    assert listed.locator("option").count() == 2
    page.goto(f"{file.as_uri()}#/")
    boxes = page.get_by_role("checkbox")
    boxes.nth(0).check()
    offered, told = (page.get_by_text(text) for text in ("Compare the two", "not part of the file"))
    page.locator('template[data-path^="/compare/"]').evaluate_all("all => all.map(x => x.remove())")
    boxes.nth(1).check()
    told.wait_for()
    assert not offered.is_visible()
    boxes.nth(1).uncheck()
    assert told.count() == 0
    page.close()


@pytest.mark.slow
@needs_browser
def test_no_page_of_the_file_bars_anybody(page: Any) -> None:
    axe = (files(pytest.importorskip("axe_playwright_python")) / "axe.min.js").read_text("utf-8")
    pages = page.locator("template[lang=en]").all()
    faults = []
    for path in [
        *(str(one.get_attribute("data-path")) for one in pages),
        f"/models/{id_of('mnist')}/summary",
        "/audits/1",
    ]:
        page.evaluate("path => { location.hash = path; }", path)
        page.wait_for_function(
            "() => document.querySelector('.page h1') && !document.querySelector('[aria-busy]')"
        )
        page.wait_for_timeout(100)
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations'], iframes: false})")[
            "violations"
        ]
        faults += [
            (path, one["id"], one["nodes"][0]["html"][:200])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
    assert faults == []


@needs_browser
def test_without_script_the_pages_stand_below_each_other(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    page.get_by_role("link", name="mnist", exact=True).first.click()
    assert page.url.endswith(f"#/models/{id_of('mnist')}")
    assert page.get_by_role("heading", name="Everything that people said").first.is_visible()
    context.close()


def test_no_link_leads_to_a_server(file: Path) -> None:
    text = file.read_text("utf-8")
    assert ' href="/' not in text
    assert ' src="' not in text
    assert "<img src=x" not in text
    assert "bilens-secret" not in text
    assert len(text) < exports.LARGEST


def test_modules_become_one_script() -> None:
    script = bundle()
    assert "import {" not in script
    assert "\nexport " not in script


def test_a_view_asks_for_what_the_file_holds() -> None:
    assert held_key("/models/{key}", {"key": "1a", "b": 2, "a": "x y"}) == (
        '/models/1a?[["a","x y"],["b","2"]]'
    )


def test_a_model_takes_no_more_than_its_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(ServedFolder(folder, exporting=True), "en")
    assert (whole.left_out, "had no room" in whole.html) == ([], False)
    room = len(whole.html.encode()) // 2 - 30_000
    monkeypatch.setattr(exports, "LARGEST", room)
    made = export(ServedFolder(folder, exporting=True), "en")
    assert made.left_out
    assert len(made.html.encode()) <= 2 * room  # of two models
    assert f"{len(made.left_out)} parts had no room in it" in made.html
    assert f'href="#{made.left_out[-1]}"' not in made.html


def test_many_models_are_to_be_chosen_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MOST", 1)
    with pytest.raises(UsageError, match="2 models, and a file holds 1 at most: choose some with"):
        export(ServedFolder(folder, exporting=True), "en")
    served = ServedFolder(folder, exporting=True)
    with pytest.raises(UsageError, match="--model minst is no model of runs; there are: <img"):
        served.choose_models(["minst"])
    served.choose_models(["mnist"])
    made = export(served, "en").html
    assert made.count('data-path="/models/') == 2 * len(("", *served.model(id_of("mnist")).views))
    assert "onerror=alert" not in made
    assert "1 model with 2 audits, 0 other reports" in made


def test_labels_and_acceptances_are_carried_and_notes_are_not(tmp_path: Path) -> None:
    history = bl.History(tmp_path)
    report = audit_of(tmp_path / "mnist", failed())
    history.add(report.record)
    for name in ("mnist", "other"):  # they are compared
        model_folder(tmp_path / name)
    for subject in ("model", "rule:complete", "class:3:positive:0"):
        history.say("note", "mnist", subject, "between us", "Ada")
    report.with_people(history.people("mnist")).to_json(tmp_path / "report.json")
    history.say("label", "mnist", "class:3:positive:0", "the loop", "Ada")
    history.say("accept", "mnist", "rule:complete", "known since May", "Ada", "2999-01-01")
    text = unpacked(export(ServedFolder(tmp_path, exporting=True), "en").html)
    assert "between us" not in text
    assert text.count("the loop") > 1  # on its page, and in the report
    assert text.count("known since May") > 1
    assert 'data-path="/compare/' in text


@pytest.mark.parametrize("with_data", [False, True])
def test_rows_of_data_are_in_the_file_where_they_are_wanted(
    tmp_path: Path, with_data: bool
) -> None:
    """Pixels, cells and stretches of text, in views as in whole reports."""
    root = tmp_path / "runs"
    write_traced(root)
    trained = model_folder(root / "images", tiny.trained(), input_shape=(tiny.SIDE, tiny.SIDE))
    report = bl.audit(bl.load(trained), data=tiny.images())
    history = bl.History(root)
    history.add(report.record)
    record = report.record
    assert record.classes.explanations
    text = unpacked(export(ServedFolder(root, exporting=True, with_data=with_data), "en").html)
    pixels = ",".join(map(str, record.classes.explanations[0].image))
    context = TraceReport.from_json(root / "trace.json").record.input_latents[0].contexts[0]
    passage = json.dumps(context.tokens, ensure_ascii=False, separators=(",", ":"))
    assert (pixels in text, passage in text) == (with_data, with_data)
    assert ("No row of test data is in it" in text) == (not with_data)
    assert ("テストデータの行（画像" in text) == with_data


def test_no_folder_of_any_machine_is_in_the_file(tmp_path: Path) -> None:
    """Seen red: what the files of a model say of it named the folders of whoever trained it."""
    secret, path = "/home/ada/client-x/run7", tmp_path / "m" / "model.safetensors"
    path.parent.mkdir()
    torch.manual_seed(0)
    weights = {"up.weight": torch.randn(9, 6), "down.weight": torch.randn(3, 9)}
    save_file(weights, path, metadata={"ss_output_dir": secret, "note": f"see {secret}, please"})
    model = bl.load(path, activation="relu")
    bl.History(tmp_path).add(bl.audit(model, null_samples=tiny.ROTATIONS).record)
    served = ServedFolder(tmp_path, exporting=True)
    text = unpacked(export(served, "en").html)
    assert "ss_output_dir" in text
    assert "see run7, please" in text
    assert not [place for place in ("client-x", str(tmp_path)) if place in text]


def test_a_history_is_not_made(tmp_path: Path) -> None:
    export(ServedFolder(tmp_path, exporting=True), "en")
    assert [*tmp_path.iterdir()] == []


def test_proven_bounds_are_rounded_up() -> None:
    for bound in (1.2345649, 1.2345651, 9.999999e-7, 0.0):
        assert bound <= exports.above(bound) <= bound * (1 + 1e-4)


def test_the_command_writes_the_file_and_no_other(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tmp_path: Path,
) -> None:
    bilens = Shell(capsys, monkeypatch)
    file = tmp_path / "explorer.html"
    assert bilens("serve", folder, "--export", file).code == 0
    assert "--overwrite" in bilens("serve", folder, "--export", file).error()
    assert bilens("serve", folder, "--export", file, "--overwrite").code == 0
    assert bilens("serve", folder, "--export", tmp_path).code == USAGE
    assert "--port" in bilens("serve", folder, "--export", file, "--overwrite", "--port", 1).error()
    assert "--export" in bilens("serve", folder, "--lang", "ja").error()
