"""`bl.audit`: a model and, if given, test images or rows of a table, to a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs
from torch import nn

from bilens.algebra.approximation.quadratic_fit import THRESHOLD
from bilens.api.alignment import Alignment, align_models
from bilens.api.comparison import (
    column_changes,
    layer_changes,
    vocabulary_of_model,
    whole_difference,
)
from bilens.api.given_data import (
    Data,
    given_data,
    interface_of,
    performance_of,
    rows_received,
    rows_to_fit,
)
from bilens.api.provenance import data_sha256, identity_of, origin_of, reading_of
from bilens.api.subject import is_of_columns, is_one_exact_layer, open_subject
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.option_rules import (
    APPROXIMATED,
    BASELINE,
    NO_COLUMNS,
    ONE_LAYER,
    TRAINING_PATH,
    refuse_idle,
)
from bilens.data.model_interface import LabelledData
from bilens.findings.classifier_audit import audit_classifier
from bilens.findings.coverage import how_read, measure_coverage
from bilens.findings.layer_audit import (
    NULL_SAMPLES as LAYER_SAMPLES,
    audit_layers,
    checked_options,
    judge_one_layer,
)
from bilens.findings.layer_reading import ReadingOptions, fit_layer
from bilens.findings.overfitting import SMALLEST_IMAGE
from bilens.findings.rules.decision import decide, passed
from bilens.findings.rules.registry import Condition, judge, judge_conditions, parse_conditions
from bilens.findings.rules.rule import Evidence
from bilens.findings.subject import image_shape
from bilens.findings.table_audit import audit_columns
from bilens.io.load import LoadedModel
from bilens.nn.agreement import Agreement
from bilens.records.classifier_audit import Audit
from bilens.records.common import Finding
from bilens.records.decision import Coverage
from bilens.records.layer_audit import Difference, LayerAudit, LayerDifference, LayeredModel
from bilens.records.performance import Performance
from bilens.records.table_audit import TableAudit
from bilens.report.reports import AuditReport, LayerAuditReport, TableReport
from bilens.train.recorded_inputs import LayerInputs

OF_THE_MODEL = ("model_sha256", "config_sha256")  # which recorded inputs say, and its identity
CLASS_SAMPLES = 99  # rotations for the classes of a classifier

AnyAudit = TypeVar("AnyAudit", Audit, LayerAudit, TableAudit)


@dataclass(frozen=True, eq=False)
class AuditRequest:
    seed: int = 0
    command: str | None = None
    progress: Progress = silent
    alignment: Alignment | None = None  # with a baseline
    conditions: Sequence[Condition] = ()
    difference: Difference | None = None  # what changed from the baseline in all tensors
    performance: Performance | None = None  # of the data that were given
    inputs: LayerInputs | None = None  # what the layers see
    rows: Sequence[int] = ()  # of a table that are taken apart; telling ones where none are named
    data: LabelledData | None = None
    options: Mapping[str, object] = field(default_factory=dict)  # that the numbers depend on


def audit(
    model: LoadedModel | nn.Module,
    data: Data | None = None,
    *,
    null_samples: int | None = None,
    seed: int = 0,
    command: str | None = None,
    progress: Progress = silent,
    baseline: LoadedModel | nn.Module | None = None,
    fail_on: Sequence[str] = (),
    threshold: float = THRESHOLD,
    labels: str | None = None,
    inputs: LayerInputs | None = None,
    train_data: Data | None = None,
    train_labels: str | None = None,
    try_words: int = 0,
) -> AuditReport | LayerAuditReport | TableReport:
    """Read a model and report what its weights say.

    A model of one bilinear layer that names its inputs, as `bilens train table` and the estimators
    of `bl.sklearn` save it, is read by columns and pairs of columns; another classifier of one
    bilinear layer class by class, exactly. Every other model (transformer, deep or gated
    classifier, ordinary MLP) is read layer by layer; a layer that is not quadratic through its
    quadratic approximation, with R² first.

    Cost: of a classifier classes · O(in³) for the spectra and null_samples · classes ·
    O(min(in, 2·hidden)³) for the null intervals: about half a minute for 784 pixels, 256 hidden
    units and 10 classes. Of layers null_samples · O(hidden² · (in + out) + in³ + out³) each, and
    the memory of one.

    Args:
        model: what `bl.load` returned, or a module; it is not changed.
        data: what the predictions are judged on: a path (a table, an .npy, .npz or .safetensors
            file, a folder of images; docs/auditing.md), a pair of arrays or tensors (inputs, right
            answers), or an `ImageDataset`; without them nothing is said about accuracy.
        null_samples: null draws; None for 99 rotations of a classifier (at least 39), and 19 of
            each of many layers (at least 3).
        seed: of the draws and of the random inputs.
        command: how to reproduce this, for the report; None takes the process's command line.
        progress: called with (stage, done, total).
        baseline: the model that this one was made from, to report what changed: size and rank in
            every tensor, files beside them, and layer by layer the difference of the maps.
        fail_on: conditions that fail the audit, each a rule ("unused_inputs") or a rule with a
            limit ("r2<0.9", "similarity<0.99"); docs/auditing.md lists the rules.
        threshold: R² from which an approximation of a layer is read; below, claims are refused.
        labels: where the right answers are, if the data leave it open: a column, a key, a file.
        try_words: how many words are tried as triggers in a changed language model and its
            baseline, which both run; 0 for none.
        inputs: what layers see (`bl.layer_inputs`), to fit those that are not quadratic to; data of
            500 rows or more do it too. Without, R² is under N(0, I), which is no real input.
        train_data: what a classifier of one bilinear layer was trained on, as `data`; of an
            `ImageDataset` its training images. They are compared with `data`, and ranked by how
            much they look learnt by heart.
        train_labels: where the right answers of `train_data` are, as `labels`.

    Returns:
        A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`,
        `to_markdown(path)`, `passed`.

    Raises:
        UsageError: If the model has no layers that can be read, data are given for one of which
            parts alone are read, a condition is none, or a number is out of range.
        DataError, ShapeError: If the data are damaged, unsafe, or do not fit the model.
        NonFiniteError: If a weight of a classifier of one layer is NaN or infinite, or they exceed
            float32's range.
        MemoryLimitError: If the dense matrices would not fit.
    """
    said = locals()  # every option by its name
    how: dict[str, Any] = {"on_cpu": True, "bare": baseline is not None and data is None}
    model = open_subject(model, "an audit", **how)
    baseline = None if baseline is None else open_subject(baseline, "an audit", **how)
    conditions = parse_conditions(fail_on, data=data is not None, baseline=baseline is not None)
    given = given_data(model, data, labels)
    columns = is_of_columns(model)
    one_layer = is_one_exact_layer(model) and not columns
    facts = {
        BASELINE: baseline is not None,
        TRAINING_PATH: isinstance(train_data, str | Path),
        ONE_LAYER: one_layer,
        NO_COLUMNS: not columns,
        APPROXIMATED: not (columns or one_layer),  # or it is refused below
    }
    refuse_idle("audit", said, *(fact for fact, holds in facts.items() if holds))
    trained = given_data(model, train_data, train_labels, training=True)
    performance = None if given is None else performance_of(model, given)
    difference, alignment = None, None
    if baseline is not None:
        alignment = align_models(model, baseline)
        model, baseline = alignment.model, alignment.baseline
        difference = whole_difference(alignment, progress, given)
        if try_words:
            from bilens.api.word_trial import try_words as tried  # runs models: transformers

            tied = [one.ends is not None and one.ends.tied for one in (model, baseline)]
            if tied == [False, True]:
                raise UsageError(
                    f"no words can be tried: {model.source} has a head of its own, and that of "
                    f"{baseline.source} is its embedding."
                )
            trial = tried(model, baseline, try_words, seed, progress)
            difference = structs.replace(difference, trial=trial)
    decided = {
        "null_samples": null_samples,
        "seed": seed,
        "threshold": threshold,
        "try_words": try_words,
        "labels": [labels, train_labels],
        "train_data": data_sha256(trained),
        "inputs": inputs and {k: v for k, v in inputs.about.items() if k not in OF_THE_MODEL},
    }
    asked = AuditRequest(seed, command, progress, alignment, conditions, options=decided)
    asked = replace(
        asked, data=given, difference=difference, performance=performance, inputs=inputs
    )
    if is_of_columns(model):
        return audit_table(model, given, asked)
    if is_one_exact_layer(model):
        samples = CLASS_SAMPLES if null_samples is None else null_samples
        return audit_one_layer(model, given, trained, samples, asked)
    samples = LAYER_SAMPLES if null_samples is None else null_samples
    return audit_model_layers(model, given, checked_options(samples, seed, threshold), asked)


def audit_one_layer(
    model: LoadedModel,
    data: LabelledData | None,
    trained: LabelledData | None,
    null_samples: int,
    asked: AuditRequest,
) -> AuditReport:
    (subject,) = model.layers.values()
    findings = audit_classifier(
        model,
        data,
        training=trained,
        test=data,
        performance=asked.performance,
        null_samples=null_samples,
        seed=asked.seed,
        progress=asked.progress,
        origin=origin_of(model, data, asked.command, asked.seed),
    )
    options = of_inputs(model, data, asked, ReadingOptions(0, asked.seed))
    more = judge_one_layer(subject, fit_layer(subject, asked.seed), options)
    rows = None if data is None else data.inputs
    layers = () if asked.alignment is None else layer_changes(asked.alignment, asked.seed, rows)
    return AuditReport(finish_audit(findings, model, asked, layers, more))


def audit_model_layers(
    model: LoadedModel, data: LabelledData | None, options: ReadingOptions, asked: AuditRequest
) -> LayerAuditReport:
    subjects, alignment = tuple(model.layers.values()), asked.alignment
    if subjects and all(view.exact for view in subjects):
        refuse_idle("audit", {"threshold": options.threshold, "inputs": asked.inputs})
    findings = audit_layers(
        subjects,
        asked.performance,
        None if alignment is None else alignment.layers_before,
        why_not={} if alignment is None else alignment.refused,
        turn=None if alignment is None else alignment.turn,
        around="" if asked.difference is None else asked.difference.around,
        options=replace(
            of_inputs(model, data, asked, options),
            rows=rows_to_fit(model, data, asked.inputs, asked.seed),
            vocabulary=None if alignment is None else vocabulary_of_model(model),
        ),
        progress=asked.progress,
        model=describe_model(model, data),
        origin=origin_of(model, data, asked.command, asked.seed),
    )
    text = asked.inputs and asked.inputs.text
    return LayerAuditReport(finish_audit(findings, model, asked, text=text))


def of_inputs(
    model: LoadedModel, data: LabelledData | None, asked: AuditRequest, options: ReadingOptions
) -> ReadingOptions:
    """Return options with what is known of the inputs: rows, names, and whether they are pixels.

    An array may have any shape: of pixels alone a training or a data set says their range.
    """
    shape = model.input_shape or (None if data is None else data.shape) or ()
    box = model.input_box or (None if data is None else data.box)
    return replace(
        options,
        seen=rows_received(model, data, asked.inputs),
        pixels=box is not None and sum(side > 1 for side in shape) > 1,
        names=model.own_input_names or (),
    )


def audit_table(model: LoadedModel, data: LabelledData | None, asked: AuditRequest) -> TableReport:
    """Read a model whose inputs are columns, and report what columns and pairs of columns do."""
    origin = origin_of(model, data, asked.command, asked.seed)
    findings = audit_columns(
        model, data, asked.rows, asked.seed, origin, asked.performance, reading_of(model)
    )
    if asked.alignment is None:
        return TableReport(finish_audit(findings, model, asked))
    x = None if data is None else data.inputs
    layers = layer_changes(asked.alignment, asked.seed, x, standard=True)
    changes = column_changes(asked.alignment, data)
    return TableReport(finish_audit(findings, model, asked, layers, column_changes=changes))


def finish_audit(
    audit: AnyAudit,
    model: LoadedModel,
    asked: AuditRequest,
    layers: tuple[LayerDifference, ...] = (),
    more: tuple[Finding, ...] = (),
    **fields: object,
) -> AnyAudit:
    """Return an audit with `more` findings, its coverage, changes, conditions and decision."""
    coverage, difference = coverage_of(audit, model), asked.difference
    audit = structs.replace(audit, coverage=coverage, **fields)
    verdict = judge(audit.kind, Evidence(coverage=coverage)) + audit.verdict + more
    if difference is not None:
        columns = audit.column_changes if isinstance(audit, TableAudit) else None
        evidence = Evidence(
            changes=layers,
            around=difference.around,
            whole_change=difference.whole,
            trial=difference.trial,
            column_change=columns,
        )
        verdict += judge(audit.kind, evidence)
        if audit.difference is not None:  # of layers, which are judged among themselves
            layers = audit.difference.layers
        audit = structs.replace(audit, difference=structs.replace(difference, layers=layers))
    judged = judge_conditions(audit.kind, asked.conditions, verdict)
    baseline = None if asked.alignment is None else asked.alignment.baseline
    identity = identity_of(model, asked.data, baseline, asked.options)
    run = structs.replace(audit.reproduce, identity=identity)
    whole = structs.replace(audit, verdict=verdict, conditions=judged or None, reproduce=run)
    whole = structs.replace(whole, decision=decide(whole))
    return structs.replace(whole, passed=passed(whole))


def coverage_of(audit: Audit | LayerAudit | TableAudit, model: LoadedModel) -> Coverage:
    """Return how many parameters of a model an audit has read."""
    views = model.layers.values()
    if isinstance(audit, LayerAudit):
        ended, check = {layer.name: how_read(layer) for layer in audit.layers}, None
        with suppress(NonFiniteError):  # the layer says so itself
            check = model.reported  # which was compared when the model was opened
            if model.layers and model.load_report is None:
                check = model.exactness
    else:
        ended = dict.fromkeys(model.layers, "exact")
        worst = max(audit.exactness, key=lambda item: item.relative_error)
        rows, error, relative = worst.num_inputs, worst.largest_error, worst.relative_error
        check = Agreement("", "its forward pass", rows, error, relative, largest=0.0)
    report = model.load_report
    if report is not None and report.unverified:
        check = None
    guessed = report is not None and report.guessed
    said = report is not None and not report.verified and not report.unverified
    layout = "guessed" if guessed else "said" if said else "known"
    connected = not isinstance(audit, LayerAudit) or bool(model.network)
    return measure_coverage(model.tensors, views, ended, layout, check, connected)


def describe_model(model: LoadedModel, data: LabelledData | None = None) -> LayeredModel:
    module = model.module or model.original
    if module is not None:
        kind = type(module).__name__
        stored = str(next(module.parameters()).dtype).removeprefix("torch.")
    else:
        kind = model.provenance.get("format", "layers of another library")
        numbers = Counter[str]()  # by how they are stored
        for tensor in model.tensors.values():
            numbers[tensor.storage] += math.prod(tensor.shape)
        stored = ", ".join(name for name, _ in numbers.most_common()) or "float64"
    found = LayeredModel(kind, len(model.layers), stored)
    sizes = [view.sizes for view in model.network]
    if len(sizes) != 1 or not 1 < sizes[0].d_out < sizes[0].d_in:
        return found
    try:
        interface = interface_of(model, answers=False)
    except UsageError:  # it gives several numbers, or is not all of a model
        return found
    given = interface.input_shape or (None if data is None else data.shape)
    shape = image_shape(interface.d_input, given)
    if interface.ends or model.input_names or (given is None and min(shape) < SMALLEST_IMAGE):
        return found
    names = interface.output_names or tuple(map(str, range(interface.d_output)))
    return structs.replace(found, input_shape=shape, output_names=names)
