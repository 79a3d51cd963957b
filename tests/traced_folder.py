"""A folder with a tiny language model, its autoencoders and traces of it, for the explorer."""

from pathlib import Path

import bilens as bl
from bilens.records.mlp_trace import Trace
from traced_models import write_all

HOSTILE = (
    "<script>console.log(1)</script>",
    '<img src=x onerror="console.log(1)">',
    "<svg/onload=console.log(1)>",
    '"><script>console.log(1)</script>',
    "'><img src=x onerror=console.log(1)>",
    "</title><script>console.log(1)</script>",
    "</textarea><script>console.log(1)</script>",
    "</script><script>console.log(1)</script>",
    "<iframe srcdoc='<script>console.log(1)</script>'>",
    "<a href=javascript:console.log(1)>a</a>",
    "<body onload=console.log(1)>",
    "<details open ontoggle=console.log(1)>",
    "<math><mtext><img src=x onerror=console.log(1)>",
    "<object data=javascript:console.log(1)>",
    "<embed src=javascript:console.log(1)>",
    "<link rel=stylesheet href=//example.invalid/a.css>",
    "<style>@import '//example.invalid/a.css';</style>",
    "<base href=//example.invalid/>",
    "<form action=javascript:console.log(1)><button>",
    "javascript:console.log(1)",
    "${console.log(1)}",
    "{{constructor.constructor('console.log(1)')()}}",
    "=cmd|' /C calc'!A0",
    "<!--<img src=--><img src=x onerror=console.log(1)>",
)


def write_traced(folder: Path) -> Trace:
    """Write a model, two autoencoders, a trace of its latents and one from weights alone."""
    model, before, behind = write_all(folder)
    saes = {"input_sae": before, "output_sae": behind}
    # of this text one latent behaves so that a causal check can be made
    report = bl.trace(model, 0, **saes, outputs=3, tokens=512, seed=1)  # type: ignore[arg-type]
    report.to_json(folder / "trace.json")
    bl.trace(model, 0, outputs=2).to_json(folder / "readings.json")
    found: Trace = report.record
    return found
