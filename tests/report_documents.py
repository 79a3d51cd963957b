"""Audit documents for tests: small, seeded, with every sum in them exact."""

import math
import random
from collections.abc import Mapping
from typing import Any

from bilens.records.base import kind_of
from bilens.report.reports import (
    AttackReport,
    AuditReport,
    CertificateReport,
    LayerAuditReport,
    TableReport,
    TraceReport,
)

SHOWN = 4  # eigenvectors of each sign, and contributions of each class
TRIGGER = {"score": 3.25, "threshold": 5.0, "target": "0", "row": 1, "column": 2, "side": 3}


def make_document(
    classes: int = 3,
    shape: tuple[int, int] = (6, 6),
    *,
    data: bool = True,
    names: list[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return a document as an audit of `classes` classes would write it.

    Args:
        classes: at least 2.
        shape: rows and columns of an input; one row stands for inputs that are no images.
        data: whether test data were given.
        names: of the classes; None counts them.
        seed: of everything random.
    """
    rng, width = random.Random(seed), shape[0] * shape[1]
    names = names or [str(index) for index in range(classes)]
    readings = [make_reading(rng, index, name, width) for index, name in enumerate(names)]
    kinds = (("typical", 0, 0), ("narrow", 1, 1), ("wrong", 1, 0)) if data else ()
    curve = make_curve(width) if data else []
    return {
        "schema_version": 1,
        "kind": "audit",
        "passed": True,
        "model": make_model(shape, names),
        "exactness": [make_exactness("float32", 2.7e-7), make_exactness("float64", 8.2e-16)],
        "accuracy": {"right": 9, "total": 10, "value": 0.9, "low": 0.555, "high": 0.9975}
        if data
        else None,
        "classes": readings,
        "truncation": curve,
        "explanations": [make_explanation(rng, readings, width, *kind) for kind in kinds],
        "verdict": make_verdict(curve, classes),
        "guarantees": make_guarantees(width, len(names)),
        **make_warnings(shape, data=data),
        "null_samples": 99,
        "seed": 0,
        "conditions": None,
        "difference": None,
        "source": {
            "path": "runs/tiny",
            "weights_sha256": "a" * 64,
            "provenance": {"recipe": '{"epochs": 2, "augmentations": ["shift:1"]}', "seed": "1"},
        },
        "data": {
            "name": "mnist",
            "source": "5,000 real digits, every fifth held out",
            "source_kind": "embedded",
            "num_images": 10,
            "sha256": "b" * 64,
        }
        if data
        else None,
        "reproduce": {
            "command": "bilens audit runs/tiny",
            "seed": 0,
            "versions": {"bilens": "0.1.0", "python": "3.11.7"},
            "hardware": "a processor, 2 threads",
            "date": "2026-01-02",
        },
    }


def make_warnings(shape: tuple[int, int], *, data: bool) -> dict[str, Any]:
    """Overfitting and triggers, of images or of inputs in a row."""
    image = shape[0] > 1
    names = ["localisation", *(["constant_mass"] if data else [])]
    names += ["edge_mass", "roughness", "steepness", "shift_tolerance"] if image else []
    chance = {"median": 0.25, "low": 0.125, "high": 0.5}
    parts = [{"name": name, "value": 0.375, "null_interval": chance} for name in names]
    parts.append({"name": "tail_mass", "value": 0.0625, "null_interval": None})
    overfitting = {
        "score": 0.012 if image else None,
        "threshold": 0.05 if image else None,
        "parts": parts,
        "reason": "" if image else "not_an_image",
    }
    squares = min(shape) > 5
    reason = "" if squares else "too_small" if image else "not_an_image"
    triggers: dict[str, Any] = {
        "score": None,
        "threshold": None,
        "null_interval": None,
        "patches": [],
    }
    if squares:
        window = {"target": 0, "row": 1, "column": 2, "side": 3, "score": 3.25, "effect": 4.5}
        windows = [window, {**window, "target": 1, "score": 2.5}]
        triggers = {"score": 3.25, "threshold": 5.0, "null_interval": chance, "patches": windows}
    return {"overfitting": overfitting, "triggers": {**triggers, "reason": reason}}


def make_guarantees(width: int, classes: int) -> dict[str, Any]:
    """What is proven from the weights alone."""
    point = dict.fromkeys(("certified", "agreement", "mean", "deviation"))
    return {
        "box": {"low": 0.0, "high": 1.0},
        "l2": None,
        "linf": None,
        "truncation": {
            "radius": math.sqrt(width),
            "radius_origin": "box",
            "level": 0.99,
            "chosen": None,
            "chosen_by": "none",
            "points": [{"k": 1, "bounds": [0.7] * classes, "attained": [True] * classes, **point}],
        },
        "input_use": {
            "unused": [],
            "num_undecided": 0,
            "influence": [
                {"output": index, "input": 0, "bound": 1.25, "reached": 1.0}
                for index in range(classes)
            ],
        },
        "stability": [],
    }


def make_model(shape: tuple[int, int], names: list[str]) -> dict[str, Any]:
    """What was read."""
    return {
        "kind": "BilinearClassifier",
        "d_input": shape[0] * shape[1],
        "d_hidden": 8,
        "d_output": len(names),
        "bias": False,
        "residual": False,
        "num_parameters": 1234,
        "dtype": "float32",
        "input_shape": list(shape),
        "input_shape_assumed": False,
        "output_names": list(names),
        "input_names": None,
    }


def make_exactness(precision: str, error: float) -> dict[str, Any]:
    """One precision, well within its tolerance."""
    return {
        "precision": precision,
        "largest_error": 10 * error,
        "relative_error": error,
        "tolerance": 1e-5 if precision == "float32" else 1e-12,
        "num_inputs": 1000,
        "passed": True,
    }


def unit_vector(rng: random.Random, width: int) -> list[float]:
    """A random direction whose largest component is positive."""
    vector = [rng.gauss(0, 1) for _ in range(width)]
    length = math.sqrt(sum(x * x for x in vector))
    sign = 1 if max(vector, key=abs) > 0 else -1
    return [round(sign * x / length, 5) for x in vector]


def make_pair(rng: random.Random, value: float, width: int) -> dict[str, Any]:
    """One eigenpair."""
    return {
        "eigenvalue": value,
        "explained": value * value / 4,
        "residual": 1e-15,
        "subspace_size": 1,
        "vector": unit_vector(rng, width),
    }


def make_reading(rng: random.Random, index: int, name: str, width: int) -> dict[str, Any]:
    """One class: two eigenvalues above chance, one below."""
    values = sorted((rng.uniform(-0.4, 0.4) for _ in range(width)), reverse=True)
    if width > 2:
        values[0], values[1], values[-1] = 0.9, 0.7, -0.8
    positive = [make_pair(rng, value, width) for value in values[:SHOWN] if value > 0]
    negative = [make_pair(rng, value, width) for value in values[::-1][:SHOWN] if value < 0]
    return {
        "index": index,
        "name": name,
        "eigenvalues": values,
        "positive": positive,
        "negative": negative,
        "upper_edge": 0.5,
        "lower_edge": -0.5,
        "p_upper": 0.01,
        "p_lower": 0.02,
        "significant_positive": sum(value > 0.5 for value in values),
        "significant_negative": sum(value < -0.5 for value in values),
        "effective_rank": 5.5 + index,
        "effective_rank_null": {"median": 9.0, "low": 8.5, "high": 9.5},
        "effective_rank_raw": 5.25,
        "effective_rank_embedding": 7.75,
        "frobenius_norm": 2.0,
        "linear_norm": 0.0,
        "constant": 0.0,
        "largest_residual": 3.9e-15,
        "complete": True,
    }


def make_curve(width: int) -> list[dict[str, Any]]:
    """Accuracy that rises with k and stays."""
    kept = [k for k in (0, 1, 2, 3, 5, 10, 20, 50) if k < width] + [width]
    return [{"k": k, "accuracy": min(0.1 + 0.2 * k, 0.9), "agreement": 1.0} for k in kept]


def make_explanation(
    rng: random.Random,
    readings: list[dict[str, Any]],
    width: int,
    kind: str,
    label: int,
    predicted: int,
) -> dict[str, Any]:
    """One prediction whose parts add up to its scores."""
    order = [predicted, *(index for index in range(len(readings)) if index != predicted)]
    shown = order[:2] + ([label] if label not in order[:2] else [])
    tables = {
        index: make_score(rng, readings[index], width, place) for place, index in enumerate(order)
    }
    return {
        "kind": kind,
        "index": rng.randrange(1000),
        "label": label,
        "predicted": predicted,
        "image": [round(rng.random(), 5) for _ in range(width)],
        "scores": [tables[index]["score"] for index in range(len(readings))],
        "classes": [tables[index] for index in shown],
    }


def make_score(
    rng: random.Random, reading: dict[str, Any], width: int, place: int
) -> dict[str, Any]:
    """The parts of one score; the first place has the highest."""
    pairs = sorted(
        (*reading["positive"], *reading["negative"]), key=lambda pair: -abs(pair["eigenvalue"])
    )[:SHOWN]
    contributions = []
    for rank, pair in enumerate(pairs, start=1):
        overlap = rng.uniform(-2, 2)
        contributions.append(
            {
                "rank": rank,
                "eigenvalue": pair["eigenvalue"],
                "overlap": overlap,
                "value": pair["eigenvalue"] * overlap**2,
                "vector": pair["vector"],
            }
        )
    rest = 10.0 - 5 * place if width > len(pairs) else 0.0
    return {
        "index": reading["index"],
        "score": sum(part["value"] for part in contributions) + rest,
        "linear": 0.0,
        "constant": 0.0,
        "contributions": contributions,
        "rest": rest,
    }


def make_verdict(curve: list[dict[str, Any]], classes: int) -> list[dict[str, Any]]:
    """Every rule, as it ends for a healthy model."""
    findings = [
        ("exact", "pass", {"float32": 2.7e-7, "float64": 8.2e-16, "inputs": 1000}),
        ("complete", "pass", {"residual": 3.9e-15, "classes": classes, "incomplete": ""}),
        ("accuracy", "info", {"value": 0.9, "low": 0.555, "high": 0.9975, "total": 10}),
        ("few_directions", "info", {"k": 3, "of": 36, "accuracy": 0.7, "full": 0.9}),
        ("beyond_null", "info", {"median": 3.0, "least": 3, "most": 3, "none": ""}),
        ("overfitting", "info", {"gap": 0.012, "threshold": 0.05}),
        ("trigger", "info", dict(TRIGGER)),
    ]
    rules = [
        finding for finding in findings if curve or finding[0] not in ("accuracy", "few_directions")
    ]
    return [{"rule": rule, "outcome": outcome, "values": values} for rule, outcome, values in rules]


def variants() -> dict[str, dict[str, Any]]:
    """Documents that together print every sentence of the catalogue."""
    healthy = make_document()
    return {
        "healthy": healthy,
        "no data": make_document(data=False),
        "no image": make_document(shape=(1, 9)),
        "two classes": make_document(classes=2, shape=(7, 8)),
        "many classes": make_document(classes=30),
        "small image": small_image("too_small"),
        "flat": small_image("flat"),
        "older": {**make_document(data=False), "overfitting": None, "triggers": None},
        "failed": failed(),
        "odd": odd(),
    }


def small_image(reason: str) -> dict[str, Any]:
    """Images in which no square can stand out."""
    document = make_document(data=False)
    absent: dict[str, Any] = {
        "score": None,
        "threshold": None,
        "null_interval": None,
        "patches": [],
    }
    document["triggers"] = {**absent, "reason": reason}
    return document


def failed() -> dict[str, Any]:
    """An audit whose rules fail or warn, with biases."""
    document = make_document()
    document["passed"], document["guarantees"] = False, None
    document["exactness"][0] |= {"passed": False, "relative_error": 0.5}
    document["classes"][1]["complete"] = False
    outcomes = {"exact": "fail", "complete": "fail", "beyond_null": "warn"}
    outcomes |= {"overfitting": "warn", "trigger": "warn"}
    document["triggers"] |= {"score": 9.5}
    document["triggers"]["patches"][0] |= {"score": 9.5}
    for finding in document["verdict"]:
        finding["outcome"] = outcomes.get(finding["rule"], finding["outcome"])
        if finding["rule"] == "few_directions":
            finding["values"]["k"] = finding["values"]["of"]
        for key in {"incomplete", "none"} & set(finding["values"]):
            finding["values"][key] = "1, 2"
    for score in (score for item in document["explanations"] for score in item["classes"]):
        score |= {"linear": 0.5, "constant": -0.25, "score": score["score"] + 0.25}
    return document


def odd() -> dict[str, Any]:
    """What rarely happens: unknown label, kind and rule; no name, no file, equal eigenvalues."""
    document = make_document(names=["", "same", "same"])
    asked, other, wrong = document["explanations"]
    asked |= {"kind": "asked", "label": None}
    other |= {"kind": "new kind"}
    wrong |= {"label": 2}
    document["verdict"] += [
        {"rule": "new_rule", "outcome": "warn", "values": {"number": 7}},
        {"rule": "other_rule", "outcome": "new outcome", "values": {}},
    ]
    document["verdict"][3]["values"]["k"] = 0
    document["overfitting"]["parts"][0]["name"] = "new_reading"
    document["overfitting"] |= {"score": None, "threshold": None, "reason": "new_reason"}
    document["classes"][0] |= {"negative": []}
    document["classes"][1] |= {"positive": []}
    document["classes"][2]["positive"][0]["subspace_size"] = 3
    document["model"] |= {"input_shape_assumed": True, "bias": True, "residual": True}
    document["source"] = {"path": "", "weights_sha256": "", "provenance": {}}
    document["data"] |= {"name": "", "source_kind": "tensors", "sha256": ""}
    document["reproduce"]["versions"] = {}
    return document


def page_of(document: Mapping[str, Any], lang: str = "en") -> str:
    """The page of a document of any kind."""
    kinds = (
        AttackReport,
        AuditReport,
        CertificateReport,
        LayerAuditReport,
        TableReport,
        TraceReport,
    )
    (report,) = (kind for kind in kinds if kind_of(kind.type) == document["kind"])
    return report(document).to_html(lang=lang)
