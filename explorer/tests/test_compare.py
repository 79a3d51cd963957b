"""Two models beside each other: what is the same is told so, and what is not.

Broken once: with the eigenvectors of one model beside themselves, with outcomes without the
conditions that failed, with weights compared whatever their number, with approximations that do not
say so, with two links of one name, with models that are gone counted among those of a file.
"""

import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens.nn import BilinearClassifier
from bilens_explorer import compare
from bilens_explorer.compare import comparison
from bilens_explorer.compare_page import compare_page
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import id_of
from chromium import needs_browser
from commands import model_folder
from explorer_server import client_of, opened_page, served
from report_documents import audit_of, failed, make_document

HOSTILE = '<img src=x onerror="console.log(1)">'
A, B, OTHER = map(id_of, ("alpha", "beta", HOSTILE))


def audited(root: Path, name: str, document: dict[str, Any]) -> int:
    return bl.History(root).add(audit_of(root / name, document).record).number


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """beta is alpha with its classes doubled, another model of the same size, and their audits."""
    root = tmp_path / "runs"
    model = tiny.classifier()
    model_folder(root / "alpha", model)
    with torch.no_grad():
        model.head.weight *= 2
    model_folder(root / "beta", model)
    torch.manual_seed(1)
    model_folder(root / HOSTILE, tiny.classifier(seed=1))
    asked = [{"condition": "coverage<1.1", "rule": "coverage", "value": 1.0, "failed": True}]
    audited(root, "alpha", make_document())
    audited(root, "beta", make_document())
    audited(root, "beta", failed() | {"conditions": asked})
    return root


@pytest.mark.parametrize("shape", [(6, 4, 2), (36, 8, 3)])
def test_between_unrelated_models_nothing_is_a_trigger(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """Seen red: of models so small that independent numbers cannot be told from others."""
    for seed, name in enumerate("ba"):
        torch.manual_seed(seed)
        model_folder(tmp_path / name, model := BilinearClassifier(*shape))
    with torch.no_grad():
        for one in model.parameters():
            one *= 1 + 0.3 * torch.randn(one.shape)
    model_folder(tmp_path / "c", model)
    folder = ServedFolder(tmp_path)
    pages = [compare_page(comparison(folder, id_of("a"), id_of(other)), "en", "") for other in "bc"]
    assert ["Candidate triggers" in page for page in pages] == [False, True]


def compared(client: TestClient, **query: str) -> Any:
    return client.get("/api/v1/compare", params={"a": A, "b": B} | query)


def test_what_is_doubled_is_told(client: TestClient) -> None:
    found = compared(client).json()
    assert [one["name"] for one in found["difference"]["whole"]["changed"]] == ["head.weight"]
    (layer,) = found["difference"]["layers"]
    assert layer["change"] == pytest.approx(1, abs=1e-6)  # ‖2Q − Q‖ / ‖Q‖
    assert layer["frobenius"] == pytest.approx(1, abs=1e-6)
    assert found["why"] == ""
    same = compared(client, b=A).json()
    assert same["difference"]["whole"]["changed"] == []


def test_rules_end_as_their_conditions_do_and_the_worse_ones_are_first(client: TestClient) -> None:
    rules = compared(client, b=B).json()["rules"]
    worse = [one for one in rules if one["direction"] == "worse"]
    assert rules[: len(worse)] == worse
    ended = {one["rule"]: one for one in worse}
    assert (ended["exact"]["a"]["outcome"], ended["exact"]["b"]["outcome"]) == ("pass", "fail")
    assert ended["coverage"]["b"]["outcome"] == "fail"  # by the condition alone


def test_eigenvectors_of_the_same_map_are_their_own_pairs(client: TestClient) -> None:
    query = {"a": A, "b": B, "layer": "layers.0", "output": "1"}
    found = client.get("/api/v1/compare/eigenvectors", params=query).json()
    assert found["pairs"]
    for pair in found["pairs"]:
        assert pair["a"] == pair["b"]
        assert pair["cosine"] == pytest.approx(1, abs=1e-6)
    for one, other in zip(found["a"]["values"], found["b"]["values"], strict=True):
        assert other == pytest.approx(2 * one)
    for side in "ab":
        ranks = [one["rank"] for one in found[side]["vectors"]["vectors"]]
        assert ranks == [*range(1, len(found[side]["values"]) + 1)]
    assert found["score"] > found["chance"]
    other = client.get("/api/v1/compare/eigenvectors", params=query | {"b": OTHER}).json()
    assert max(one["cosine"] for one in other["pairs"]) < 1 - 1e-3


def test_approximations_say_so_first_or_are_not_compared(root: Path) -> None:
    for name, gate in (("near", "silu"), ("nearer", "silu"), ("far", "relu"), ("farther", "relu")):
        model = tiny.classifier(seed=len(name), gate=gate)
        model.embed.weight.data *= 0.3 if gate == "silu" else 1  # where a SiLU is nearly quadratic
        model_folder(root / name, model)
    near, nearer, far, farther, alpha = map(id_of, ("near", "nearer", "far", "farther", "alpha"))
    with client_of(root) as client:
        query = {"a": near, "b": nearer, "layer": "layers.0"}
        found = client.get("/api/v1/compare/eigenvectors", params=query).json()
        for side, key in (("a", near), ("b", nearer)):
            asked = {"layer": "layers.0"}
            alone = client.get(f"/api/v1/models/{key}/spectrum", params=asked).json()
            assert found[side]["approximation"] == alone["approximation"]
        exact = client.get("/api/v1/compare/eigenvectors", params=query | {"b": alpha}).json()
        assert exact["b"]["approximation"] is None
        refused = client.get("/api/v1/compare/eigenvectors", params=query | {"b": far})
        assert "is not a quadratic form of its input" in refused.json()["error"]
        least = compared(client, a=near, b=nearer).json()["r_squared"]
        assert 0.9 <= least <= min(found[x]["approximation"]["r_squared"] for x in "ab") + 0.01
        assert compared(client, a=far, b=farther).json()["r_squared"] is None  # nothing is compared
        page = client.get("/compare", params={"a": near, "b": nearer, "lang": "en"}).text
        assert page.index("R² ≥ 0.") < page.index("What nearer (B) has otherwise")


def test_links_to_both_audits_have_names_of_their_own(client: TestClient) -> None:
    page = client.get("/compare", params={"a": A, "b": B, "lang": "en"}).text
    instead = page.partition("<noscript>")[2].partition("</noscript>")[0]
    assert re.findall(r"<a [^>]*>(.*?)</a>", instead) == ["Audit 1 of alpha", "Audit 3 of beta"]
    page = client.get("/compare", params={"a": B, "b": B, "lang": "en"}).text
    assert page.count("Audit 3 of beta") == 1


def test_what_is_gone_has_no_part_in_a_file(root: Path) -> None:
    for name in ("lost", "gone"):
        audited(root, name, make_document())
    found = compare.held_pairs(ServedFolder(root))
    assert found == [*combinations(sorted((A, B, OTHER)), 2)]


def test_models_that_are_not_alike_or_too_large_say_so(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(root / "gamma", tiny.classifier(n_layers=2, gate="silu"))
    damaged = model_folder(root / "delta", tiny.classifier())
    (damaged / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr("bilens_explorer.folder.FRESH", 0)
    unlike = compared(client, b=id_of("gamma")).json()
    unlike_layer, alone = unlike["difference"]["layers"]
    assert "gated silu" in unlike_layer["refused"]
    assert "the baseline has no such layer" in alone["refused"]
    for query in ({"b": id_of("delta")}, {"a": id_of("delta")}):
        told = compared(client, **query).json()
        assert told["difference"] is None
        assert "model.safetensors" in told["why"]
        assert str(root) not in told["why"]
    monkeypatch.setattr(compare, "WORK", 10)
    narrow = compared(client, a=B, b=A).json()
    assert (narrow["difference"]["layers"], narrow["left_out"]) == ([], 1)
    monkeypatch.setattr(compare, "LARGEST", 10)
    assert "`bilens audit beta --baseline alpha`" in compared(client).json()["why"]
    shutil.rmtree(root / "beta")
    assert compared(client).json()["why"] == "beta is no longer in the folder"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"a": "../x"}, 400),
        ({"b": "0" * 16}, 404),
    ],
)
def test_what_is_not_there_is_refused(
    client: TestClient, query: dict[str, str], status: int
) -> None:
    assert compared(client, **query).status_code == status
    assert client.get("/compare", params={"a": A, "b": B} | query).status_code == status


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_comparison_has_a_page(client: TestClient, lang: str) -> None:
    for query in ({"b": B}, {"b": OTHER}):
        page = client.get("/compare", params={"a": A, "lang": lang} | query)
        assert page.status_code == 200
        assert HOSTILE not in page.text


