"""What an audit says beside its findings: the difference from a baseline, and asked conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bilens.api.provenance import describe_source
from bilens.findings.conditions import Condition, judge_conditions
from bilens.findings.difference.records import LayerDifference
from bilens.findings.records import Finding
from bilens.io.load import LoadedModel


def difference_document(
    layers: Sequence[LayerDifference] | None, baseline: object
) -> dict[str, Any] | None:
    """Return the difference as JSON values; None without a baseline."""
    if layers is None:
        return None
    source = describe_source(baseline if isinstance(baseline, LoadedModel) else None)
    return {
        "baseline": {key: source[key] for key in ("path", "weights_sha256")},
        "layers": [asdict(layer) for layer in layers],
    }


def outcome_document(
    conditions: Sequence[Condition], verdict: Sequence[Finding], passed: bool
) -> dict[str, Any]:
    """Return whether an audit passed, and how each condition ended; None without conditions."""
    judged = judge_conditions(conditions, verdict)
    return {
        "passed": passed and not any(item.failed for item in judged),
        "conditions": [asdict(item) for item in judged] or None,
    }
