"""Documents of table audits to draw, made by the audit itself from small fitted models."""

import copy
import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import torch

from bilens.api.audit_model import audit
from bilens.findings.rules import tables as rules
from bilens.findings.rules.rule import Rule
from bilens.io.loaded_model import LoadedModel
from bilens.nn.classifier import classifier_of_map
from bilens.records.base import json_text, to_json
from bilens.records.column_readings import CellConversion, ColumnChanges, TableColumn, TableReading
from bilens.records.layer_readings import BaselineSource, Difference
from bilens.records.tensor_changes import WholeDifference
from bilens.train.newton import CrossEntropy, Loss, SquaredError
from bilens.train.table_choice import fit_table
from bilens.train.table_fit import TableRecipe

USUAL = TableRecipe(alpha=3.0, column_scale="standard", quadratic_scale=0.3)


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
    fit = fit_table(x, loss, torch.ones(len(x), dtype=torch.float64), USUAL)
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
    given = (x, target) if data else None
    document = audit(model, given, command="bilens audit runs/table").to_dict()
    if data:  # one of its cells held no value
        document["columns"]["rows"][0]["empty"] = [document["model"]["input_names"][0]]
    return document


def finding_of(document: dict[str, Any], rule: str) -> dict[str, Any]:
    """The finding of a rule in the verdict of a document."""
    found: dict[str, Any] = next(one for one in document["verdict"] if one["rule"] == rule)
    return found


SENTENCES = json.loads(files("bilens.report").joinpath("strings", "en.json").read_text("utf-8"))


def conversions() -> tuple[CellConversion, ...]:
    """One of every kind, with a value for every place of its sentence."""
    names = "column count row text old new position encoding separator suffix kind sheet others"
    names += " unit first last kept rows inputs value"
    names += " loss more error alpha folds fits margin low high share answer"
    values = {name: 3 if name in ("count", "row", "position") else name for name in names.split()}
    kinds = [key.removeprefix("reading.") for key in SENTENCES if key.startswith("reading.")]
    return tuple(CellConversion(kind, dict(values)) for kind in kinds)


def reading() -> TableReading:
    """How the 13 columns were read: numbers, one with a unit; days; a text and one with gaps."""
    columns = [TableColumn(f"column {at}", "number", (f"column {at}",)) for at in range(13)]
    columns[0] = TableColumn("column 0", "number", ("column 0",), unit="€")
    columns[1] = TableColumn("column 1", "number", ("column 1",), alone=0.1)
    columns[11] = TableColumn("column 11", "date", ("column 11",), first="2024-03-01")
    columns[12] = TableColumn("column 12", "category", ("column 12",), levels=("a",))
    return TableReading(tuple(columns), conversions())


def read_table_document() -> dict[str, Any]:
    """A document of a model that says how its table was read, with a row that was asked for."""
    model, x, target = fitted(3)
    model = replace(model, provenance={"reading": json_text(reading())})
    document = audit(model, (x, target), command="bilens audit runs/table").to_dict()
    asked = {"kind": "asked", "index": 7, "empty": ["column 1", "column 12"]}
    document["columns"]["rows"] = [{**document["columns"]["rows"][0], **asked}]
    document["data"]["source_kind"] = "table"
    return document


def by_rank(document: dict[str, Any], at: int) -> dict[str, Any]:
    """The document with a column of numbers that is read by its rank."""
    column = document["columns"]["reading"]["columns"][at]
    column |= {"curve": [[0.0, -3.0], [1.0, 3.0]], "inputs": [f"{column['name']} (rank)"]}
    document["model"]["input_names"][at] = column["inputs"][0]
    return document


