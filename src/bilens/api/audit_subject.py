"""The subject of an audit: a model with its data and baseline, and what its readings share.

Each part is computed once, when the first reading asks for it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import structs

from bilens.api.alignment import Alignment, align_models
from bilens.api.comparison import vocabulary_of_model
from bilens.api.given_data import interface_of, rows_received, rows_to_fit
from bilens.api.options import AuditOptions
from bilens.api.provenance import (
    data_sha256,
    files_with_tensors,
    is_of_weights,
    parts_in,
    read_beside,
    reading_of,
    unseen_in,
)
from bilens.api.subject import is_of_columns, is_one_exact_layer
from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.option_rules import refuse_idle
from bilens.data.model_interface import LabelledData
from bilens.findings.column_effects import ExactTable
from bilens.findings.coverage import measure_coverage
from bilens.findings.exact_classifier import ExactClassifier
from bilens.findings.layer_reading import ReadingOptions
from bilens.findings.layer_walk import (
    NULL_SAMPLES as LAYER_SAMPLES,
    LayerWalk,
    checked_options,
    walk_layers,
)
from bilens.findings.overfitting import SMALLEST_IMAGE
from bilens.findings.rules.rule import InputKind
from bilens.findings.subject import image_shape
from bilens.io.load import LoadedModel
from bilens.nn.agreement import Agreement
from bilens.records.common import Exactness, ModelFacts
from bilens.records.decision import Coverage

OF_THE_MODEL = ("model_sha256", "config_sha256")  # which recorded inputs say, and its identity


@dataclass(frozen=True, eq=False)
class AuditSubject:
    """A model that is audited, opened once, with its data, its baseline and what is asked of it."""

    given: LoadedModel
    data: LabelledData | None = None
    training: LabelledData | None = None
    before: LoadedModel | None = None  # the baseline
    asked: AuditOptions = AuditOptions()
    rows: Sequence[int] = ()  # of a table that are taken apart; telling ones where none are named
    by_columns: bool = False  # whether it is read so whatever its outputs are

    @property
    def decisive_options(self) -> dict[str, object]:
        """The options that change numbers of the audit, for its identity."""
        asked, inputs = self.asked, self.asked.inputs
        names = ("null_samples", "seed", "threshold", "try_words")
        found = {name: getattr(asked, name) for name in names} | {
            "labels": [asked.labels, asked.train_labels],
            "train_data": data_sha256(self.training),
            "inputs": inputs and {k: v for k, v in inputs.about.items() if k not in OF_THE_MODEL},
        }
        return found | {"read": dict(self.given.asked)} if self.given.asked else found

    @cached_property
    def alignment(self) -> Alignment | None:
        """The model beside its baseline."""
        return None if self.before is None else align_models(self.given, self.before)

    @cached_property
    def model(self) -> LoadedModel:
        return self.given if self.alignment is None else self.alignment.model

    @cached_property
    def reader(self) -> ExactTable | ExactClassifier | LayerReader:
        """The way in which the model is read: by columns, by classes, or layer by layer."""
        if self.by_columns or is_of_columns(self.model):
            return ExactTable(self.model, self.data, reading_of(self.model), self.asked.seed)
        if not is_one_exact_layer(self.model):
            return LayerReader(self)
        return ExactClassifier(
            self.model,
            self.data,
            self.training,
            null_samples=self.asked.null_samples,
            seed=self.asked.seed,
            progress=self.asked.progress,
        )

    def with_inputs(self, options: ReadingOptions) -> ReadingOptions:
        """Return options with what is known of the inputs: rows, names, whether they are pixels."""
        model, data = self.model, self.data
        return replace(
            options,
            seen=rows_received(model, data, self.asked.inputs),
            pixels=self.input_kind == "images" and self.box is not None,
            names=model.own_input_names or (),
        )

    @cached_property
    def input_kind(self) -> InputKind | Literal[""]:
        """The kind of the inputs, as far as the model or its data say it.

        An array may have any shape: it is an image where a training or a data set says its range,
        or where rows and columns are stated for a classifier that reads them at once.
        """
        model, data = self.model, self.data
        if any(view.reads == "residual stream" for view in model.layers.values()):
            return "text"
        if isinstance(self.reader, ExactTable) or model.own_input_names:
            return "table"
        shape = model.input_shape or (None if data is None else data.shape) or ()
        known = self.box is not None or isinstance(self.reader, ExactClassifier)
        return "images" if known and sum(side > 1 for side in shape) > 1 else ""

    @property
    def box(self) -> tuple[float, float] | None:
        """The range of pixels; None where nothing says that inputs are any."""
        return self.model.input_box or (None if self.data is None else self.data.box)


class LayerReader:
    """A model that is read layer by layer, in one walk that all readings of its layers share."""

    read_as: Final = "layers"
    exactness: tuple[Exactness, ...] = ()  # of no formula

    def __init__(self, subject: AuditSubject) -> None:
        self.subject, samples = subject, subject.asked.null_samples
        self.null_samples = LAYER_SAMPLES if samples is None else samples
        self.facts = describe_layers(subject.model, subject.data)

    @cached_property
    def walk(self) -> LayerWalk:
        """The readings of all layers, and of their changes from the baseline."""
        subject, asked = self.subject, self.subject.asked
        model, data, alignment = subject.model, subject.data, subject.alignment
        options = checked_options(self.null_samples, asked.seed, asked.threshold)
        layers = tuple(model.layers.values())
        if layers and all(view.exact for view in layers):
            refuse_idle("audit", {"threshold": options.threshold, "inputs": asked.inputs})
        rows = rows_to_fit(model, data, asked.inputs, asked.seed)
        options = replace(subject.with_inputs(options), rows=rows)
        beside: dict[str, Any] = {}
        if alignment is not None:
            options = replace(options, vocabulary=vocabulary_of_model(model))
            beside = {"why_not": alignment.refused, "turn": alignment.turn}
            beside["baseline"] = alignment.layers_before
        shape = self.facts.input_shape if subject.input_kind == "images" else None
        progress = asked.progress
        return walk_layers(layers, options=options, progress=progress, input_shape=shape, **beside)


def cover_model(subject: AuditSubject) -> Coverage:
    """Return how many parameters of a model its readings are of."""
    model, reader, check = subject.model, subject.reader, None
    ended = dict.fromkeys(model.layers, "exact")
    if isinstance(reader, LayerReader):
        ended = {layer.name: layer.how_read for layer in reader.walk.readings}
        with suppress(NonFiniteError):  # the layer says so itself
            check = model.reported  # which was compared when the model was opened
            if model.layers and model.load_report is None:
                check = model.exactness
    else:
        worst = max(reader.exactness, key=lambda item: item.relative_error)
        rows, error, relative = worst.num_inputs, worst.largest_error, worst.relative_error
        check = Agreement("", "its forward pass", rows, error, relative, largest=0.0)
    report = model.load_report
    if report is not None and report.unverified:
        check = None
    guessed = report is not None and report.guessed
    said = report is not None and not report.verified and not report.unverified
    layout = "guessed" if guessed else "said" if said else "known"
    connected = bool(model.network) or not isinstance(reader, LayerReader)
    layers = model.layers.values()
    found = measure_coverage(model.tensors, layers, ended, layout, check, connected)
    beside = read_beside(Path(model.home)) if model.source else {}
    own = files_with_tensors(model) if beside else set()
    other = (n for n, path in beside.items() if path not in own and is_of_weights(path))
    folders = unseen_in(Path(model.home)) if model.source else {}
    large = tuple(name for name, one in folders.items() if not parts_in(one)[1])
    return structs.replace(found, other_files=tuple(other), not_hashed=large)


def describe_layers(model: LoadedModel, data: LabelledData | None = None) -> ModelFacts:
    """Return class, dtype and number of layers of a model; of an image classifier its classes."""
    module = model.module or model.original
    kind = model.provenance.get("format", "layers of another library")
    kind = kind if module is None else type(module).__name__
    numbers = Counter[str]()  # by how they are stored
    for tensor in filter(lambda one: one.is_weight, model.tensors.values()):
        numbers[tensor.storage] += math.prod(tensor.shape)
    stored = ", ".join(name for name, _ in numbers.most_common()) or "float64"
    found = ModelFacts(kind, len(model.layers), stored)
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
