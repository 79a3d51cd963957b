"""Calls that open what an earlier version wrote."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import bilens as bl
from tools.net.calls import attempts
from tools.net.calls_reports import _pages

READERS: dict[str, Any] = {
    "audit": bl.AuditReport,
    "layers": bl.AuditReport,
    "difference": bl.AuditReport,
    "certificate": bl.CertificateReport,
    "attack": bl.AttackReport,
    "trace": bl.TraceReport,
}


def models() -> Any:
    """Model folders."""
    paths = sorted(Path("old/models").iterdir())
    return attempts({path.name: partial(bl.load, path) for path in paths})


def runs() -> Any:
    """Run folders and exports."""
    names = (
        *("image", "language", "table", "numbers", "huggingface"),
        *("sae_saelens", "sae_sparsify", "saes/blocks.0.mlp_in", "saes/blocks.0.mlp_out"),
    )
    return attempts({name: partial(bl.load, f"old/{name}") for name in names})


def reports() -> Any:
    """Saved reports, as documents and pages; then each given to another reader."""
    found = {name: partial(_shown, name, reader) for name, reader in READERS.items()}
    wrong = {
        f"{name} as a trace": partial(_shown, name, bl.TraceReport)
        for name in ("audit", "table", "attack")
    }
    return attempts({**found, **wrong})


def _shown(name: str, reader: Any) -> Any:
    return _pages(reader.from_json(f"old/reports/{name}.json"))
