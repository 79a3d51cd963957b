"""Guards against two networks whose answers nobody compared, though rows were given to do so.

Seen to fail: of models other than tables no share of different answers was told, so that two
networks with a small change in a layer looked alike that gave every second image another class.
"""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
from bilens.report.text import load_catalogue
from contract.compared_models import compared, copied, images, with_outputs
from contract.table import cell

FEW = {"null_samples": 39}


def rows(seed: int = 0) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 6, generator=generator, dtype=torch.float64).reshape(60, 2, 3)
    return x, torch.randint(3, (60,), generator=generator)


def told(found: dict[str, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = found["difference"]["answers"]
    return answers


@cell("compare", "other function", "permuted outputs")
def test_images_with_another_class_are_counted() -> None:
    """By the modules' own answers, also where one has its classes in another order."""
    model, (x, y) = images(3), rows()
    other = copied(model)
    with torch.no_grad():
        other.module.head.weight[1] += 2.0  # type: ignore[union-attr]
    before, after = (
        one.module(x.flatten(1)).argmax(dim=1)  # type: ignore[misc, union-attr]
        for one in (model, other)
    )
    for new in (other, with_outputs(other, [2, 0, 1])):
        labels = y if new is other else torch.tensor([1, 2, 0])[y]
        found = told(compared(new, model, data=(x, labels), **FEW))
        differ = before != after
        assert (found["rows"], found["changed"]) == (60, int(differ.sum()))
        assert found["broken"] == int((differ & (before == y)).sum())
        assert found["mended"] == int((differ & (after == y)).sum())
    assert 0 < int(differ.sum()) < 60


@cell("compare", "same function")
def test_the_same_network_answers_alike() -> None:
    model, data = images(4), rows(1)
    assert told(compared(model, copied(model), data=data, **FEW))["changed"] == 0
    assert compared(model, copied(model), **FEW)["difference"]["answers"] is None


def deep(seed: int) -> Any:
    torch.manual_seed(seed)
    layers = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double().eval()


@cell("compare", "other function")
@pytest.mark.parametrize("given", ["module", "read"])
def test_answers_of_deep_networks_are_counted_and_said(given: str) -> None:
    old, (x, y) = deep(0), rows(2)
    new = copy.deepcopy(old)
    with torch.no_grad():
        new[4].bias[0] += 0.3
    x = x.flatten(1)
    both = (new, old) if given == "module" else (bl.from_module(new), bl.from_module(old))
    report = bl.audit(both[0], (x, y), baseline=both[1], null_samples=3, command="here")
    found = told(report.to_dict())
    changed = int((new(x).argmax(dim=1) != old(x).argmax(dim=1)).sum())
    assert 0 < changed == found["changed"]
    t = load_catalogue("en")
    sentence = t("difference.columns.answers", changed=str(changed), rows="60")
    assert sentence in report.to_html()
