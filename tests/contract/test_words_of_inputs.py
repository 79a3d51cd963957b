"""Guards against sentences about images, pixels or tokens where a model reads plain numbers.

Damage that it notices: "what their images show", "its strongest pixel" of five measured numbers.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.api.network_conversion import RECIPE
from bilens.io.loaded_model import LoadedModel
from bilens.report.reports import ConversionReport
from bilens.report.terminal import verdict_lines
from commands import Shell
from contract.table import cell

# what is said of searches and bytes in general may name images, and tells that there are none
OF_IMAGES = {
    "en": r"[Pp]ixel|images? show|coloured image|all images;|Test image",
    "ja": r"画素|クラスの画像|色付きの画像|全画像",
}


def words(page: str) -> str:
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def numbers() -> LoadedModel:
    return LoadedModel(tiny.classifier(d_input=5, d_output=3), "m", "0" * 64, None, None, {})


@cell("audit", "own object")
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_an_audit_of_numbers_says_nothing_of_pixels(lang: str) -> None:
    x = torch.randn(60, 5, dtype=torch.float64)
    model = numbers()
    report = bl.audit(model, (x, model.module(x).argmax(dim=1)), null_samples=39)
    said = " ".join([words(report.to_html(lang=lang)), *verdict_lines(report.record, lang)])
    assert any(one.rule == "beyond_null" for one in report.record.verdict)
    assert re.findall(OF_IMAGES[lang], said) == []


@cell("explain", "own object")
def test_an_explanation_of_numbers_is_of_inputs(bilens: Shell, tmp_path: Path) -> None:
    bl.save(numbers().module, tmp_path / "m")
    rows = "\n".join(",".join(f"{n:.3f}" for n in row) for row in torch.randn(20, 5).tolist())
    (tmp_path / "t.csv").write_text(f"a,b,c,d,e\n{rows}")
    found = bilens("explain", tmp_path / "m", "--index", "2", "--data", tmp_path / "t.csv")
    assert found.code == 0, found
    assert re.findall(r"[Ii]mage|[Pp]ixel", found.out) == []


@cell("convert", "own object")
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_conversion_on_rows_says_nothing_of_texts(lang: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    recipe = replace(RECIPE, layer_steps=0, tokens=2_000)
    found = bl.convert_network(net, torch.randn(200, 4), tmp_path / "c", recipe)
    said = words(ConversionReport(found).to_html(lang=lang))
    of_text = {
        "en": r"tokens read|instructions and safety|probable token|held-out beginnings",
        "ja": r"読んだトークン(?!または)|指示|トークンを選び|書き出し",
    }
    assert re.findall(of_text[lang], said) == []


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)
