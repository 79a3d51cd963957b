"""`bl.audit`: a model and, if given, test images or rows of a table, to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs
from torch import nn

from bilens.algebra.approximation.quadratic_fit import THRESHOLD
from bilens.api.audit_subject import AuditSubject, LayerReader, cover_model
from bilens.api.examiners import EXAMINERS, Examiner
from bilens.api.given_data import Data, given_data
from bilens.api.provenance import data_sha256, identity_of, origin_of
from bilens.api.subject import is_of_columns, is_one_exact_layer, open_subject
from bilens.base import Progress, silent
from bilens.base.option_rules import (
    APPROXIMATED,
    BASELINE,
    NO_COLUMNS,
    ONE_LAYER,
    TRAINING_PATH,
    refuse_idle,
)
from bilens.findings.column_effects import ExactTable
from bilens.findings.exact_classifier import twins_of
from bilens.findings.layer_reading import ReadingOptions, fit_layer
from bilens.findings.layer_walk import read_one_layer
from bilens.findings.rules.decision import decide, passed
from bilens.findings.rules.registry import Condition, judge, judge_conditions, parse_conditions
from bilens.findings.rules.rule import Evidence
from bilens.io.load import LoadedModel
from bilens.records.audit import Audit, ReadAs
from bilens.records.decision import Coverage
from bilens.report.reports import AuditReport
from bilens.train.recorded_inputs import LayerInputs

OF_THE_MODEL = ("model_sha256", "config_sha256")  # which recorded inputs say, and its identity


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
) -> AuditReport:
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
            the range of float32, where it is not in float64.
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
    options = {
        "null_samples": null_samples,
        "seed": seed,
        "threshold": threshold,
        "try_words": try_words,
        "labels": [labels, train_labels],
        "train_data": data_sha256(trained),
        "inputs": inputs and {k: v for k, v in inputs.about.items() if k not in OF_THE_MODEL},
    }
    subject = AuditSubject(
        model,
        given,
        trained,
        baseline,
        null_samples=null_samples,
        seed=seed,
        threshold=threshold,
        try_words=try_words,
        inputs=inputs,
        command=command,
        progress=progress,
        options=options,
    )
    return AuditReport(examine_subject(subject, conditions))


def examine_subject(
    subject: AuditSubject,
    conditions: Sequence[Condition] = (),
    examiners: Mapping[str, Examiner] = EXAMINERS,
) -> Audit:
    """Return the audit of a subject: read by each examiner, judged once, and decided."""
    reader = subject.reader
    read_as: ReadAs = reader.read_as
    exactness = reader.exactness  # a model that exceeds float32 is refused before any work
    found: dict[str, Any] = {name: examine(subject) for name, examine in examiners.items()}
    coverage = cover_model(subject)
    verdict = judge(read_as, gather_evidence(subject, found, coverage))
    judged = judge_conditions(read_as, conditions, verdict)
    decision = decide(read_as, verdict, coverage, judged, found.get("performance"))
    origin = origin_of(subject.model, subject.data, subject.command, subject.seed)
    before = None if subject.alignment is None else subject.alignment.baseline
    identity = identity_of(subject.model, subject.data, before, subject.options)
    return Audit(
        read_as=read_as,
        passed=passed(decision, verdict, coverage),
        model=reader.facts,
        coverage=coverage,
        verdict=verdict,
        conditions=judged or None,
        decision=decision,
        exactness=exactness,
        null_samples=reader.null_samples,
        seed=subject.seed,
        source=origin.source,
        data=origin.data,
        text=None if subject.inputs is None else subject.inputs.text,
        reproduce=structs.replace(origin.reproduce, identity=identity),
        **found,
    )


def gather_evidence(
    subject: AuditSubject, found: Mapping[str, Any], coverage: Coverage
) -> Evidence:
    """Return everything that rules may judge, from the readings and from what these left out."""
    reader, data = subject.reader, subject.data
    same = ("performance", "inputs", "overfitting", "triggers")
    evidence: dict[str, Any] = {name: found.get(name) for name in same}
    evidence |= {"coverage": coverage, "exactness": reader.exactness}
    evidence["column_change"] = found.get("column_changes")
    if (difference := found.get("difference")) is not None:
        evidence |= {"changes": difference.layers, "around": difference.around}
        evidence |= {"whole_change": difference.whole, "trial": difference.trial}
    if isinstance(reader, LayerReader):
        evidence["layers"] = reader.walk.readings
    elif isinstance(reader, ExactTable):
        evidence |= {"effects": found["columns"].outputs, "largest_part": reader.largest_part}
        evidence |= {"reading": reader.read, "done": None if data is None else data.done}
        evidence["columns_in"] = reader.columns_in
    else:
        classes, names = found["classes"], reader.summary.output_names
        evidence |= {"classes": classes.readings, "truncation": classes.truncation}
        evidence |= {"twins": twins_of(reader.f, names), "output_names": names}
        (view,) = subject.model.layers.values()
        options = subject.with_inputs(ReadingOptions(0, subject.seed))
        layer = read_one_layer(view, fit_layer(view, subject.seed), options)
        evidence |= {"enough": reader.curve[1], "layers": (layer,)}
    return Evidence(**evidence)
