"""The audit of many layers: one after another, so that no more than one is in memory."""

from __future__ import annotations

from collections.abc import Sequence

from bilens.algebra.approximation.quadratic_fit import THRESHOLD
from bilens.base.checks import check_count
from bilens.base.errors import NonFiniteError, UsageError
from bilens.findings.difference.layer import compare_layers
from bilens.findings.difference.pairing import check_pairs
from bilens.findings.layers.norms import with_norm_scores
from bilens.findings.layers.reading import Extent, Opened, open_layer, read_layer
from bilens.findings.layers.subject import LayerSubject
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.findings.subject import SEED_LIMIT, Progress, silent
from bilens.records.difference import BaselineSource, Difference, LayerDifference
from bilens.records.layer_audit import LayerAudit, LayeredModel
from bilens.records.origin import UNKNOWN, Origin
from bilens.records.verdict import Share, passes

FROM_MEMORY = BaselineSource("", "")
IN_PARTS = LayeredModel("layers", 0, "float64")
NULL_SAMPLES = 19  # rotations of a layer: each end of their range is exceeded by one in twenty


def audit_layers(
    subjects: Sequence[LayerSubject],
    accuracy: Share | None = None,
    baseline: Sequence[LayerSubject] | None = None,
    *,
    null_samples: int = NULL_SAMPLES,
    seed: int = 0,
    threshold: float = THRESHOLD,
    progress: Progress = silent,
    model: LayeredModel = IN_PARTS,
    against: BaselineSource = FROM_MEMORY,
    origin: Origin = UNKNOWN,
) -> LayerAudit:
    """Return what the weights of each layer say.

    Cost: layers · null_samples · O(hidden² · (in + out) + in³ + out³) time; the memory of one layer
        in float64, its map, and 128 MiB.

    Args:
        subjects: the layers, first to last; at least one.
        accuracy: of the whole model on data; None without.
        baseline: the layers of the model to compare with, of the same names and sizes.
        null_samples: draws for each level of chance, at least 3.
        seed: of the draws and of the inputs that R² is measured on.
        threshold: R² from which the map of a layer is read.
        progress: called with ("layers", done, total).
        model: what the layers are of.
        against: where the baseline is from.
        origin: of weights and data.

    Raises:
        UsageError: If there is no layer, the baseline has others, or null_samples or seed is out of
            range.
    """
    if not subjects:
        raise UsageError("an audit needs a model with at least one MLP, and this one has none.")
    extent = checked_extent(null_samples, seed, threshold)
    if baseline is not None:
        check_pairs(subjects, baseline)
    before = {subject.name: subject for subject in baseline or ()}
    found, changes = [], []
    for done, subject in enumerate(subjects):
        progress("layers", done, len(subjects))
        reading, opened = read_layer(subject, extent)
        found.append(reading)
        if baseline is not None:
            changes.append(compare_with(before[subject.name], opened, extent))
    progress("layers", len(subjects), len(subjects))
    layers = with_norm_scores(found)
    verdict = judge("layer_audit", Evidence(layers=layers, accuracy=accuracy))
    difference = None
    if baseline is not None:
        difference = Difference(against, tuple(changes))
        verdict += judge("layer_audit", Evidence(changes=difference.layers))
    return LayerAudit(
        passed=passes(verdict),
        model=model,
        layers=layers,
        accuracy=accuracy,
        verdict=verdict,
        difference=difference,
        conditions=None,
        null_samples=extent.null_samples,
        seed=extent.seed,
        source=origin.source,
        data=origin.data,
        reproduce=origin.reproduce,
    )


def compare_with(
    before: LayerSubject, after: Opened | None, extent: Extent, *, vectors: bool = False
) -> LayerDifference:
    """Return what changed from a layer of the baseline; see `compare_layers`."""
    try:
        base = open_layer(before, extent.seed, extent.threshold)
    except NonFiniteError:
        base = None
    return compare_layers(before.name, base, after, vectors=vectors)


def checked_extent(null_samples: int, seed: int, threshold: float = THRESHOLD) -> Extent:
    """Return the extent of an audit.

    Raises:
        UsageError: If null_samples, seed or threshold is out of range.
    """
    null_samples = check_count("null_samples", null_samples, minimum=3)
    seed = check_count("seed", seed, minimum=0)
    if seed >= SEED_LIMIT:
        raise UsageError(f"seed must be below 2**32, got {seed}.")
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be between 0 and 1, got {threshold!r}.")
    return Extent(null_samples, seed, float(threshold))
