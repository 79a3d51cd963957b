"""`bl.audit` of a model that is not one exact layer: its layers, one after another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from msgspec.structs import replace
from torch import nn

from bilens.api.provenance import describe_source, origin_of
from bilens.base import Progress
from bilens.base.errors import UsageError
from bilens.findings.layer_audit import audit_layers
from bilens.findings.layer_reading import AuditOptions
from bilens.findings.model_checks import share_right
from bilens.findings.rules.registry import Condition, judge_conditions
from bilens.findings.subject import LabelledImages
from bilens.io.in_memory import from_module
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.layer_view import LayerView
from bilens.nn.module_layers import Module, layer_views
from bilens.records.audit import Audit
from bilens.records.common import DataOrigin, Share
from bilens.records.layer_audit import BaselineSource, LayerAudit, LayeredModel
from bilens.records.table_audit import TableAudit
from bilens.report.reports import LayerAuditReport

AnyAudit = TypeVar("AnyAudit", Audit, LayerAudit, TableAudit)


def baseline_source(baseline: object) -> BaselineSource:
    source = describe_source(baseline)
    return BaselineSource(source.path, source.weights_sha256)


def with_conditions(audit: AnyAudit, conditions: Sequence[Condition]) -> AnyAudit:
    """Return an audit that also fails where a condition does."""
    judged = judge_conditions(audit.kind, conditions, audit.verdict)
    passed = audit.passed and not any(item.failed for item in judged)
    return replace(audit, passed=passed, conditions=judged or None)


def layers_of(model: LoadedModel | nn.Module) -> tuple[LayerView, ...]:
    """Return the layers of a model, first to last; no weight of a loaded one is read."""
    if isinstance(model, LoadedModel):
        return tuple(model.layers.values())
    views = layer_views(model) if isinstance(model, Module) else from_module(model).layers
    return tuple(views.values())


def audit_model_layers(
    model: LoadedModel | nn.Module,
    data: LabelledImages | None,
    about_data: DataOrigin | None,
    options: AuditOptions,
    command: str | None,
    progress: Progress,
    baseline: LoadedModel | nn.Module | None = None,
    conditions: Sequence[Condition] = (),
) -> LayerAuditReport:
    """Read every layer of a model; arguments and errors are those of `audit`."""
    module = module_of(model)
    accuracy = None if data is None else accuracy_of(module, data)
    subjects = layers_of(model)
    findings = audit_layers(
        subjects,
        accuracy,
        None if baseline is None else layers_of(baseline),
        null_samples=options.null_samples,
        seed=options.seed,
        threshold=options.threshold,
        progress=progress,
        model=describe_model(model, len(subjects)),
        against=baseline_source(baseline),
        origin=origin_of(model, about_data, command, options.seed),
    )
    return LayerAuditReport(with_conditions(findings, conditions))


def module_of(model: LoadedModel | nn.Module) -> nn.Module | None:
    return model.module if isinstance(model, LoadedModel) else model


def is_one_exact_layer(model: LoadedModel | nn.Module) -> bool:
    """Tell whether a model is a classifier of one bilinear layer, which is read class by class."""
    module = module_of(model)
    if not isinstance(module, BilinearClassifier):
        return False
    return len(module.layers) == 1 and getattr(module.layers[0], "gate", None) is None


def accuracy_of(module: nn.Module | None, data: LabelledImages) -> Share:
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            "test images are read for a BilinearClassifier alone: leave the data out "
            "(--dataset, --data-dir); an audit needs none."
        )
    data.check(module.embed.in_features, module.head.out_features)
    wide = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        scores = wide(data.images.detach().double())
    return share_right(scores.argmax(dim=1), data.labels)


def describe_model(model: LoadedModel | nn.Module, num_layers: int) -> LayeredModel:
    module = module_of(model)
    if module is not None:
        kind, dtype = type(module).__name__, next(module.parameters()).dtype
    else:
        assert isinstance(model, LoadedModel), "one of them is there"
        kind = model.provenance.get("format", "layers of another library")
        dtype = next(iter(model.layers.values())).dtype
    return LayeredModel(kind, num_layers, str(dtype).removeprefix("torch."))
