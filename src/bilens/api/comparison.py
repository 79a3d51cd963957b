"""What an audit says beside its findings: the difference from a baseline, and asked conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import replace

from bilens.api.provenance import describe_source
from bilens.findings.rules.conditions import Condition, judge_conditions
from bilens.records.audit import Audit
from bilens.records.difference import BaselineSource
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit

AnyAudit = TypeVar("AnyAudit", Audit, LayerAudit, TableAudit)


def baseline_source(baseline: object) -> BaselineSource:
    """Return where the model comes from that another one is compared with."""
    source = describe_source(baseline)
    return BaselineSource(source.path, source.weights_sha256)


def with_conditions(audit: AnyAudit, conditions: Sequence[Condition]) -> AnyAudit:
    """Return an audit that also fails where a condition does."""
    judged = judge_conditions(audit.kind, conditions, audit.verdict)
    passed = audit.passed and not any(item.failed for item in judged)
    return replace(audit, passed=passed, conditions=judged or None)
