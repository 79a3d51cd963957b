"""Guards against conditions that pass on a number of an assumed input, or of a part of the map.

Each was seen to pass with a tick: a bias changed by 10 called a change of 0, as a quadratic part
alone was compared; R² and shares of a GELU under a standard normal input, which is no real one.
"""

import copy
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl
from commands import Shell
from contract.compared_models import classifier, generator_of
from contract.table import cell

FEW = {"null_samples": 39}
WORDS: dict[str, tuple[str, str, str]] = {
    "en": ("rests on an assumed input", "--data, --text", "deviation 1"),
    "ja": ("仮定した入力に基づき", "--data、--text", "標準偏差が1"),
}


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def activated(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 3)).eval()


def with_output_bias(model: nn.Module, bias: float) -> nn.Module:
    found: Any = copy.deepcopy(model)
    with torch.no_grad():
        found[2].bias += bias
    return found  # type: ignore[no-any-return]


def with_branch_bias(model: Any, bias: float) -> Any:
    found = copy.deepcopy(model)
    with torch.no_grad():
        found.layers[0].left.bias += bias
    return found


def judged(report: Any) -> list[tuple[bool, float | None, str]]:
    return [(one.failed, one.value, one.ground) for one in report.record.conditions]


def lines_of(bilens: Shell, folder: Path, line: Sequence[Any], code: int) -> list[str]:
    """What a terminal, a page and the Markdown say, in each language."""
    found = []
    for lang in ("en", "ja"):
        files = [folder / f"{lang}.{ending}" for ending in ("html", "md")]
        more = ("--html", files[0], "--markdown", files[1], "--lang", lang, "--overwrite")
        result = bilens("audit", *line, "--null-samples", 39, *more)
        assert result.code == code
        found.append(result.out + result.err + "".join(one.read_text("utf-8") for one in files))
    return found


def ends_of(shown: str, condition: str) -> set[str]:
    """The marks in front of a condition on a terminal, in Markdown and on a page."""
    said = html.unescape(re.sub("</?[a-z][^>]*>|\\\\", "", shown.replace("<br", "\n<br")))
    found = re.findall(rf"([✓✗!i?])[^✓✗\n]{{0,20}}{re.escape(condition)}(?:: |：)", said)
    assert len(found) >= 3
    return {*found}


@cell("compare", "other function")
@pytest.mark.parametrize("layers", [1, 2])
def test_a_changed_bias_is_a_change_of_an_exact_map(layers: int) -> None:
    baseline = classifier(3, layers=layers)
    model = with_branch_bias(baseline, 10.0)
    x = torch.randn(400, 6, generator=generator_of(0), dtype=torch.float64)
    alike = (model(x).argmax(1) == baseline(x).argmax(1)).double().mean()
    assert float(alike) < 0.9, "what is compared differs"
    report = bl.audit(model, baseline=baseline, fail_on=["change>0.1"], **FEW)
    ((failed, value, ground),) = judged(report)
    assert failed
    assert value is not None
    assert value > 0.1
    assert ground == ""
    assert report.passed is False
    same = bl.audit(baseline, baseline=copy.deepcopy(baseline), fail_on=["change>0.1"], **FEW)
    assert judged(same) == [(False, 0.0, "")]


@cell("compare", "other function")
def test_the_change_of_an_exact_map_is_that_of_its_answers() -> None:
    """‖g − f‖ beside ‖f − mean‖ on very many standard normal inputs, by hand."""
    baseline = classifier(3)
    model = with_branch_bias(baseline, 0.3)
    report = bl.audit(model, baseline=baseline, **FEW)
    layer = report.to_dict()["difference"]["layers"][0]
    x = torch.randn(200_000, 6, generator=generator_of(0), dtype=torch.float64)
    with torch.no_grad():
        f, g = (centred(one(x)) for one in (baseline, model))
    moved = float((g - f).norm() / (f - f.mean(dim=0)).norm())
    assert layer["change"] < 1e-9
    assert layer["map_change"] == pytest.approx(moved, rel=0.03)


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)


@cell("compare", "other function")
def test_a_small_change_of_an_exact_map_is_no_tick_without_data(
    bilens: Shell, tmp_path: Path
) -> None:
    """In other units than assumed it may be a large one: the build passes, and is told so."""
    baseline = classifier(3)
    model = with_branch_bias(baseline, 0.001)
    paths = [bl.save(one, tmp_path / name) for name, one in (("b", model), ("a", baseline))]
    line = (tmp_path / "b", "--baseline", tmp_path / "a", "--fail-on", "change>0.1")
    assert paths
    for lang, shown in zip(WORDS, lines_of(bilens, tmp_path, line, 0), strict=True):
        assert ends_of(shown, "change>0.1") == {"i"}
        assert shown.count(WORDS[lang][2]) >= 4, "of rule and condition, on page and in Markdown"


@cell("compare", "other function")
def test_a_changed_bias_of_an_activated_layer_is_not_passed_without_data() -> None:
    baseline = activated(nn.ReLU())
    model = with_output_bias(baseline, 10.0)
    asked = ["change>0.1"]
    more: dict[str, Any] = {"fail_on": asked, "threshold": 0.0, **FEW}
    report = bl.audit(model, baseline=baseline, **more)
    assert judged(report)[0][0]
    assert report.passed is False
    small = with_output_bias(baseline, 1e-6)
    report = bl.audit(small, baseline=baseline, **more)
    assert judged(report) == [(True, None, "assumed")]
    x = torch.randn(600, 6, generator=generator_of(0))
    data = (x, model(x).argmax(1))
    assert judged(bl.audit(model, data, baseline=baseline, **more))[0][0]
    ((failed, value, ground),) = judged(bl.audit(small, data, baseline=baseline, **more))
    assert (failed, ground) == (False, "")
    assert value is not None


@cell("audit", "other function")
def test_conditions_on_an_assumed_input_fail_and_say_what_to_do(
    bilens: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "gelu.safetensors"
    save_file(activated(nn.GELU()).state_dict(), path)
    asked = ("--activation", "gelu", "--fail-on", "r2<0.5", "--fail-on", "low_rank<0.01")
    for lang, shown in zip(WORDS, lines_of(bilens, tmp_path, (path, *asked), 1), strict=True):
        for word in WORDS[lang][:2]:
            assert shown.count(word) >= 4, "two conditions, on a page and in Markdown"
        for condition in asked[3::2]:
            assert ends_of(shown, condition) == {"✗"}
        assert "counted as failed (give --data or --text): r2<0.5, low_rank<0.01" in shown


@cell("audit", "other function")
def test_a_layer_with_data_beside_it_does_not_vouch_for_one_without() -> None:
    """An exact layer has a number of its own; that of the other is not known."""
    torch.manual_seed(0)
    first = bl.nn.BilinearMLP(6, 8, 6)
    model = nn.Sequential(first, nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)).eval()
    asked = ["dominant_inputs>0.999", "low_rank<0.0001", "r2<0.01"]
    report = bl.audit(model, fail_on=asked, threshold=0.0, **FEW)
    unknown = (True, None, "")  # nothing says in which units the inputs compare
    assert judged(report) == [unknown, *[(True, None, "assumed")] * 2]
    exact = bl.audit(nn.Sequential(first).eval(), fail_on=asked, **FEW)
    assert [one[0] for one in judged(exact)] == [True, False, False]