@needs_browser
def test_two_are_chosen_and_compared_by_keyboard(browser: Any, root: Path) -> None:
    for name in ("near", "nearer"):
        model = tiny.classifier(seed=len(name), gate="silu")
        model.embed.weight.data *= 0.3  # where a SiLU is nearly quadratic
        model_folder(root / name, model)
    bl.History(root).say("label", "alpha", "class:0:positive:0", "loop of a 6", "Kei")
    with served(root) as address, opened_page(browser, base_url=address) as page:
        page.goto(f"/models/{B}?lang=en")
        page.get_by_role("button", name="Compare with…").press("Enter")
        choice = page.get_by_label("Compare with…")
        choice.wait_for()
        names = choice.locator("option").all_inner_texts()
        assert {*names} == {"alpha", HOSTILE, "near", "nearer"}
        page.keyboard.type("al")
        page.get_by_role("link", name="Compare", exact=True).press("Enter")
        page.wait_for_url("**/compare?*")
        page.get_by_role("heading", name="Rule by rule").wait_for()
        page.locator(".matched li").first.wait_for()
        assert page.get_by_text("|cos| = 1").count() > 1
        page.locator(".matched .label", has_text="loop of a 6").wait_for()
        output = page.get_by_label("Output")
        output.select_option("1")
        page.locator(".matched li").first.wait_for()
        assert "output=1" in page.url
        for width in (360, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(f"/compare?a={B}&b={OTHER}&lang=ja")
        page.locator(".matched li").first.wait_for()
        assert page.locator("main img").count() == 0
        for lang, words in (("en", "quadratic approximation"), ("ja", "2次近似")):
            page.goto(f"/compare?a={id_of('near')}&b={id_of('nearer')}&lang={lang}")
            page.locator(".matched li").first.wait_for()
            parts = page.locator("[data-view=compare] .spectra > *").all_inner_texts()
            for side, part in zip("AB", parts[:2], strict=True):  # before anything else
                assert part.startswith(f"{side}: R² = 0.9")
                assert words in part
