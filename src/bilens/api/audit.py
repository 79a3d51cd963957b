"""`bl.audit`: a model and, if given, test images, to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from msgspec import structs
from torch import Tensor, nn

from bilens.algebra.approximation.quadratic_fit import THRESHOLD
from bilens.api.audit_layers import (
    audit_model_layers,
    baseline_source,
    is_one_exact_layer,
    layers_of,
    with_conditions,
)
from bilens.api.provenance import describe_data, given_model, origin_of
from bilens.base import Progress, silent
from bilens.base.errors import UsageError
from bilens.base.files import file_sha256
from bilens.data.images import ImageDataset
from bilens.data.tables import read_columns, read_targets
from bilens.findings.audit import audit_classifier
from bilens.findings.difference import check_pairs
from bilens.findings.layer_audit import (
    NULL_SAMPLES as LAYER_SAMPLES,
    checked_options,
    compare_with,
    judge_one_layer,
)
from bilens.findings.layer_reading import AuditOptions, fit_layer
from bilens.findings.rules.registry import Condition, judge, parse_conditions
from bilens.findings.rules.rule import Evidence
from bilens.findings.subject import LabelledImages
from bilens.findings.table_audit import LabelledRows, NamedColumns, audit_columns
from bilens.io.in_memory import from_sklearn
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import in_standard_units
from bilens.records.common import DataOrigin, passes
from bilens.records.layer_audit import Difference
from bilens.report.reports import AuditReport, LayerAuditReport, TableReport

CLASS_SAMPLES = 99  # rotations for the classes of a classifier


def audit(
    model: LoadedModel | nn.Module,
    data: ImageDataset | tuple[Tensor, Tensor] | Path | None = None,
    *,
    null_samples: int | None = None,
    seed: int = 0,
    command: str | None = None,
    progress: Progress = silent,
    baseline: LoadedModel | nn.Module | None = None,
    fail_on: Sequence[str] = (),
    threshold: float = THRESHOLD,
) -> AuditReport | LayerAuditReport | TableReport:
    """Read a model and report what its weights say.

    A model of one bilinear layer that names its inputs, such as one that `bilens train table` or an
    estimator of `bl.sklearn` saved, is read column by column, and pair by pair. Another classifier
    of one bilinear layer is read class by class, exactly. Every other model, a
    transformer, a deep or gated classifier or an ordinary MLP, is read layer by layer; a layer that
    is not quadratic through its quadratic approximation, with R² first.

    Cost: of a classifier classes · O(in³) for the spectra and null_samples · classes ·
    O(min(in, 2·hidden)³) for the null intervals: about half a minute for 784 pixels, 256 hidden
    units and 10 classes. Of layers null_samples · O(hidden² · (in + out) + in³ + out³) each, and
    the memory of one.

    Args:
        model: what `bl.load` returned, or a module; it is not changed.
        data: test images of a classifier, an `ImageDataset` or (images (batch, in), labels
            (batch,)), or rows of a table as (rows (batch, columns), targets (batch,)) or the path
            of a CSV file; without them nothing is said about accuracy or single predictions.
        null_samples: null draws; None for 99 rotations of a classifier (at least
            39), and 19 of each of many layers (at least 3).
        seed: of the draws and of the random inputs.
        command: how to reproduce this, for the report; None takes the process's command line.
        progress: called with (stage, done, total).
        baseline: the model that this one was made from, to report what changed: similarity, the
            spectrum of the difference, its directions, layer by layer.
        fail_on: conditions that fail the audit, each a rule ("unused_inputs") or a rule with a
            limit ("r2<0.9", "similarity<0.99"); docs/auditing.md lists the rules.
        threshold: R² from which an approximation of a layer is read; below, claims are refused.

    Returns:
        A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`,
        `to_markdown(path)`, `passed`.

    Raises:
        UsageError: If the model has no layers that can be read, data are given for one that is no
            classifier, the baseline has other layers, a condition is none, or a number is out of
            range.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight of a classifier of one layer is NaN or infinite, or they exceed
            float32's range.
        MemoryLimitError: If the dense matrices would not fit.
    """
    model = readable(model)
    baseline = None if baseline is None else readable(baseline)
    given = {"data": data is not None, "baseline": baseline is not None}
    conditions = parse_conditions(fail_on, **given)
    columns = has_columns(model) and is_one_exact_layer(model)
    if columns and baseline is not None:
        model, baseline = in_units_of(model, model), in_units_of(model, baseline)
    elif columns:
        assert isinstance(model, LoadedModel), "only it has names"
        rows = (data.test_images, data.test_labels) if isinstance(data, ImageDataset) else data
        return audit_table(model, rows, seed, command, conditions)
    if isinstance(data, Path):
        raise UsageError(
            f"data is the path {str(data)!r}; rows of a table judge a model of one exact layer "
            "that names its inputs, without a baseline: leave them out (--table), or pass test "
            "images as an ImageDataset or a pair of tensors."
        )
    if is_one_exact_layer(model) and not has_columns(model):
        samples = CLASS_SAMPLES if null_samples is None else null_samples
        return audit_one_layer(model, data, samples, seed, command, progress, baseline, conditions)
    samples = LAYER_SAMPLES if null_samples is None else null_samples
    return audit_model_layers(
        model,
        labelled(data),
        describe_data(data),
        checked_options(samples, seed, threshold),
        command,
        progress,
        baseline,
        conditions,
    )


def readable(model: object) -> LoadedModel | nn.Module:
    """Return a model as it can be read; an MLP of scikit-learn as its layers."""
    if isinstance(model, LoadedModel | nn.Module):
        return model
    if hasattr(model, "get_params"):
        return from_sklearn(model)
    given_model(model, "an audit", "bl.audit({})")  # says so where it is a path
    raise UsageError(
        f"an audit reads a model, got a {type(model).__name__}: pass what bl.load returned, a "
        "torch.nn.Module, a fitted estimator of bl.sklearn, or a fitted MLP of scikit-learn."
    )


def audit_one_layer(
    model: LoadedModel | nn.Module,
    data: ImageDataset | tuple[Tensor, Tensor] | None = None,
    null_samples: int = CLASS_SAMPLES,
    seed: int = 0,
    command: str | None = None,
    progress: Progress = silent,
    baseline: LoadedModel | nn.Module | None = None,
    conditions: Sequence[Condition] = (),
) -> AuditReport:
    """Read a classifier of one bilinear layer; arguments and errors are those of `audit`."""
    module, loaded = given_model(model, "an audit", "bl.audit({})")
    (subject,), before = layers_of(model), None
    if baseline is not None:
        before = layers_of(baseline)
        check_pairs([subject], before)
    findings = audit_classifier(
        module,
        labelled(data),
        input_shape=loaded.input_shape if loaded is not None else None,
        output_names=loaded.output_names if loaded is not None else None,
        input_names=loaded.input_names if loaded is not None else None,
        null_samples=null_samples,
        seed=seed,
        progress=progress,
        origin=origin_of(loaded, data, command, seed),
    )
    fitted = fit_layer(subject, seed)
    verdict = findings.verdict + judge_one_layer(subject, fitted, seed)
    difference = None
    if before is not None:
        changes = (compare_with(before[0], fitted, AuditOptions(0, seed), vectors=True),)
        difference = Difference(baseline_source(baseline), changes)
        verdict += judge("audit", Evidence(changes=changes))
    findings = structs.replace(
        findings, verdict=verdict, passed=passes(verdict), difference=difference
    )
    return AuditReport(with_conditions(findings, conditions))


def has_columns(model: LoadedModel | nn.Module) -> bool:
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
    rows, about = labelled_rows(model, data, names, outputs)
    origin = origin_of(model, about, command, seed)
    findings = audit_columns(module, columns, rows, seed, origin)
    return TableReport(with_conditions(findings, conditions))


def in_units_of(
    columns: LoadedModel | nn.Module, model: LoadedModel | nn.Module
) -> LoadedModel | nn.Module:
    """Return a model as a function of the columns of a table's model in standard units."""
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
    return None if values is None else torch.tensor(values, dtype=torch.float64)


def labelled_rows(
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


def labelled(data: ImageDataset | tuple[Tensor, Tensor] | None) -> LabelledImages | None:
    if data is None:
        return None
    if isinstance(data, ImageDataset):
        return LabelledImages(data.test_images, data.test_labels)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
        return LabelledImages(*data)
    raise UsageError(
        f"data is a {type(data).__name__}; expected an ImageDataset or a pair of tensors "
        "(images, labels)."
    )