def findings() -> list[dict[str, Any]]:
    """A finding of each rule on tables for each of its sentences."""
    found = []
    for rule in vars(rules).values():
        if isinstance(rule, Rule):
            values = {
                name: {"text": "x", "count": 1, "cell": 1}.get(form, 0.5)
                for name, form in rule.values.items()
            }
            for outcome in ("pass", "warn", "info"):
                found.append({"rule": rule.id, "outcome": outcome, "values": values})
                if rule.id in ("seen_rows", "train_test_gap"):  # in another variant
                    other = {**values, "total": 2, "filled": 1, "gap": 0.6, "threshold": 0.1}
                    found.append({"rule": rule.id, "outcome": outcome, "values": other})
    return found


def compared(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A document of a model beside a baseline."""
    named = dict.fromkeys(("added", "removed", "renamed", "other_outputs"), ())
    found = to_json(ColumnChanges(**named))
    found |= {
        "outputs": copy.deepcopy(document["columns"]["outputs"][:1]),
        "change": 0.5,
        **changes,
    }
    whole = WholeDifference(1, (), not_compared=("notes.md",))
    difference = Difference(BaselineSource("b", "c"), (), whole)
    beside = {"column_changes": found, "difference": to_json(difference)}
    return {**copy.deepcopy(document), **beside}


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
        "read": read_table_document(),
        "read, one output": make_table(classes=1),
    }
    found["read by rank"] = by_rank(read_table_document(), 1)
    found["other ranks"] = compared(whole, reread=["a"], outputs=[], change=None)
    every = {"added": ["a"], "removed": ["b"], "renamed": [["c", "d"]], "other_outputs": ["e"]}
    rows = {"rows": 9, "changed": 2, "mended": 1, "broken": 1}
    found["other columns"] = compared(whole, **every, outputs=[], change=None)
    found["same columns"] = compared(whole, **rows, examples=[[3, "x", "y"]])
    rows |= {"mended": None, "broken": None, "examples": [[3, "x", "y"]]}
    found["other classes"] = compared(whole, **rows, other_outputs=["e"])
    for kind, trained in (("all", 178), ("partly", 100)):
        found[f"trained, {kind}"] = copy.deepcopy(whole)
        found[f"trained, {kind}"]["performance"] |= {"rows": 178, "trained": trained}
    finding_of(found["fails"], "exact")["outcome"] = "fail"
    found["read"]["verdict"] += findings()
    found["read, one output"]["columns"]["rows"][0]["kind"] = "asked"
    found["fails"]["passed"] = False
    finding_of(found["no better"], "accuracy")["outcome"] = "warn"
    found["no better"]["verdict"].append(
        {"rule": "seen_rows", "outcome": "warn", "values": {"value": 9, "total": 9}}
    )
    found["no better"]["verdict"].append({"rule": "new", "outcome": "odd", "values": {"a": 1}})
    finding_of(found["numbers, no better"], "r_squared")["outcome"] = "warn"
    found["raw"]["model"]["standardised"] = False
    found["raw"]["columns"]["worst_case_inputs"] = []
    finding_of(found["raw"], "shares")["values"]["open"] = "raw"
    found["rows"] = copy.deepcopy(found["raw"])
    found["rows"]["model"]["rows"] = 9
    found["numbers, no better"]["model"]["logarithm"] = True
    finding_of(found["rows"], "shares")["values"]["open"] = "rows"
    for kind, row in zip(("first", "farthest"), found["raw"]["columns"]["rows"], strict=False):
        row["kind"], row["label"] = kind, None
    for kind, row in zip(
        ("narrow", "wrong"), found["numbers, no better"]["columns"]["rows"], strict=True
    ):
        row["kind"], row["target"] = kind, None
    first = copy.deepcopy(found["numbers"]["columns"]["rows"][0])
    found["numbers"]["columns"]["rows"].append({**first, "kind": "unheard of"})
    for column in found["constant"]["columns"]["outputs"][0]["columns"]:
        column["linear"] = column["square"] = 0.0
    found["constant"]["columns"]["outputs"][0]["pairs"] = []
    found["constant"]["model"]["input_mean"] = None
    return found
