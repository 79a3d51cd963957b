"""`bl.audit` of a model that is not one exact layer: its layers, one after another."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from bilens.api.comparison import baseline_source, with_conditions
from bilens.api.layer_subjects import layer_subjects
from bilens.api.provenance import origin_of
from bilens.base.errors import UsageError
from bilens.findings.accuracy import share_right
from bilens.findings.layers.audit import audit_layers
from bilens.findings.layers.reading import Extent
from bilens.findings.rules.conditions import Condition
from bilens.findings.subject import LabelledImages, Progress
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.layer_audit import LayeredModel
from bilens.records.origin import DataOrigin
from bilens.records.verdict import Share
from bilens.report.reports import LayerAuditReport


def audit_model_layers(
    model: LoadedModel | nn.Module,
    data: LabelledImages | None,
    about_data: DataOrigin | None,
    extent: Extent,
    command: str | None,
    progress: Progress,
    baseline: LoadedModel | nn.Module | None = None,
    conditions: Sequence[Condition] = (),
) -> LayerAuditReport:
    """Read every layer of a model; arguments and errors are those of `audit`.

    Args:
        model: the model.
        data: test images of a classifier.
        about_data: where they come from, for the document.
        extent: draws for each level of chance, their seed, and the R² asked for.
        command: how to reproduce this; None takes the process's command line.
        progress: called with (stage, done, total).
        baseline: the model to compare with.
        conditions: that fail the audit.
    """
    module = module_of(model)
    accuracy = None if data is None else accuracy_of(module, data)
    subjects = layer_subjects(model)
    findings = audit_layers(
        subjects,
        accuracy,
        None if baseline is None else layer_subjects(baseline),
        null_samples=extent.null_samples,
        seed=extent.seed,
        threshold=extent.threshold,
        progress=progress,
        model=describe_model(model, len(subjects)),
        against=baseline_source(baseline),
        origin=origin_of(model, about_data, command, extent.seed),
    )
    return LayerAuditReport(with_conditions(findings, conditions))


def module_of(model: LoadedModel | nn.Module) -> nn.Module | None:
    """Return the module; None where the layers alone were read."""
    return model.module if isinstance(model, LoadedModel) else model


def is_one_exact_layer(model: LoadedModel | nn.Module) -> bool:
    """Tell whether a model is a classifier of one bilinear layer, which is read class by class."""
    module = module_of(model)
    if not isinstance(module, BilinearClassifier):
        return False
    return len(module.layers) == 1 and getattr(module.layers[0], "gate", None) is None


def accuracy_of(module: nn.Module | None, data: LabelledImages) -> Share:
    """Return how often a classifier of any depth is right.

    Raises:
        UsageError: If the model is no classifier.
        ShapeError: If the data do not fit it.
    """
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
    """Return what the model is."""
    module = module_of(model)
    if module is not None:
        kind, dtype = type(module).__name__, next(module.parameters()).dtype
    else:
        assert isinstance(model, LoadedModel), "one of them is there"
        kind = model.provenance.get("format", "layers of another library")
        dtype = next(iter(model.layers.values())).dtype
    return LayeredModel(kind, num_layers, str(dtype).removeprefix("torch."))
