"""Without data the statistics in a file are the assumed input, named as such, and prove nothing.

Broken once: N(0, I) stood in for inputs of deviation 143, units that fire on nearly every input
were called never active, and others of one direction for their large biases.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import bilens as bl
from bilens.records.audit import Audit
from bilens.report.sections.layers import LAYERS, layer_rows
from bilens.report.text import LANGUAGES, load_catalogue
from builders import randn
from report_documents import page_of

IN, HIDDEN, OUT, DEVIATION = 6, 24, 5, 143.0


def page_of_text(rows: int = 4000) -> Tensor:
    """Inputs like those of the first layers of a reader of pages: far from zero, and wide."""
    return 60 + DEVIATION * randn(rows, IN, seed=8)


def read_behind() -> nn.Sequential:
    """A small layer of a reader of pages: weights, their statistics, ReLU, weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(IN, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT)
    net = nn.Sequential(*layers).double()
    with torch.no_grad():
        net[0].weight.copy_(randn(HIDDEN, IN, seed=1))
        seen = net[0](page_of_text())
        net[1].running_mean.copy_(seen.mean(dim=0))  # type: ignore[union-attr,operator]
        net[1].running_var.copy_(seen.var(dim=0))  # type: ignore[union-attr,operator]
        net[1].weight.copy_(0.1 + 0.05 * randn(HIDDEN, seed=2).abs())
        net[1].bias.copy_(randn(HIDDEN, seed=3) / 5)
    return net.eval()


def written(net: nn.Sequential, path: Path) -> Path:
    """The same as an ONNX file, by hand."""
    first, norm, _, last = net
    parts = {
        "w": first.weight.T, "b": first.bias, "n.gain": norm.weight, "n.shift": norm.bias,
        "n.mean": norm.running_mean, "n.var": norm.running_var, "v": last.weight.T, "c": last.bias,
    }  # fmt: skip
    stored = [
        numpy_helper.from_array(part.detach().numpy().astype(np.float32), name)  # type: ignore[union-attr,operator]
        for name, part in parts.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node(
            "BatchNormalization", ["z", "n.gain", "n.shift", "n.mean", "n.var"], ["y"]
        ),
        helper.make_node("Relu", ["y"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "c"], ["o"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", IN), ("o", OUT))
    ]
    graph = helper.make_graph(nodes, "reader", ends[:1], ends[1:], stored)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def audited(model: Any) -> Audit:
    return bl.audit(model, null_samples=3).record


def found(record: Audit) -> Any:
    assert record.layers is not None
    (reading,) = record.layers.readings
    return reading


def test_no_unit_that_fires_is_dead_and_none_that_differ_are_the_same(tmp_path: Path) -> None:
    net = read_behind()
    with torch.no_grad():
        fire = (net[:3](page_of_text()) > 0).any(dim=0)
    assert int(fire.sum()) >= HIDDEN - 1
    for model in (net, bl.load(written(net, tmp_path / "reader.onnx"))):
        units = found(audited(model)).units
        assert (units.dead, units.never_active, units.duplicates) == (0, 0, 0)


@pytest.mark.parametrize("stored", [False, True])
def test_statistics_behind_the_weights_are_the_assumed_input(stored: bool, tmp_path: Path) -> None:
    net = read_behind()
    model: Any = bl.load(written(net, tmp_path / "reader.onnx")) if stored else net
    fit = found(audited(model)).fit
    assert fit.assumed_input == f"N(μ, σ²) of the BatchNorm {'n' if stored else 1} right behind"
    assert (fit.seen, fit.fit) == (False, "given normal")
    x = page_of_text()
    opened = bl.load(written(net, tmp_path / "again.onnx"))
    (view,) = opened.layers.values()
    assumed = view.assumed_input()
    assert assumed is not None
    assert float(assumed.root.diagonal().mean()) == pytest.approx(DEVIATION, rel=0.1)  # type: ignore[union-attr]
    assert (assumed.mean - x.mean(dim=0)).abs().max() < 0.1 * DEVIATION
    # what it says of the neurons is what they see there
    seen = net[0](x)
    drawn = net[0](assumed.draw(4000, torch.Generator().manual_seed(0)))
    assert torch.allclose(drawn.mean(dim=0), seen.mean(dim=0), atol=0.2 * DEVIATION)


def test_statistics_in_front_are_taken_as_they_are() -> None:
    """Also the gain and the shift of a norm of each row, which a layer does not contain."""
    layers = (nn.Linear(IN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT))
    batch = nn.Sequential(nn.BatchNorm1d(IN), *layers).double().eval()
    mean, deviation = randn(IN, seed=4), 1 + randn(IN, seed=5).abs()
    batch[0].running_mean.copy_(mean)  # type: ignore[union-attr,operator]
    batch[0].running_var.copy_(deviation.square())  # type: ignore[union-attr,operator]
    rows = nn.Sequential(nn.LayerNorm(IN), *layers).double().eval()
    with torch.no_grad():
        rows[0].weight.copy_(deviation)
        rows[0].bias.copy_(mean)
    for net, name in ((batch, "BatchNorm 0"), (rows, "LayerNorm 0")):
        model = bl.from_module(net)
        (view,) = model.layers.values()
        assumed = view.assumed_input()
        assert assumed is not None
        assert assumed.about == f"N(μ, σ²) of the {name} in front"
        assert torch.allclose(assumed.mean, mean)
        assert torch.allclose(assumed.root.diagonal(), deviation)  # type: ignore[union-attr]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_rests_on_it_earns_no_tick_and_is_told_with_its_name(lang: str) -> None:
    record, t = audited(read_behind()), load_catalogue(lang)
    assert record.layers is not None
    (r2,) = (one for one in record.verdict if one.rule == "r2")
    assert r2.outcome in ("info", "warn")
    _, _, ((name, score, *_),) = LAYERS.as_texts(t, layer_rows(t, record.layers))
    assert score.endswith(t("layers.table.assumed", all=""))
    page = page_of(bl.AuditReport(record).to_dict(), lang)
    assert "N(μ, σ²) of the BatchNorm 1 right behind" in page
    assert t("layers.facts.normal", inputs="N(μ, σ²) of the BatchNorm 1 right behind") in page
    assert "whatever the inputs" not in page
    assert name


def test_both_sides_of_a_comparison_are_read_under_one_input() -> None:
    """Else other statistics would be told as a change of the layer's map, twice."""
    net, other = read_behind(), read_behind()
    with torch.no_grad():
        other[3].bias.add_(1)
        other[1].running_var.mul_(2)  # type: ignore[union-attr,operator]
        other[1].weight.mul_(2**0.5)
    record = bl.audit(net, baseline=other, null_samples=3).record
    assert record.difference is not None
    (layer,) = record.difference.layers
    assert layer.change == pytest.approx(0, abs=1e-9)
