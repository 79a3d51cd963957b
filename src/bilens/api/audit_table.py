"""The audit of a model with named columns: from a loaded model to a table report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bilens.api.audit_layers import is_one_exact_layer, with_conditions
from bilens.api.provenance import describe_data, origin_of
from bilens.base.errors import UsageError
from bilens.base.files import file_sha256
from bilens.data.table_rows import read_columns, read_targets
from bilens.findings.rules.conditions import Condition
from bilens.findings.table_audit import LabelledRows, NamedColumns, audit_columns
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.origin import DataOrigin
from bilens.report.reports import TableReport


def has_columns(model: LoadedModel | nn.Module) -> bool:
    """Tell whether a model names its inputs."""
    return isinstance(model, LoadedModel) and model.input_names is not None


def audit_table(
    model: LoadedModel,
    data: Path | tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    command: str | None = None,
    conditions: Sequence[Condition] = (),
) -> TableReport:
    """Read a model whose inputs are columns, and report what columns and pairs of columns do."""
    names, module = model.input_names, model.module
    if names is None or not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"{model.source} does not name its inputs, so that columns cannot be told apart: save "
            "it with bl.save(model, folder, input_names=[...])."
        )
    outputs = model.output_names or tuple(map(str, range(module.head.out_features)))
    columns = NamedColumns(names, outputs, numbers(model.input_mean), numbers(model.input_scale))
    rows, about = read_rows(model, data, names, outputs)
    origin = origin_of(model, about, command, seed)
    findings = audit_columns(module, columns, rows, seed, origin)
    return TableReport(with_conditions(findings, conditions))


def in_units_of(
    columns: LoadedModel | nn.Module, model: LoadedModel | nn.Module
) -> LoadedModel | nn.Module:
    """Return a model as a function of the columns of a table's model in standard units.

    In their own units the column with the smallest numbers would have the largest coefficients. A
    model comes back as it is where the units are not known, or it has other inputs.
    """
    mean, scale = (numbers(getattr(columns, name, None)) for name in ("input_mean", "input_scale"))
    module = model.module if isinstance(model, LoadedModel) else model
    if mean is None or scale is None or not is_one_exact_layer(model):
        return model
    assert isinstance(module, BilinearClassifier), "it is one exact layer"
    if module.embed.in_features != len(mean):
        return model
    standard = in_standard_units(module, mean, scale)
    return replace(model, module=standard) if isinstance(model, LoadedModel) else standard


def numbers(values: tuple[float, ...] | None) -> Tensor | None:
    """Return numbers as a float64 tensor."""
    return None if values is None else torch.tensor(values, dtype=torch.float64)


def read_rows(
    model: LoadedModel,
    data: Path | tuple[Tensor, Tensor] | None,
    names: tuple[str, ...],
    outputs: tuple[str, ...],
) -> tuple[LabelledRows | None, DataOrigin | None]:
    """Return rows with their answers, and where they come from."""
    if data is None:
        return None, None
    if not isinstance(data, Path):
        if not isinstance(data, tuple) or [isinstance(x, Tensor) for x in data] != [True, True]:
            raise UsageError(
                f"data is a {type(data).__name__}; expected a pair of tensors (rows, targets), or "
                "the Path of a CSV file. Arrays and DataFrames: estimator.report(X, y)."
            )
        values, target = data
        return LabelledRows(values.detach().double(), target), describe_data(data)
    values = read_columns(data, names).values
    target_name = model.provenance.get("target")
    sha256 = file_sha256(data)
    seen = sha256 == model.provenance.get("data_table_sha256")
    rows = LabelledRows(values, read_targets(data, target_name, outputs), seen)
    return rows, DataOrigin(data.name, str(data), "table", len(values), sha256)
