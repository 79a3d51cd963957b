"""Documents of table audits to draw, made by the audit itself from small fitted models."""

import copy
from typing import Any

import torch

from bilens.api.audit import audit
from bilens.io.loaded_model import LoadedModel
from bilens.nn.classifier import classifier_of_map
from bilens.train.newton import CrossEntropy, Loss, SquaredError
from bilens.train.table_fit import TableRecipe, fit_table


def rows(count: int = 60, width: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return x * torch.logspace(-2, 2, width, dtype=torch.float64) + 3


def fitted(classes: int, width: int = 13) -> tuple[LoadedModel, torch.Tensor, torch.Tensor]:
    """A model with its rows and their targets; one class is a regression."""
    x = rows(width=width)
    z = (x - x.mean(dim=0)) / x.std(dim=0)
    value = z[:, 0] + 2 * z[:, 1] * z[:, 2]
    if classes == 1:
        target, loss = value, SquaredError(value[:, None])
    else:
        cuts = torch.quantile(value, torch.linspace(0, 1, classes + 1).double()[1:-1])
        target = torch.bucketize(value, cuts)
        hot = torch.nn.functional.one_hot(target, classes).double()
        loss: Loss = CrossEntropy(hot)  # type: ignore[no-redef]
    fit = fit_table(x, loss, torch.ones(len(x), dtype=torch.float64), TableRecipe())
    module = classifier_of_map(fit.standard_map, fit.mean, fit.scale)
    names = tuple(f"column {place}" for place in range(width))
    model = LoadedModel(
        module,
        "runs/table",
        "ab" * 32,
        output_names=tuple(f"class {place}" for place in range(classes)),
        input_names=names,
        input_mean=tuple(fit.mean.tolist()),
        input_scale=tuple(fit.scale.tolist()),
    )
    return model, x, target


def make_table(classes: int = 3, data: bool = True, width: int = 13) -> dict[str, Any]:
    """The document of a model of so many classes."""
    model, x, target = fitted(classes, width)
    if classes > 1:
        target = target.clone()
        target[0] = (target[0] + 1) % classes  # one that the model gets wrong
    rows = (x, target) if data else None
    return audit(model, rows, command="bilens audit runs/table").to_dict()


def finding_of(document: dict[str, Any], rule: str) -> dict[str, Any]:
    """The finding of a rule in the verdict of a document."""
    found: dict[str, Any] = next(one for one in document["verdict"] if one["rule"] == rule)
    return found


def variants() -> dict[str, dict[str, Any]]:
    """Documents that need every sentence."""
    whole = make_table()
    found = {
        "classes": whole,
        "numbers": make_table(classes=1),
        "two classes": make_table(classes=2, width=3),
        "no data": make_table(data=False),
        "fails": copy.deepcopy(whole),
        "no better": copy.deepcopy(whole),
        "numbers, no better": make_table(classes=1, width=4),
        "raw": copy.deepcopy(whole),
        "constant": copy.deepcopy(whole),
    }
    finding_of(found["fails"], "exact")["outcome"] = "fail"
    found["fails"]["passed"] = False
    finding_of(found["no better"], "accuracy")["outcome"] = "warn"
    found["no better"]["verdict"].append({"rule": "seen_rows", "outcome": "warn", "values": {}})
    found["no better"]["verdict"].append({"rule": "new", "outcome": "odd", "values": {"a": 1}})
    finding_of(found["numbers, no better"], "r_squared")["outcome"] = "warn"
    found["raw"]["model"]["standardised"] = False
    found["raw"]["worst_case_inputs"] = []
    for kind, row in zip(("first", "farthest"), found["raw"]["rows"], strict=False):
        row["kind"], row["label"] = kind, None
    for kind, row in zip(("narrow", "wrong"), found["numbers, no better"]["rows"], strict=True):
        row["kind"], row["target"] = kind, None
    first = copy.deepcopy(found["numbers"]["rows"][0])
    found["numbers"]["rows"].append({**first, "kind": "unheard of"})
    for column in found["constant"]["outputs"][0]["columns"]:
        column["linear"] = column["square"] = 0.0
    found["constant"]["outputs"][0]["pairs"] = []
    return found
