"""The readings of many layers: one after another, so that no more than one is in memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from msgspec.structs import replace

from bilens.algebra.approximation.quadratic_fit import THRESHOLD
from bilens.algebra.hosvd import hosvd
from bilens.base import Progress, silent
from bilens.base.checks import check_count
from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.option_rules import check_seed
from bilens.findings.adapters import token_pairs
from bilens.findings.difference import compare_layers, other_kind
from bilens.findings.hidden_units import read_units
from bilens.findings.image_warnings import read_layer_warnings
from bilens.findings.layer_reading import (
    FittedLayer,
    ReadingOptions,
    describe_layer,
    fit_layer,
    read_inputs,
    read_layer,
    stability,
)
from bilens.findings.outliers import robust_scale
from bilens.findings.residual_stream import Turn
from bilens.nn.layer_view import LayerView
from bilens.records.image_warnings import Overfitting, Triggers
from bilens.records.layer_readings import LayerDifference, LayerReading


def with_norm_scores(layers: Sequence[LayerReading]) -> tuple[LayerReading, ...]:
    """Return the readings with the robust z of each log weight norm; None with few layers."""
    sizes = {layer.name: math.log(norm) for layer in layers if (norm := layer.weight_norm)}
    scale = robust_scale(sizes.values())
    if scale is None:
        return tuple(layers)
    middle, spread = scale
    scores = {name: (size - middle) / spread for name, size in sizes.items()}
    return tuple(replace(layer, norm_z=scores.get(layer.name)) for layer in layers)


def read_one_layer(
    subject: LayerView, fitted: FittedLayer, options: ReadingOptions
) -> LayerReading:
    """Return dead and doubled units, unused and dominant inputs, unstable directions."""
    f = fitted.map
    assert f is not None, "an exact layer is its map"
    inputs = read_inputs(subject, fitted, options)
    spectrum = hosvd(f, min(f.sizes.d_out, f.sizes.d_hidden))
    zero = math.sqrt(float(spectrum.frobenius_squared)) == 0
    stable = None if zero else stability(fitted, spectrum)
    units = read_units(fitted.layer, fitted.classes, fitted.centre)
    return replace(describe_layer(subject), units=units, inputs=inputs, stability=stable)


NULL_SAMPLES = 19  # rotations of a layer: each end of their range is exceeded by one in twenty
NONE: Mapping[str, str] = MappingProxyType({})
USUAL = ReadingOptions(NULL_SAMPLES, seed=0)


@dataclass(frozen=True)
class LayerWalk:
    """The readings that one walk over all layers gives, with one layer in memory at a time."""

    readings: tuple[LayerReading, ...]
    changes: tuple[LayerDifference, ...]  # from the baseline
    overfitting: Overfitting | None = None  # where a layer is a whole classifier of images
    triggers: Triggers | None = None


def walk_layers(
    subjects: Sequence[LayerView],
    baseline: Sequence[LayerView] | None = None,
    *,
    why_not: Mapping[str, str] = NONE,
    turn: Callable[[], Turn] | None = None,
    options: ReadingOptions = USUAL,
    progress: Progress = silent,
    input_shape: tuple[int, int] | None = None,
) -> LayerWalk:
    """Read the weights of each layer, and their changes from the layers of a baseline.

    `why_not` says of layers why they are not compared, also of those of the baseline alone, `turn`
    finds how the residual stream of the baseline has to be turned; `input_shape` is that of the
    images where a layer is a whole classifier of them.
    """
    before = {subject.name: subject for subject in baseline or ()}
    found, changes, overfitting, triggers = [], [], None, None
    for done, subject in enumerate(subjects):
        progress("layers", done, len(subjects))
        reading, fitted = read_layer(subject, options)
        found.append(reading)
        if input_shape is not None and fitted is not None:
            overfitting, triggers = read_layer_warnings(fitted, input_shape)
        base = before.get(subject.name)
        if subject.name in why_not:
            changes.append(LayerDifference(subject.name, False, why_not[subject.name]))
        elif base is not None:
            changes.append(compare_with(base, subject, fitted, options, turn=turn))
    progress("layers", len(subjects), len(subjects))
    alone = why_not.keys() - {subject.name for subject in subjects}
    changes += [LayerDifference(name, False, why_not[name]) for name in sorted(alone)]
    return LayerWalk(with_norm_scores(found), tuple(changes), overfitting, triggers)


def compare_with(
    before: LayerView,
    subject: LayerView,
    after: FittedLayer | None,
    options: ReadingOptions,
    *,
    vectors: bool = False,
    turn: Callable[[], Turn] | None = None,
) -> LayerDifference:
    """Compare a layer with its baseline; `after` is None where it cannot be read."""
    if other := other_kind(before, subject):
        return LayerDifference(before.name, False, other)
    before = dataclasses.replace(
        before, assumed_input=subject.assumed_input
    )  # or maps differ by it
    try:
        base = fit_layer(before, options.seed, options.threshold, options.rows)
    except NonFiniteError:
        base = None
    turn = turn if subject.reads == "residual stream" else None
    words, pairs_of = options.vocabulary, None
    if words is not None:
        pairs_of = partial(token_pairs, vocabulary=words, layer=subject)
    rows = None if options.seen is None else options.seen(subject.name)
    return compare_layers(
        before.name, base, after, vectors=vectors, pairs_of=pairs_of, turn=turn, rows=rows
    )


def checked_options(null_samples: int, seed: int, threshold: float = THRESHOLD) -> ReadingOptions:
    null_samples = check_count("null_samples", null_samples, minimum=3)
    seed = check_seed(seed)
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be between 0 and 1, got {threshold!r}.")
    return ReadingOptions(null_samples, seed, float(threshold))
