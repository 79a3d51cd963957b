"""Documents of conversions for tests, written by hand: made-up text, known numbers."""

import json
import random
from typing import Any

from msgspec.structs import replace

import trace_documents
from bilens.records import bilinear_conversion as r
from bilens.records.base import json_text
from bilens.records.common import DataOrigin, LayeredModel, Run, Source, TextOrigin
from bilens.records.mlp_trace import DirectionReading

WORDS = trace_documents.WORDS


def measured(name: str, added: float, *, fitted: bool = True, text: bool = False) -> r.DomainLoss:
    """A domain with round numbers."""
    draw = random.Random(name)
    sample = r.Continuation(WORDS[:3], WORDS[3:7], (*WORDS[3:5], "glad", WORDS[6]))
    losses = (
        r.LossAt("token", " cake", 25, 0.5, 0.125),
        r.LossAt("position", "4–7", 80, 0.25, 0.1),
    )
    parts = {"losses": losses, "worst": trace_documents.latent(draw, 0), "samples": (sample,)}
    return r.DomainLoss(
        name=name,
        fitted=fitted,
        texts=20,
        tokens=400,
        teacher_loss=2.0,
        loss=2.0 + added,
        loss_added=added,
        error=0.01,
        kl=0.125,
        kl_error=0.01,
        same_top_token=0.875,
        same_error=0.01,
        teacher_accuracy=0.5,
        accuracy=0.484,
        accuracy_error=0.004,
        **(parts if text else {}),
    )


def make_conversion(**changes: Any) -> dict[str, Any]:
    """The conversion of a language model of two layers, one of them kept."""
    draw = random.Random(0)
    reading = DirectionReading(
        *("hosvd", "layers.0.mlp", 2.0, 0.25),
        *(trace_documents.tokens(draw), trace_documents.spectrum(draw), (-0.5, 0.5)),
        causal=trace_documents.causal(),
    )
    layer = {"rows": 64, "trimmed": 0.9, "median": 0.8, "closed_form": 0.75}
    record = r.Conversion(
        folder="runs/bilinear",
        loaded_by="AutoModelForCausalLM",
        model=LayeredModel("LlamaForCausalLM", 3, "float32"),
        num_parameters=1000,
        exact_parameters=250,
        layers=(
            r.ConvertedLayer(name="layers.0.mlp", r_squared=0.9375, **layer),
            r.ConvertedLayer(name="layers.1.mlp", rows=64),
        ),
        kept=("layers.2.mlp",),
        swap_in_costs={"0": 0.0625, "1": -0.001},
        swap_in_errors={"0": 0.01, "1": 0.001},
        after_layers=(measured("stories", 0.25), measured("manuals", 0.5, fitted=False)),
        domains=(
            measured("stories", 0.0625, text=True),
            measured("manuals", 0.125, fitted=False, text=True),
        ),
        curve=(r.DistillationPoint(1000, 0.25, 0.25), r.DistillationPoint(2000, 0.0625, 0.125)),
        line_tokens=2032,
        gain=(
            reading,
            replace(reading, name="layers.1.mlp", causal=trace_documents.causal(active=False)),
        ),
        bfloat16_added=0.0,
        seconds={"layers": 90.0},
        notes=("It can be stored in bfloat16.",),
        data=TextOrigin("stories, manuals", "given by --text", 4000, "ab" * 32),
        source=Source("runs/bilinear", "cd" * 32, {"teacher": "models/gated"}),
        reproduce=Run("bilens convert", 0, {"bilens": "0"}, "a processor", "2026-01-01"),
    )
    document: dict[str, Any] = json.loads(json_text(replace(record, **changes)))
    return document


def make_rows(unit: str) -> dict[str, Any]:
    """The conversion of another network: rows, and nothing of text."""
    known = {"after_layers": (measured("digits", 0.25),), "domains": (measured("digits", 0.125),)}
    known["rows"] = DataOrigin("digits", "rows.npz", "arrays", 200, "")
    known["spread"] = 2.0 if unit == "share of the variance" else None
    return make_conversion(unit=unit, curve=(), gain=(), data=None, **known)


def variants() -> dict[str, dict[str, Any]]:
    """Documents that together need every sentence of the page."""
    units = ("nats per row", "squared error", "share of the variance")
    bare = make_rows("nats per row")
    for one in bare["domains"]:
        one |= {"teacher_accuracy": None, "accuracy": None, "accuracy_error": None}
    return {"text": make_conversion(), "bare": bare, **{unit: make_rows(unit) for unit in units}}
