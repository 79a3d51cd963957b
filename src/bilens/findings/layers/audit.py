"""The audit of many layers: one after another, so that no more than one is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bilens.checks import check_count
from bilens.errors import UsageError
from bilens.findings.layers.norms import with_norm_scores
from bilens.findings.layers.reading import Extent, read_layer
from bilens.findings.layers.records import LayerReading
from bilens.findings.layers.subject import LayerSubject
from bilens.findings.layers.verdict import judge_layers
from bilens.findings.records import SCHEMA_VERSION, Finding, Share
from bilens.findings.subject import SEED_LIMIT, Progress, silent

NULL_SAMPLES = 19  # rotations of a layer: each end of their range is exceeded by one in twenty


@dataclass(frozen=True)
class LayerAudit:
    """All that the audit of many layers found."""

    layers: tuple[LayerReading, ...]
    accuracy: Share | None
    verdict: tuple[Finding, ...]
    null_samples: int
    seed: int

    @property
    def passed(self) -> bool:
        """Whether no rule failed."""
        return all(finding.outcome != "fail" for finding in self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "layer_audit",
            "passed": self.passed,
            **asdict(self),
        }


def audit_layers(
    subjects: Sequence[LayerSubject],
    accuracy: Share | None = None,
    *,
    null_samples: int = NULL_SAMPLES,
    seed: int = 0,
    progress: Progress = silent,
) -> LayerAudit:
    """Return what the weights of each layer say.

    Cost: layers · null_samples · O(hidden² · (in + out) + in³ + out³) time; the memory of one layer
        in float64, its map, and 128 MiB.

    Args:
        subjects: the layers, first to last; at least one.
        accuracy: of the whole model on data; None without.
        null_samples: draws for each level of chance, at least 3.
        seed: of the draws and of the inputs that R² is measured on.
        progress: called with ("layers", done, total).

    Raises:
        UsageError: If there is no layer, or null_samples or seed is out of range.
    """
    if not subjects:
        raise UsageError("an audit needs a model with at least one MLP, and this one has none.")
    extent = checked_extent(null_samples, seed)
    found = []
    for done, subject in enumerate(subjects):
        progress("layers", done, len(subjects))
        found.append(read_layer(subject, extent)[0])
    progress("layers", len(subjects), len(subjects))
    layers = with_norm_scores(found)
    verdict = judge_layers(layers, accuracy)
    return LayerAudit(layers, accuracy, verdict, extent.null_samples, extent.seed)


def checked_extent(null_samples: int, seed: int) -> Extent:
    """Return the extent of an audit.

    Raises:
        UsageError: If null_samples or seed is out of range.
    """
    null_samples = check_count("null_samples", null_samples, minimum=3)
    seed = check_count("seed", seed, minimum=0)
    if seed >= SEED_LIMIT:
        raise UsageError(f"seed must be below 2**32, got {seed}.")
    return Extent(null_samples, seed)
