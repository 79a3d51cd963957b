"""The examiners of an audit: each makes one reading of its subject, or None where there is none."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from bilens.api.audit_subject import AuditSubject
from bilens.api.comparison import column_changes, layer_changes, whole_difference
from bilens.api.given_data import performance_of
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnChanges, ColumnReadings
from bilens.records.common import Reading
from bilens.records.given_inputs import GivenInputs
from bilens.records.guarantees import Guarantees
from bilens.records.image_warnings import Overfitting, Triggers
from bilens.records.layer_readings import Difference, LayerReadings, WordTrial
from bilens.records.performance import Performance


def examine_performance(subject: AuditSubject) -> Performance | None:
    """Return what predictions are worth, of the model as it was given."""
    return None if subject.data is None else performance_of(subject.given, subject.data)


def examine_classes(subject: AuditSubject) -> ClassReadings | None:
    return None if subject.classifier is None else subject.classifier.read_classes()


def examine_layers(subject: AuditSubject) -> LayerReadings | None:
    return None if subject.walk is None else LayerReadings(subject.walk.readings)


def examine_columns(subject: AuditSubject) -> ColumnReadings | None:
    if subject.table is None:
        return None
    return subject.table.read_columns(subject.data, subject.request.rows)


def examine_overfitting(subject: AuditSubject) -> Overfitting | None:
    if subject.classifier is not None:
        return subject.classifier.warnings[0]
    return None if subject.walk is None else subject.walk.overfitting


def examine_triggers(subject: AuditSubject) -> Triggers | None:
    if subject.classifier is not None:
        return subject.classifier.warnings[1]
    return None if subject.walk is None else subject.walk.triggers


def examine_guarantees(subject: AuditSubject) -> Guarantees | None:
    return None if subject.classifier is None else subject.classifier.prove_guarantees()


def examine_inputs(subject: AuditSubject) -> GivenInputs | None:
    return None if subject.classifier is None else subject.classifier.read_inputs()


def examine_difference(subject: AuditSubject) -> Difference | None:
    """Return what changed from the baseline: in all tensors, in layers, and in answers."""
    alignment, request = subject.alignment, subject.request
    if alignment is None:
        return None
    trial: WordTrial | None = None
    if request.try_words:
        from bilens.api.word_trial import try_words  # runs models: transformers

        both = alignment.model, alignment.baseline
        trial = try_words(*both, request.try_words, request.seed, request.progress)
    if subject.walk is not None:
        layers = subject.walk.changes
    else:
        rows = None if subject.data is None else subject.data.inputs
        layers = layer_changes(alignment, request.seed, rows, standard=subject.table is not None)
    return whole_difference(alignment, layers, trial, request.progress, subject.data)


def examine_column_changes(subject: AuditSubject) -> ColumnChanges | None:
    if subject.table is None or subject.alignment is None:
        return None
    return column_changes(subject.alignment, subject.data)


Examiner: TypeAlias = Callable[[AuditSubject], Reading | None]
# Field of an audit → what fills it, in the order in which they work.
EXAMINERS: Final[Mapping[str, Examiner]] = {
    "performance": examine_performance,
    "difference": examine_difference,
    "classes": examine_classes,
    "layers": examine_layers,
    "columns": examine_columns,
    "overfitting": examine_overfitting,
    "triggers": examine_triggers,
    "guarantees": examine_guarantees,
    "inputs": examine_inputs,
    "column_changes": examine_column_changes,
}
