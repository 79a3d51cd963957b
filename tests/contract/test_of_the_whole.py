"""Guards against what was seen of a part and is said of the whole.

Damage that it notices: a module called compared of which one layer was not; a condition on a sweep
that is met though layers have no result.
"""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.findings.rules.registry import (
    REGISTRY,
    judge_conditions,
    parse_condition,
    parse_conditions,
)
from bilens.findings.rules.rule import Evidence
from bilens.records.sweep import SweepOptions
from bilens.sweep.driver import drive, plan_of
from bilens.sweep.jobs import result_name
from bilens.sweep.output import SweepOutput
from bilens.sweep.report import report_of
from contract.table import cell
from engine_here import Here


class Halves(nn.Module):
    """Two MLPs with a norm between; one may be without a part that can be watched."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)
        self.second = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.hidden = hidden

    def first(self, x: Tensor) -> Tensor:
        if not self.hidden:
            found: Tensor = self.down(torch.relu(self.up(x)))
            return found
        inside = torch.relu(functional.linear(self.norm(x) * 2, self.up.weight, self.up.bias))
        return functional.linear(inside, self.down.weight, self.down.bias) * 3

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(self.norm(self.first(x)))
        return found


@cell("load module", "own object", "other function")
@cell("audit", "own object", "other function")
@pytest.mark.parametrize("hidden", [False, True])
def test_a_module_is_compared_where_all_of_its_layers_are(hidden: bool) -> None:
    module = Halves(hidden).double().eval()
    model = bl.from_module(module)
    assert model.load_report is not None
    assert len(model.layers) == 2
    assert len(model.load_report.checks) == (1 if hidden else 2)
    assert model.load_report.verified is not hidden
    assert (model.exactness is None) is hidden
    found = bl.audit(module, null_samples=3).to_dict()
    (layout,) = (one["outcome"] for one in found["verdict"] if one["rule"] == "layout")
    assert layout == ("warn" if hidden else "pass")
    assert bool(found["coverage"]["checked_against"]) is not hidden


# ---- sweeps


LAYERS = 3
CONDITIONS = ("dead_units>0", "similarity<0.99", "change>0.1")


def written(folder: Path, seed: int) -> Path:
    """A Llama of which nothing but the MLPs is there, and whose numbers are drawn."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"gate_proj": (6, 4), "up_proj": (6, 4), "down_proj": (4, 6)}
    tensors = {
        f"model.layers.{layer}.mlp.{name}.weight": torch.randn(shape, generator=draw)
        for layer in range(LAYERS)
        for name, shape in shapes.items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    words = (
        '{"model_type": "llama", "hidden_act": "silu", "hidden_size": 4, "num_hidden_layers": 3}'
    )
    (folder / "config.json").write_text(words)
    return folder


@cell("sweep", "own object", "other function")
def test_a_condition_of_a_sweep_is_met_where_every_layer_has_a_result(tmp_path: Path) -> None:
    """Where the result of one is missing or a refusal, nothing is known of all of them."""
    base, model = written(tmp_path / "base", 0), written(tmp_path / "model", 0)
    tasks = ("audit", "compare")
    options = SweepOptions(tasks=tasks, null_samples=3, baseline=str(base))
    output = SweepOutput(str(tmp_path / "swept"))
    assert drive(plan_of(str(model), options, output), output, Here).is_complete
    conditions = parse_conditions(CONDITIONS, data=True, baseline=True)

    def failed() -> set[str]:
        found = report_of(output, conditions)[1].conditions or ()
        assert all(one.failed is (one.value is None) for one in found)
        return {one.rule for one in found if one.failed}

    assert failed() == set()
    for task, rules in zip(tasks, ({"dead_units"}, {"similarity", "change"}), strict=True):
        for row in range(LAYERS):
            name = result_name(task, row)
            kept = output.read_bytes(name)
            assert kept is not None
            output.remove(name)
            assert failed() == rules
            refusal = {"refused": "it is odd", "numbers": {}, "record": None}
            output.write(name, json.dumps(json.loads(kept) | refusal).encode())
            assert failed() == rules
            output.write(name, kept)


# ---- rules of several cases


COMPARED = [one for one in REGISTRY if one.bad is not None and one.number is not None]


@cell("audit", "permuted units", "other function")
@pytest.mark.parametrize("outcomes", [*permutations(("pass", "info", "warn"))])
def test_a_condition_is_compared_with_every_layer_however_each_ends(
    outcomes: tuple[str, ...],
) -> None:
    """Also with one whose own outcome is milder than that of another."""
    for rule in COMPARED:
        numbers = (0.2, 0.5, 0.8)
        cases = [
            {str(rule.number): number, "outcome": outcome, "layers": outcome}
            for number, outcome in zip(numbers, outcomes, strict=True)
        ]
        found = replace(rule, measure=lambda _, cases=cases: cases).judge(
            Evidence(input_kind=rule.inputs or "")
        )
        assert found is not None
        for limit in (0.1, 0.3, 0.7, 0.9):
            asked = (parse_condition(f"{rule.id}{rule.bad}{limit}"),)
            (one,) = judge_conditions(rule.readings[0], asked, [found])
            beyond = [(x < limit) if rule.bad == "<" else (x > limit) for x in numbers]
            assert one.failed is any(beyond), (rule.id, limit)
            assert one.value == (min(numbers) if rule.bad == "<" else max(numbers))


# ---- what passes


class Product(nn.Module):
    """A bilinear layer, perhaps with a part around it that is not read."""

    def __init__(self, normed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.v, self.p = nn.Linear(4, 9), nn.Linear(4, 9), nn.Linear(9, 4)
        self.norm = nn.LayerNorm(4) if normed else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.norm is None else self.norm(x)
        found: Tensor = self.p(self.w(x) * self.v(x))
        return found


@cell("audit", "own object", "other function")
def test_what_is_not_read_or_cannot_be_judged_does_not_pass() -> None:
    """A part left out, or answers that are no better than a guess: nobody vouches for the model."""
    twice = nn.Sequential(Product(), Product()).double().eval()
    normed = nn.Sequential(Product(), Product(normed=True)).double().eval()
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
    answers = twice(x).argmax(dim=1)
    assert bl.audit(twice, null_samples=3).passed is True
    assert bl.audit(twice, (x, answers), null_samples=3).passed is True
    assert bl.audit(normed, null_samples=3).passed is not True
    assert bl.audit(twice, (x, answers[x[:, 0].argsort()]), null_samples=3).passed is not True
    alike = answers == answers[0]
    assert bl.audit(twice, (x[alike], answers[alike]), null_samples=3).passed is not True
