"""The record of a certificate: what was read, and what is proven about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bilens.findings.guarantees.records import Guarantees
from bilens.findings.records import Exactness, ModelSummary

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Certificate:
    """All that is proven about one classifier."""

    model: ModelSummary
    exactness: tuple[Exactness, ...]
    guarantees: Guarantees
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values, the guarantees among the rest."""
        content = asdict(self)
        for record, exactness in zip(content["exactness"], self.exactness, strict=True):
            record["passed"] = exactness.passed
        proven = content.pop("guarantees")
        return {"schema_version": SCHEMA_VERSION, "kind": "certificate", **content, **proven}
