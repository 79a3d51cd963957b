"""Guards against rows of the caller on which a model answers otherwise than what was read of it.

Seen red: an audit that compared each hundredth row, and every other verb with data, which compared
none; a module that looks at how many rows it is given.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.api.classifier import explain_predictions
from bilens.api.layer_reading import moments_of
from bilens.api.network_conversion import convert_network
from bilens.api.quadratic_fit import fit_layers_of
from bilens.api.subject import MOST_COMPARED, check_on_rows
from bilens.base.errors import NumericalError, UsageError
from bilens.data.model_interface import LabelledData
from bilens.io.loaded_model import LoadedModel
from bilens.records.common import DataOrigin
from contract.table import cell

FAR = 41  # the row at which a hook sets in


def rows(count: int = 600) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(count, 5, dtype=torch.float64)
    x[FAR] *= 1e5
    return x, torch.arange(count) % 3


def hooked(module: nn.Module) -> nn.Module:
    """Return a module that a user clamps where its inputs are large, and looks on elsewhere."""

    def clamp(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor] | None:
        large = bool((given[0].abs() > 1000).any())
        return (given[0].clamp(-1000, 1000),) if large else None

    module.register_forward_pre_hook(clamp)
    return module


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return hooked(bl.nn.BilinearClassifier(5, 6, 3).double())


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)
    return hooked(nn.Sequential(*parts).double().eval())


def loaded(folder: Path) -> LoadedModel:
    bl.save(bl.nn.BilinearClassifier(5, 6, 3), folder / "m")
    model = bl.load(folder / "m")
    assert model.module is not None
    hooked(model.module)
    return model


VERBS: dict[str, Callable[[Path], Any]] = {
    "audit": lambda _: bl.audit(classifier(), rows(), null_samples=39),
    "audit, training": lambda _: bl.audit(
        classifier(), (torch.rand(9, 5), torch.arange(9) % 3), train_data=rows(), null_samples=39
    ),
    "audit of a module": lambda _: bl.audit(network(), rows()),
    "certify": lambda _: bl.certify_model(classifier(), rows()),
    "attack": lambda _: bl.attack_model(classifier(), rows(), restarts=1),
    "explain": lambda folder: explain_predictions(loaded(folder), rows(), [0]),
    "fit": lambda _: bl.quadratic_fit(network(), data=rows()[0]),
    "fit layers": lambda _: fit_layers_of(bl.from_module(network()), rows()[0]),
    "decompose": lambda _: moments_of(
        LabelledData(rows()[0], None, DataOrigin("d", "d", "arrays", 600, "")),
        bl.from_module(network()),
    ),
    "convert": lambda folder: convert_network(network(), rows(3000)[0], folder / "out"),
}


@cell("audit", "own object")
@cell("certify", "own object")
@cell("attack", "own object")
@cell("explain", "own object")
@cell("fit", "own object")
@cell("decompose", "own object")
@cell("convert", "own object")
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_compares_on_every_row_and_names_the_one_that_differs(
    verb: str, tmp_path: Path
) -> None:
    with pytest.raises(NumericalError, match=rf"on row {FAR} of the data .*hooks"):
        VERBS[verb](tmp_path)


@cell("load estimator", "own object")
def test_an_estimator_is_compared_on_rows_as_it_predicts() -> None:
    from sklearn.neural_network import MLPRegressor

    x = rows()[0].numpy()
    fitted = MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, random_state=0).fit(
        np.clip(x, -2, 2), x[:, 0]
    )
    own = fitted._forward_pass_fast
    fitted._forward_pass_fast = lambda given, **how: own(np.clip(given, -1e3, 1e3), **how)
    with pytest.raises(NumericalError, match=f"on row {FAR} of the data"):
        bl.audit(fitted, (x, x[:, 0]))


@cell("load file", "own object")
def test_an_onnx_file_is_compared_on_rows_as_it_runs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(5, 6)), "b": rng.normal(size=(6, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, 1, ["n", size])] for name, size in (("x", 5), ("y", 3))
    ]
    stored = [numpy_helper.from_array(a.astype("f4"), name) for name, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", *ends, stored)
    versions = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), tmp_path / "m.onnx")
    model = bl.load(tmp_path / "m.onnx")
    x = rows()[0]
    check_on_rows(model, x)
    arrays["b"][0] *= 1.5  # the file is another one when the rows come
    graph.initializer[1].CopyFrom(numpy_helper.from_array(arrays["b"].astype("f4"), "b"))
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(NumericalError, match=r"on row \d+ of the data"):
        check_on_rows(model, x)


def test_of_very_many_rows_the_extremes_of_each_column_are_compared() -> None:
    x = rows(4 * MOST_COMPARED)[0]
    with pytest.raises(NumericalError, match=rf"on row {FAR} of the data"):
        check_on_rows(bl.from_module(network()), x)


def test_rows_of_all_sizes_are_compared_without_a_false_alarm() -> None:
    """Float32 modules, far rows beside near ones, images: what is the same passes."""
    torch.manual_seed(0)
    x = torch.randn(500, 5) * torch.logspace(-6, 6, 500)[:, None]
    net = nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 20), nn.GELU(), nn.Linear(20, 1))
    check_on_rows(bl.from_module(net), x)
    data = tiny.images()
    check_on_rows(bl.from_module(tiny.classifier(0)), data.test_images)


class Counting(nn.Module):
    """Answers otherwise to one row alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 1 if len(x) == 1 else x


@cell("load module", "own object")
def test_a_module_is_run_on_one_row_alone_too() -> None:
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    net.register_forward_hook(lambda _, __, made: Counting()(made))
    with pytest.raises(UsageError, match="what was read differs"):
        bl.from_module(net)


class Around(nn.Module):
    """A network, and behind it a branch that no trace follows."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
        self.behind = Counting()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inside(x)
        return y - 1 if len(x) == 1 else y


@cell("load module", "own object")
def test_what_a_module_does_around_its_parts_is_said_not_to_be_read() -> None:
    report = bl.from_module(Around()).load_report
    assert report is not None
    assert any("the module itself: what it does around" in line for line in report.lines())
