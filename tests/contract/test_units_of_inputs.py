"""Guards against naming an input by the units of the columns, and not by what the model does.

Seen: a column in thousands of kilometres, in the place of kilometres, made another input the one
that a layer rests on, of the same function of the same rows.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import NumericalError
from bilens.data.own_images import own_images
from bilens.io.loaded_model import LoadedModel
from commands import Shell
from contract.table import cell

WIDTH, COUNT = 4, 800
UNITS = torch.tensor([1e-3, 1.0, 100.0, 0.1], dtype=torch.float64)


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def rows() -> Tensor:
    x = torch.randn(COUNT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return x * torch.tensor([10.0, 1.0, 0.1, 1.0]) + torch.tensor([40.0, 2.0, 0.0, -3.0])


def layer(seed: int = 0) -> bl.nn.BilinearMLP:
    torch.manual_seed(seed)
    return bl.nn.BilinearMLP(WIDTH, 6, 3, skip=True, bias=True).double()


def in_units(model: Any, units: Tensor) -> Any:
    with torch.no_grad():
        for part in (model.left, model.right, model.skip):
            part.weight.div_(units)
    return model


def share_by_hand(model: Any, x: Tensor) -> Tensor:
    """Variance of each output along each input and pair, by autograd, in deviations of the rows."""
    mean, deviation = x.mean(dim=0), x.std(dim=0)
    shares, y = torch.zeros(WIDTH, dtype=torch.float64), model(x).std(dim=0)
    z = torch.zeros(WIDTH, dtype=torch.float64)
    for k in range(3):

        def one(at: Tensor, k: int = k) -> Tensor:
            return model((mean + deviation * at)[None])[0, k] / y[k]  # type: ignore[no-any-return]

        slope = torch.autograd.functional.jacobian(one, z)
        bent = torch.autograd.functional.hessian(one, z) / 2
        shares += slope.square() + 2 * bent.square().sum(dim=1)
    return shares / shares.sum()


def dominant(model: Any, data: Any = None, **known: Any) -> Any:
    module = nn.Sequential(model).eval()
    loaded = bl.from_module(module) if not known else LoadedModel(model, "", "", **known)
    report = bl.audit(loaded, data, null_samples=39, fail_on=["dominant_inputs>0.999"])
    found = [one for one in report.record.verdict if one.rule == "dominant_inputs"]
    return report, found


@cell("audit", "other units", "same function")
def test_the_input_that_a_layer_rests_on_is_the_same_in_all_units() -> None:
    x, shown = rows(), []
    for units in (torch.ones(WIDTH, dtype=torch.float64), UNITS):
        model = in_units(layer(), units)
        data = (x * units, model(x * units).argmax(dim=1).detach())
        report, (found,) = dominant(model, data)
        by_hand = share_by_hand(model, x * units)
        assert found.values["input"] == str(int(by_hand.argmax()))
        assert found.values["value"] == pytest.approx(float(by_hand.max()), rel=1e-9)
        assert "each input in its deviation over the rows" in report.to_html()
        shown.append(found.values["value"])
    assert shown[1] == pytest.approx(shown[0], rel=1e-9)


@cell("audit", "other units")
def test_nothing_is_said_of_inputs_in_units_of_their_own_without_rows() -> None:
    report, found = dominant(layer())
    assert found == []
    (condition,) = report.record.conditions
    assert condition.failed
    assert condition.value is None


@cell("audit", "other names")
def test_the_input_is_said_by_its_name_and_pixels_are_compared_as_they_are() -> None:
    x, model = rows(), layer()
    data = (x, model(x).argmax(dim=1).detach())
    names = ("age", "km", "rate", "size")
    _, (found,) = dominant(model, data, input_names=names)
    assert found.values["input"] == names[int(share_by_hand(model, x).argmax())]
    said = {"input_shape": (2, 2), "provenance": {"data_name": "mnist"}}
    _, (seen,) = dominant(layer(), None, **said)
    with torch.no_grad():
        b = torch.einsum("oh,hi,hj->oij", model.down.weight, model.left.weight, model.right.weight)
    b = (b + b.mT) / 2
    shares = (b.square().sum(dim=(0, 2)) / b.square().sum()).numpy()
    assert seen.values["input"] == int(np.argmax(shares))
    assert seen.values["value"] == pytest.approx(float(shares.max()))


def table_model(folder: Path) -> Path:
    torch.manual_seed(2)
    model = bl.nn.BilinearClassifier(WIDTH, 6, 1, bias=True).double()
    said = {"task": "regression", "ends": ""}
    return bl.save(model, folder, input_names=("age", "km", "rate", "size"), provenance=said)


@cell("audit", "other units")
def test_a_table_model_that_knows_no_units_is_read_in_those_of_the_rows(tmp_path: Path) -> None:
    """Seen: 21 % from single columns, in columns as they come; of the rows it was 95 %."""
    model, x = bl.load(table_model(tmp_path / "model")), rows()
    f = model.module
    mean, deviation = x.mean(dim=0), x.std(dim=0)

    def one(z: Tensor) -> Tensor:
        return f((mean + deviation * z)[None])[0, 0]  # type: ignore[no-any-return, operator, misc]

    z = torch.zeros(WIDTH, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(one, z)
    bent = torch.autograd.functional.hessian(one, z) / 2
    parts = slope.square().sum(), 2 * bent.diagonal().square().sum()
    variance = float(slope.square().sum() + 2 * bent.square().sum())
    report = bl.audit(model, (x, f(x).detach()[:, 0]))  # type: ignore[misc, operator]
    (item,) = report.record.columns.outputs
    assert item.constant == pytest.approx(float(one(z).detach()))
    assert item.variance == pytest.approx(variance)
    assert item.linear_share == pytest.approx(float(parts[0]) / variance)
    assert item.square_share == pytest.approx(float(parts[1]) / variance)
    for lang, words in (("en", "deviation of the rows given"), ("ja", "与えられた行の標準偏差")):
        assert words in report.to_html(lang=lang)
        assert words in report.to_markdown(lang=lang)


@cell("audit", "other units")
def test_without_rows_the_numbers_are_said_to_be_of_standard_normal_columns(
    tmp_path: Path, bilens: Shell
) -> None:
    path = table_model(tmp_path / "model")
    report = bl.audit(bl.load(path))
    for lang, words, facts in (
        ("en", "independent standard normal columns", ("At the mean row", "At a row of zeros")),
        ("ja", "独立な標準正規分布に従う列", ("平均の行での値", "すべて 0 の行での値")),
    ):
        page = report.to_html(lang=lang)
        assert page.count(words) >= 3  # the sentence, the units, the column of deviations
        assert facts[0] not in page
        assert facts[1] in page
        assert words in report.to_markdown(lang=lang)
    shown = bilens("audit", path).out
    assert "independent standard normal columns" in " ".join(shown.split())


@cell("certify", "other dtype", "other units")
@cell("audit", "other dtype")
def test_a_model_in_float64_is_compared_in_float64() -> None:
    """Seen: 1.0e-05 in float32, of a column of years; in float64, as it is stored, 1e-13."""
    model = bl.nn.BilinearClassifier(3, 3, 2, bias=True).double()
    layer: Any = model.layers[0]
    with torch.no_grad():  # the product of z, a column of years less 2023, over 0.8, and a − b
        for part in model.parameters():
            part.zero_()
        model.embed.weight.copy_(torch.tensor([1 / 0.8, 1.0, 1.0]).diag())
        for branch in (layer.left, layer.right):
            branch.weight[:2, 0], branch.bias[:2] = 1.0, -2023 / 0.8
        layer.right.weight[0, 1] = layer.right.weight[1, 2] = 5.0
        model.head.weight[0, 0], model.head.weight[0, 1] = 1.0, -1.0
    certificate, audit = bl.certify_model(model), bl.audit(model)
    for report in (certificate, audit):
        (found,) = report.record.exactness
        assert found.precision == "float64"
        assert found.passed
        assert found.tolerance == 1e-12
        assert "single precision" not in report.to_html()
    assert next(one for one in audit.record.verdict if one.rule == "exact").outcome == "pass"
    with pytest.raises(NumericalError):
        bl.certify_model(copy.deepcopy(model).float())


@cell("audit", "other units")
def test_rows_of_any_shape_are_no_pixels() -> None:
    """Seen: 22.5 % of hours of sensors; 54.5 %, of another input, in thousands of one."""
    base, shown = torch.randn(COUNT, 2, 2, dtype=torch.float64), []
    for unit in (1.0, 1e3):
        units = torch.tensor([1.0, unit], dtype=torch.float64).expand(2, 2)
        model, x = in_units(layer(), units.flatten()), base * units
        data = (x, model(x.flatten(1)).argmax(dim=1).detach())
        for known in ({}, {"input_shape": (2, 2)}):
            _, (found,) = dominant(model, data, **known)
            shown.append((found.values["input"], found.values["value"]))
    assert {int(one[0]) for one in shown} == {int(shown[0][0])}
    assert [one[1] for one in shown] == pytest.approx([shown[0][1]] * 4)


def test_bytes_and_images_of_a_data_set_are_pixels() -> None:
    model, x = layer(), (255 * torch.rand(COUNT, 2, 2)).to(torch.uint8)
    answers = model(x.flatten(1).double() / 255).argmax(dim=1).detach()
    plain = dominant(layer(), None, input_shape=(2, 2), provenance={"data_name": "mnist"})[1]
    seen = own_images(x, answers, (x, answers))
    for data in ((x, answers), seen):
        (found,) = dominant(model, data)[1]
        assert found.values["value"] == pytest.approx(plain[0].values["value"])
