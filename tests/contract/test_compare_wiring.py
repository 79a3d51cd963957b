"""Guards against two models called the same because their layers are.

Each was seen to pass as "bit for bit": layers in another order, one used twice or not at all, a
sign, a norm or a shift around them, a layer of another shape left out of the comparison.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.findings.rules.registry import parse_conditions
from bilens.records.base import to_json
from bilens.records.sweep import SweepOptions
from bilens.report.sections.sweep_page import sweep_lines
from bilens.report.text import load_catalogue
from bilens.sweep.driver import drive, plan_of
from bilens.sweep.output import SweepOutput
from bilens.sweep.report import report_of
from contract.compared_models import compared
from contract.table import cell
from engine_here import Here

CONDITIONS = ["changed_layers", "similarity<0.99", "change>0.1"]
FEW = {"null_samples": 3}
Way = Callable[[Any, Tensor], Tensor]


class Layer(nn.Module):
    """A bilinear layer."""

    def __init__(self, hidden: int = 5) -> None:
        super().__init__()
        self.w, self.v, self.p = nn.Linear(4, hidden), nn.Linear(4, hidden), nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.p(self.w(x) * self.v(x))
        return found


class Wired(nn.Module):
    """Two layers, and how they are put together."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.way = Layer(), Layer(), way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def usual(m: Any, x: Tensor) -> Tensor:
    found: Tensor = m.b(m.a(x))
    return found


WAYS: dict[str, Way] = {
    "another order": lambda m, x: m.a(m.b(x)),
    "one alone": lambda m, x: m.a(x),
    "one twice": lambda m, x: m.a(m.b(m.a(x))),
    "a sum": lambda m, x: m.a(x) + m.b(x),
    "a sign": lambda m, x: -usual(m, x),
    "a factor": lambda m, x: usual(m, 2 * x),
    "a norm before": lambda m, x: usual(m, functional.layer_norm(x, (4,))),
    "a norm between": lambda m, x: m.b(functional.layer_norm(m.a(x), (4,))),
    "turned outputs": lambda m, x: usual(m, x).roll(1, -1),
    "a softmax between": lambda m, x: m.b(m.a(x).softmax(-1)),
}


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {one["rule"]: one["outcome"] for one in document["verdict"]}


def failed(document: dict[str, Any]) -> set[str]:
    return {one["rule"] for one in document["conditions"] if one["failed"]}


@cell("compare", "other function")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("turned", [False, True])
def test_the_same_layers_put_together_otherwise_are_no_same_model(way: str, turned: bool) -> None:
    both = [Wired(WAYS[way]).double().eval(), Wired(usual).double().eval()]
    model, baseline = both[::-1] if turned else both
    x = torch.randn(50, 4).double()
    assert not torch.allclose(model(x), baseline(x)), "what is compared differs"
    found = compared(model, baseline, fail_on=CONDITIONS, **FEW)
    assert failed(found) == {"changed_layers", "similarity", "change"}
    assert "pass" not in {outcomes(found).get(rule) for rule in ("changed_layers", "similarity")}


@cell("compare", "same function")
@pytest.mark.parametrize("way", [usual, WAYS["a norm between"], WAYS["a sign"]])
def test_the_same_model_passes_also_where_it_is_not_wholly_read(way: Way) -> None:
    model = Wired(way).double().eval()
    found = compared(model, copy.deepcopy(model), fail_on=CONDITIONS, **FEW)
    assert failed(found) == set()
    assert found["difference"]["aligned"] == []


@cell("compare", "other function")
def test_other_weights_in_the_same_module_are_a_change_of_layers_alone() -> None:
    model, baseline = (Wired(WAYS["a norm between"]).double().eval() for _ in range(2))
    with torch.no_grad():
        model.b.p.weight.add_(1.0)
    found = compared(model, baseline, **FEW)
    assert found["difference"]["aligned"] == []
    assert outcomes(found)["changed_layers"] == "info"


@cell("compare", "other function")
@pytest.mark.parametrize("turned", [False, True])
def test_a_layer_that_one_alone_has_counts(turned: bool) -> None:
    torch.manual_seed(0)
    three = nn.Sequential(Layer(), Layer(), Layer()).double().eval()
    both = [three, copy.deepcopy(three)[:2]]
    found = compared(*(both[::-1] if turned else both), fail_on=CONDITIONS, **FEW)
    (rule,) = (one for one in found["verdict"] if one["rule"] == "changed_layers")
    assert (rule["values"]["value"], rule["values"]["of"], rule["values"]["layers"]) == (1, 3, "2")
    assert failed(found) == {"changed_layers", "similarity", "change"}


@cell("compare", "other function")
def test_a_layer_of_another_shape_is_not_passed_over() -> None:
    torch.manual_seed(0)
    old = nn.Sequential(Layer(), Layer()).double().eval()
    new = nn.Sequential(copy.deepcopy(old[0]), Layer(hidden=7)).double().eval()
    found = compared(new, old, fail_on=CONDITIONS, **FEW)
    assert failed(found) == {"changed_layers", "similarity", "change"}
    assert outcomes(found)["similarity"] == outcomes(found)["change"] == "info"


def written(folder: Path, change: dict[str, float]) -> list[Path]:
    """Two Llamas of the same weights, one with another configuration."""
    from transformers import LlamaConfig, LlamaForCausalLM  # slow to import

    for name, more in (("new", change), ("old", {})):
        torch.manual_seed(0)
        sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 12}
        heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
        LlamaForCausalLM(LlamaConfig(**sizes, **heads, **more)).save_pretrained(folder / name)
    return [folder / name for name in ("new", "old")]


CONFIGURED: tuple[dict[str, float], ...] = ({}, {"rms_norm_eps": 0.1})


@cell("compare", "other function")
@pytest.mark.parametrize("change", CONFIGURED)
def test_files_of_a_family_are_put_together_alike_by_their_configuration(
    change: dict[str, float], tmp_path: Path
) -> None:
    model, baseline = map(bl.load, written(tmp_path, change))
    found = compared(model, baseline, fail_on=["changed_layers", "similarity<0.99"], **FEW)
    assert failed(found) == (set() if not change else {"changed_layers", "similarity"})


@cell("sweep", "other function")
@pytest.mark.parametrize("change", CONFIGURED)
def test_a_sweep_compares_what_is_around_the_layers(
    change: dict[str, float], tmp_path: Path
) -> None:
    model, baseline = written(tmp_path, change)
    options = SweepOptions(tasks=("compare",), null_samples=3, baseline=str(baseline))
    output = SweepOutput(str(tmp_path / "swept"))
    assert drive(plan_of(str(model), options, output), output, Here).is_complete
    asked = parse_conditions(("changed_layers", "similarity<0.99"), data=True, baseline=True)
    _, found = report_of(output, asked)
    document = to_json(found)
    assert failed(document) == (set() if not change else {"changed_layers", "similarity"})
    lines = [*sweep_lines(load_catalogue("en"), found)]
    said = any("What is around the layers was not compared" in line for line in lines)
    assert said == bool(change)
    assert found.failed == bool(change)
