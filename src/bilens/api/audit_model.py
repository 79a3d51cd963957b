"""`bl.audit`: a model and, if given, test images or rows of a table, to a report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs
from torch import nn

from bilens.api.audit_subject import AuditSubject, LayerReader, cover_model
from bilens.api.examiners import EXAMINERS, Examiner
from bilens.api.given_data import given_data, runs_on_files
from bilens.api.options import AuditOptions
from bilens.api.provenance import identity_of, origin_of
from bilens.api.subject import is_of_columns, is_one_exact_layer, open_subject
from bilens.base.errors import UsageError
from bilens.base.keyword_options import takes_options
from bilens.base.option_rules import (
    APPROXIMATED,
    BASELINE,
    NO_COLUMNS,
    ONE_LAYER,
    TRAINING_PATH,
    refuse_idle,
)
from bilens.findings.column_effects import ExactTable
from bilens.findings.coverage import find_nan_buffers, find_not_finite
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
from bilens.train.record_inputs import HALF, layer_inputs


@takes_options(AuditOptions)
def audit(model: LoadedModel | nn.Module, options: AuditOptions) -> AuditReport:
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
        options: an `AuditOptions`, or its fields:

    Returns: A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`,
        `to_markdown(path)`, `passed`.

    Raises: UsageError if the model has no layers that can be read, data are given for one of which
        parts alone are read, a condition is none, or a number is out of range; DataError,
        ShapeError if the data are damaged, unsafe, or do not fit the model; NonFiniteError if a
        weight of a classifier of one layer is NaN or infinite, or they exceed the range of float32,
        where it is not in float64; MemoryLimitError if the dense matrices would not fit.
    """
    before, data, train_data = options.baseline, options.data, options.train_data
    opened: dict[str, Any] = {"on_cpu": True, "bare": before is not None and data is None}
    model = open_subject(model, "an audit", **opened)
    before = None if before is None else open_subject(before, "an audit", **opened)
    if isinstance(data, str | Path) and runs_on_files(model):
        if options.labels is not None:
            raise UsageError("labels: the model is run on data, and its answers are not judged.")
        how: dict[str, Any] = {"seed": options.seed, "report": options.progress}
        seen = layer_inputs(model, data, held_out=HALF, **how)
        options, data = replace(options, data=None, inputs=seen), None
    conditions = parse_conditions(
        options.fail_on, data=data is not None, baseline=before is not None
    )
    given = given_data(model, data, options.labels)
    columns = is_of_columns(model)
    one_layer = is_one_exact_layer(model) and not columns
    facts = {
        BASELINE: before is not None,
        TRAINING_PATH: isinstance(train_data, str | Path),
        ONE_LAYER: one_layer,
        NO_COLUMNS: not columns,
        APPROXIMATED: not (columns or one_layer),  # or it is refused below
    }
    refuse_idle("audit", vars(options), *(fact for fact, holds in facts.items() if holds))
    trained = given_data(model, train_data, options.train_labels, training=True)
    return AuditReport(
        examine_subject(AuditSubject(model, given, trained, before, options), conditions)
    )


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
    asked = subject.asked
    origin = origin_of(subject.model, subject.data, asked.command, asked.seed)
    before = None if subject.alignment is None else subject.alignment.baseline
    identity = identity_of(subject.model, subject.data, before, subject.decisive_options)
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
        seed=asked.seed,
        source=origin.source,
        data=origin.data if asked.inputs is None else asked.inputs.data or origin.data,
        text=None if asked.inputs is None else asked.inputs.text,
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
    evidence["input_kind"] = subject.input_kind
    evidence["column_change"] = found.get("column_changes")
    if (difference := found.get("difference")) is not None:
        evidence |= {"changes": difference.layers, "around": difference.around}
        evidence |= {"whole_change": difference.whole, "trial": difference.trial}
    if isinstance(reader, LayerReader):
        evidence["layers"] = reader.walk.readings
        if not subject.model.headers:  # of what is read in place, layers alone are
            views = subject.model.layers.values()
            looked, broken = find_not_finite(subject.model.tensors, views)
            module = subject.model.module_in_memory
            lost = [] if module is None else find_nan_buffers(module)
            evidence["others"] = looked + len(lost), (*broken, *lost)
    elif isinstance(reader, ExactTable):
        evidence |= {"effects": found["columns"].outputs, "largest_part": reader.largest_part}
        evidence |= {"reading": reader.read, "done": None if data is None else data.done}
        evidence["columns_in"] = reader.columns_in
    else:
        classes, names = found["classes"], reader.summary.output_names
        evidence |= {"classes": classes.readings, "truncation": classes.truncation}
        evidence |= {"twins": twins_of(reader.f, names), "output_names": names}
        (view,) = subject.model.layers.values()
        options = subject.with_inputs(ReadingOptions(0, subject.asked.seed))
        layer = read_one_layer(view, fit_layer(view, subject.asked.seed), options)
        evidence |= {"enough": reader.curve[1], "layers": (layer,)}
    return Evidence(**evidence)
