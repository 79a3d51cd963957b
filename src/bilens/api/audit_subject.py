"""The subject of an audit: a model with its data and baseline, and what its readings share.

Each part is computed once, when the first reading asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from msgspec import structs

from bilens.algebra.approximation.quadratic_fit import THRESHOLD
from bilens.api.alignment import Alignment, align_models
from bilens.api.comparison import vocabulary_of_model
from bilens.api.given_data import interface_of, rows_received, rows_to_fit
from bilens.api.provenance import reading_of
from bilens.api.subject import is_of_columns, is_one_exact_layer
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.option_rules import refuse_idle
from bilens.data.model_interface import LabelledData
from bilens.findings.column_effects import ExactTable, output_names_of
from bilens.findings.coverage import how_read, measure_coverage
from bilens.findings.exact_classifier import ExactClassifier
from bilens.findings.layer_reading import fit_layer
from bilens.findings.layer_walk import (
    NULL_SAMPLES as LAYER_SAMPLES,
    LayerWalk,
    checked_options,
    read_one_layer,
    walk_layers,
)
from bilens.findings.overfitting import SMALLEST_IMAGE
from bilens.findings.subject import image_shape, summarise
from bilens.io.load import LoadedModel
from bilens.nn.agreement import Agreement
from bilens.records.audit import ReadAs
from bilens.records.common import Exactness, ModelFacts
from bilens.records.decision import Coverage
from bilens.records.layer_readings import LayerReading
from bilens.train.recorded_inputs import LayerInputs

CLASS_SAMPLES = 99  # rotations for the classes of a classifier


@dataclass(frozen=True)
class AuditRequest:
    """What an audit is asked for, beside model, data and baseline."""

    null_samples: int | None = None  # None for the usual number of the model
    seed: int = 0
    threshold: float = THRESHOLD
    try_words: int = 0
    inputs: LayerInputs | None = None  # what the layers see
    rows: Sequence[int] = ()  # of a table that are taken apart; telling ones where none are named
    command: str | None = None
    progress: Progress = silent
    recorded: Mapping[str, object] = field(default_factory=dict)  # options that numbers depend on


@dataclass(frozen=True, eq=False)
class AuditSubject:
    """A model that is audited, opened once, with its data and its baseline."""

    given: LoadedModel
    data: LabelledData | None = None
    training: LabelledData | None = None
    before: LoadedModel | None = None  # the baseline
    request: AuditRequest = AuditRequest()

    @cached_property
    def alignment(self) -> Alignment | None:
        """The model beside its baseline."""
        return None if self.before is None else align_models(self.given, self.before)

    @cached_property
    def model(self) -> LoadedModel:
        return self.given if self.alignment is None else self.alignment.model

    @cached_property
    def table(self) -> ExactTable | None:
        """The model where it is one exact layer with named columns."""
        return ExactTable(self.model, reading_of(self.model)) if is_of_columns(self.model) else None

    @cached_property
    def classifier(self) -> ExactClassifier | None:
        """The model where it is any other classifier of one exact layer."""
        if self.table is not None or not is_one_exact_layer(self.model):
            return None
        samples, request = self.request.null_samples, self.request
        return ExactClassifier(
            self.model,
            self.data,
            self.training,
            null_samples=CLASS_SAMPLES if samples is None else samples,
            seed=request.seed,
            progress=request.progress,
        )

    @property
    def read_as(self) -> ReadAs:
        """How the model is read, which decides on the rules."""
        if self.table is not None:
            return "columns"
        return "layers" if self.classifier is None else "classes"

    @cached_property
    def null_samples(self) -> int:
        if self.classifier is not None:
            return self.classifier.null_samples
        samples = LAYER_SAMPLES if self.request.null_samples is None else self.request.null_samples
        return samples if self.table is None else 0

    @cached_property
    def walk(self) -> LayerWalk | None:
        """The walk over the layers of every other model: what each does, and what changed in it."""
        if self.table is not None or self.classifier is not None:
            return None
        model, request, alignment = self.model, self.request, self.alignment
        options = checked_options(self.null_samples, request.seed, request.threshold)
        subjects, beside = tuple(model.layers.values()), alignment is not None
        if subjects and all(view.exact for view in subjects):
            refuse_idle("audit", {"threshold": options.threshold, "inputs": request.inputs})
        rows = rows_to_fit(model, self.data, request.inputs, request.seed)
        seen = rows_received(model, self.data, request.inputs) if beside else None
        vocabulary = vocabulary_of_model(model) if beside else None
        return walk_layers(
            subjects,
            None if alignment is None else alignment.layers_before,
            why_not={} if alignment is None else alignment.refused,
            turn=None if alignment is None else alignment.turn,
            options=replace(options, rows=rows, vocabulary=vocabulary, seen=seen),
            progress=request.progress,
            input_shape=self.described.input_shape,
        )

    @cached_property
    def exactness(self) -> tuple[Exactness, ...]:
        """The errors of the formula of one exact layer; empty for other models."""
        if self.classifier is not None:
            return self.classifier.exactness
        return () if self.table is None else self.table.compare_forward(self.request.seed)

    @cached_property
    def one_layer(self) -> tuple[LayerReading, ...]:
        """The units and inputs of the layer of a classifier of one, which its rules judge."""
        if self.classifier is None:
            return ()
        (view,) = self.model.layers.values()
        return (read_one_layer(view, fit_layer(view, self.request.seed), self.request.seed),)

    @cached_property
    def described(self) -> ModelFacts:
        """What was read: the sizes of one exact layer, or the number of layers."""
        model = self.model
        if self.table is None and self.classifier is None:
            return describe_layers(model, self.data)
        found = ModelFacts(num_layers=1, **summarise(model).fields())
        if self.table is None:
            return found
        names, known = output_names_of(model), self.table.is_standardised
        return structs.replace(
            found,
            task="regression" if len(names) == 1 else "classification",
            standardised=known,
            input_mean=model.input_mean if known else None,
            input_scale=model.input_scale if known else None,
        )


def cover_model(subject: AuditSubject) -> Coverage:
    """Return how many parameters of a model its readings are of."""
    model, walk, check = subject.model, subject.walk, None
    ended = dict.fromkeys(model.layers, "exact")
    if walk is not None:
        ended = {layer.name: how_read(layer) for layer in walk.readings}
        with suppress(NonFiniteError):  # the layer says so itself
            check = model.reported  # which was compared when the model was opened
            if model.layers and model.load_report is None:
                check = model.exactness
    else:
        worst = max(subject.exactness, key=lambda item: item.relative_error)
        rows, error, relative = worst.num_inputs, worst.largest_error, worst.relative_error
        check = Agreement("", "its forward pass", rows, error, relative, largest=0.0)
    report = model.load_report
    if report is not None and report.unverified:
        check = None
    guessed = report is not None and report.guessed
    said = report is not None and not report.verified and not report.unverified
    layout = "guessed" if guessed else "said" if said else "known"
    connected = walk is None or bool(model.network)
    return measure_coverage(model.tensors, model.layers.values(), ended, layout, check, connected)


def describe_layers(model: LoadedModel, data: LabelledData | None = None) -> ModelFacts:
    """Return what is known of a model that is read layer by layer."""
    module = model.module or model.original
    if module is not None:
        kind, dtype = type(module).__name__, next(module.parameters()).dtype
    else:
        kind = model.provenance.get("format", "layers of another library")
        known = [view.dtype for view in model.layers.values()]
        dtype = [*known, *(one.dtype for one in model.tensors.values()), torch.float64][0]
    found = ModelFacts(kind, len(model.layers), str(dtype).removeprefix("torch."))
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
