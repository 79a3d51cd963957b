"""The records of a quadratic approximation: beside spectra, in an audit, and alone."""

import torch

from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.approximation.quadratic_fit import QuadraticFit, SeenRows, in_blocks
from bilens.algebra.approximation.r_squared import FitScores, centred, interval_over_files
from bilens.algebra.directions import outputs_of
from bilens.findings.guarantees import finite
from bilens.findings.rules.rule import HEAVY
from bilens.nn.layer_view import LayerView
from bilens.records.common import FileInterval
from bilens.records.decomposition import ApproximationQuality, DegreeScores, LayerFit, Score
from bilens.records.layer_readings import FitQuality


def approximation_quality(fit: QuadraticFit, activation: str) -> ApproximationQuality:
    scores = fit.r_squared
    return ApproximationQuality(
        activation,
        fit.derivation,
        fit.assumed_input,
        scores.quadratic.overall,
        scores.quadratic.standard_error,
        scores.linear.overall,
        fit.threshold,
    )


def degree_scores(fit: str, found: FitScores) -> DegreeScores:
    linear, whole = found.linear, found.quadratic
    error = whole.standard_error  # which one row that carries much does not know
    error = max(error, whole.largest_share) if whole.largest_share > HEAVY else error
    return DegreeScores(
        fit,
        found.rows,
        Score(finite(linear.overall), finite(linear.standard_error)),
        Score(finite(whole.overall), finite(error)),
        Score(finite(whole.trimmed), finite(whole.trimmed_error)),
        tuple(map(finite, (whole.median, *whole.median_interval))),
        tuple(map(finite, whole.outputs.tolist())),
    )


def fit_quality(fit: LayerFit) -> FitQuality:
    """Return the numbers of a fit that the rules judge."""
    scores = fit.scores
    linear, whole = scores.linear, scores.quadratic
    return FitQuality(
        linear=linear.value,
        quadratic=whole.value,
        standard_error=whole.standard_error or 0.0,
        samples=scores.rows,
        assumed_input=fit.assumed_input,
        threshold=fit.threshold,
        usable=fit.usable,
        fit=fit.chosen,
        seen=len(fit.ladder) > 1,
        trimmed=scores.trimmed.value,
        median=scores.median[0],
        over_files=fit.over_files,
    )


def fit_record(
    name: str,
    view: LayerView | None,
    fit: QuadraticFit,
    layer: Layer | None = None,
    seen: SeenRows | None = None,
) -> LayerFit:
    """Return the record of a fit; on rows of files with an interval over the files."""
    over_files = None
    if layer is not None and seen is not None and seen.files is not None:
        classes, x = view is not None and view.classes, seen.held_out.double()
        made = outputs_of(fit.quadratic_map, centred=classes)
        low, high = interval_over_files(
            centred(in_blocks(layer, x), classes), in_blocks(made, x), seen.files
        ) or (None, None)
        over_files = FileInterval(len(torch.unique(seen.files)), low, high)
    sizes = None if view is None else view.sizes
    return LayerFit(
        name=name,
        activation=None if view is None else str(view.activation),
        gated=None if view is None else view.gated,
        d_in=None if sizes is None else sizes.d_in,
        d_hidden=None if sizes is None else sizes.d_hidden,
        d_out=None if sizes is None else sizes.d_out,
        exact=fit.exact,
        derivation=fit.derivation,
        assumed_input=fit.assumed_input,
        chosen=fit.chosen,
        ladder=tuple(degree_scores(name, found) for name, found in fit.ladder.items()),
        missing=fit.missing,
        threshold=fit.threshold,
        usable=fit.usable,
        over_files=over_files,
    )
