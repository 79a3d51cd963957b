"""Calls that make reports, and the pages of these in both languages."""

from __future__ import annotations

from typing import Any

import torch

import bilens as bl
from tools.net.calls import attempts
from tools.net.describe import Describer
from tools.net.inputs import classifier, strokes

LANGUAGES: tuple[Any, ...] = ("en", "ja")


def _pages(report: Any) -> Any:
    describer = Describer({})
    found = {lang: describer.page(report.to_html(lang=lang)) for lang in LANGUAGES}
    if hasattr(report, "to_markdown"):
        found |= {f"markdown {lang}": report.to_markdown(lang=lang) for lang in LANGUAGES}
    passed = {
        name: getattr(report, name)
        for name in ("passed", "holds", "failed_rules")
        if hasattr(report, name)
    }
    return {"document": report.to_dict(), "pages": found, **passed}


def audit() -> Any:
    """A classifier, with data as tensors."""
    images, labels = strokes(60, 1)
    return _pages(
        bl.audit(bl.load("models/one"), (images, labels), null_samples=39, fail_on=["exact"])
    )


def audit_layers() -> Any:
    """Layers of a deep model, with a baseline."""
    model, baseline = bl.load("models/tuned"), bl.load("models/transformer")
    return _pages(bl.audit(model, baseline=baseline, null_samples=3, fail_on=["changed_layers>9"]))


def audit_module() -> Any:
    """A module without a file."""
    return _pages(bl.audit(classifier(n_layers=2, gate="gelu"), null_samples=3, seed=1))


def certify_model() -> Any:
    """What is proven about a classifier."""
    images, labels = strokes(8, 1)
    return _pages(bl.certify_model(bl.load("models/one"), (images, labels), samples=8))


def trace() -> Any:
    """A language model without its autoencoders, and with them."""
    saes: dict[str, Any] = {
        f"{end}_sae": f"out/train_sae/run/blocks.0.mlp_{point}"
        for end, point in (("input", "in"), ("output", "out"))
    }
    short: dict[str, Any] = {"outputs": 2, "pairs": 4, "top": 4, "tokens": 400}
    run = "out/train_language/run"
    return {
        "tokens": _pages(bl.trace(run, 0, **short)),
        "latents": _pages(bl.trace(run, 0, **saes, **short, features=3)),
    }


def errors() -> Any:
    """What is refused."""
    broken = classifier()
    broken.head.weight.data[0, 0] = torch.nan
    bad: Any = 3
    images, labels = strokes(5, 1)
    return attempts(
        {
            "nan": lambda: bl.audit(broken),
            "model": lambda: bl.audit(bad),
            "rule": lambda: bl.audit(classifier(), fail_on=["speed"]),
            "samples": lambda: bl.audit(classifier(), null_samples=2),
            "width": lambda: bl.audit(classifier(), (images[:, :5], labels)),
            "gated": lambda: bl.certify_model(classifier(gate="silu")),
            "document": lambda: bl.AuditReport({"kind": "audit"}),
            "kind": lambda: bl.TraceReport({"kind": "audit", "schema_version": 1}),
            "language": lambda: bl.audit(classifier(), null_samples=39).to_html(lang=bad),
        }
    )
