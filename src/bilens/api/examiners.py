"""The examiners of an audit: each makes one reading of its subject, or None where there is none."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Final, TypeAlias

from bilens.api.audit_subject import AuditSubject, LayerReader
from bilens.api.comparison import column_changes, layer_changes, whole_difference
from bilens.api.given_data import performance_of
from bilens.base.errors import BilensError
from bilens.findings.column_effects import ExactTable
from bilens.findings.exact_classifier import ExactClassifier
from bilens.io.contents import Contents, Tensor, bits_of
from bilens.io.inventory import inventory_of, take_inventory
from bilens.io.remote import RemotePath
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnChanges, ColumnReadings
from bilens.records.common import Reading
from bilens.records.given_inputs import GivenInputs
from bilens.records.guarantees import Guarantees
from bilens.records.image_warnings import Overfitting, Triggers
from bilens.records.inventory import Inventory
from bilens.records.layer_readings import Difference, LayerReadings, WordTrial
from bilens.records.performance import Performance

READ = ("exact", "approximate")  # endings of a layer that was read


def examine_inventory(subject: AuditSubject) -> Inventory:
    """Say what the model is: by its file, or by its tensors and modules where it is in memory."""
    model, read = subject.given, names_read(subject)
    path = Path(model.home)
    if model.source and model.original is None and not isinstance(path, RemotePath):
        with suppress(BilensError):
            if path.exists():
                return take_inventory(path, read)
    module, contents = model.module or model.original, Contents("tensors in memory", [])
    if module is not None:
        contents.format = f"{type(module).__name__} in memory"
        parts = (type(one).__name__ for one in module.modules() if not [*one.children()])
        contents.operations = Counter(parts)
    for name, one in model.tensors.items():
        size = prod(one.shape) * bits_of(one.storage) // 8
        contents.tensors.append(Tensor(name, one.shape, one.storage, size, None, name))
    return inventory_of(contents, read=read)


def names_read(subject: AuditSubject) -> set[str]:
    """Return the names of the tensors in layers that were read, as coverage counts them."""
    ended, reader = dict.fromkeys(subject.model.layers, "exact"), subject.reader
    if isinstance(reader, LayerReader):
        ended = {layer.name: layer.how_read for layer in reader.walk.readings}
    views = (view for name, view in subject.model.layers.items() if ended[name] in READ)
    return {name for view in views for name in view.tensors}


def examine_performance(subject: AuditSubject) -> Performance | None:
    """Measure the predictions of the model as it was given."""
    return None if subject.data is None else performance_of(subject.given, subject.data)


def examine_classes(subject: AuditSubject) -> ClassReadings | None:
    reader = subject.reader
    return reader.read_classes() if isinstance(reader, ExactClassifier) else None


def examine_layers(subject: AuditSubject) -> LayerReadings | None:
    reader = subject.reader
    return LayerReadings(reader.walk.readings) if isinstance(reader, LayerReader) else None


def examine_columns(subject: AuditSubject) -> ColumnReadings | None:
    reader = subject.reader
    if not isinstance(reader, ExactTable):
        return None
    return reader.read_columns(subject.rows)


def examine_overfitting(subject: AuditSubject) -> Overfitting | None:
    return warnings_of(subject)[0]


def examine_triggers(subject: AuditSubject) -> Triggers | None:
    return warnings_of(subject)[1]


def warnings_of(subject: AuditSubject) -> tuple[Overfitting | None, Triggers | None]:
    reader = subject.reader
    if subject.input_kind != "images":
        return None, None
    if isinstance(reader, LayerReader):
        return reader.walk.overfitting, reader.walk.triggers
    return reader.warnings if isinstance(reader, ExactClassifier) else (None, None)


def examine_guarantees(subject: AuditSubject) -> Guarantees | None:
    reader = subject.reader
    return reader.prove_guarantees() if isinstance(reader, ExactClassifier) else None


def examine_inputs(subject: AuditSubject) -> GivenInputs | None:
    reader = subject.reader
    return reader.read_inputs() if isinstance(reader, ExactClassifier) else None


def examine_difference(subject: AuditSubject) -> Difference | None:
    """Compare with the baseline all tensors, layers and answers; a model of language with words."""
    alignment, reader, data = subject.alignment, subject.reader, subject.data
    if alignment is None:
        return None
    trial: WordTrial | None = None
    if subject.asked.try_words:
        from bilens.api.word_trial import try_words  # runs models: transformers

        both = alignment.model, alignment.baseline
        trial = try_words(
            *both, subject.asked.try_words, subject.asked.seed, subject.asked.progress
        )
    if isinstance(reader, LayerReader):
        layers = reader.walk.changes
    else:
        rows, standard = None if data is None else data.inputs, isinstance(reader, ExactTable)
        layers = layer_changes(alignment, subject.asked.seed, rows, standard=standard)
    return whole_difference(alignment, layers, trial, subject.asked.progress, data)


def examine_column_changes(subject: AuditSubject) -> ColumnChanges | None:
    if subject.alignment is None or not isinstance(subject.reader, ExactTable):
        return None
    return column_changes(subject.alignment, subject.data)


Examiner: TypeAlias = Callable[[AuditSubject], Reading | None]
# Field of an audit → what fills it, in the order in which they work.
EXAMINERS: Final[Mapping[str, Examiner]] = {
    "inventory": examine_inventory,
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
