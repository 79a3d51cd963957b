"""The document of a trace: JSON values, checked once, as `document.py` does for an audit.

`docs/tracing.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bilens.report.shape import (
    COUNT,
    FLAG,
    INTEGER,
    NUMBER,
    OBJECT,
    TEXT,
    Document,
    Optional,
    checked_copy,
    require,
)

SCHEMA_VERSION: Final = 1
KIND: Final = "trace"
TOKEN: Final[dict[str, Any]] = {"id": COUNT, "text": TEXT, "value": NUMBER}
ENDS: Final[dict[str, Any]] = {"high": [TOKEN], "low": [TOKEN]}
INTERVAL: Final[dict[str, Any]] = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
CONTEXT: Final[dict[str, Any]] = {
    "sequence": COUNT,
    "start": COUNT,
    "peak": COUNT,
    "tokens": [TEXT],
    "activations": [NUMBER],
}
LATENT: Final[dict[str, Any]] = {
    "latent": COUNT,
    "density": NUMBER,
    "largest": NUMBER,
    "contexts": [CONTEXT],
    "tokens": ENDS,
}
EIGENVECTOR: Final[dict[str, Any]] = {
    "eigenvalue": NUMBER,
    "nearest": [{"latent": COUNT, "cosine": NUMBER, "projection": NUMBER}],
    "tokens": ENDS,
}
SPECTRUM: Final[dict[str, Any]] = {
    "eigenvalues": [NUMBER],
    "num_eigenvalues": COUNT,
    "norm": NUMBER,
    "explained": NUMBER,
    "noise": NUMBER,
    "complete": FLAG,
    "eigenvectors": [EIGENVECTOR],
}
ENTRIES: Final[dict[str, Any]] = {
    "entries": [{"first": COUNT, "second": COUNT, "value": NUMBER, "coefficient": NUMBER}],
    "count": COUNT,
    "mean": NUMBER,
    "standard_deviation": NUMBER,
    "listed_share": NUMBER,
    "edges": [NUMBER],
    "counts": [COUNT],
    "below": COUNT,
    "above": COUNT,
}
CAUSAL_CHECK: Final[dict[str, Any]] = {
    "kind": TEXT,
    "num_directions": COUNT,
    "before": INTERVAL,
    "after": INTERVAL,
    "share": INTERVAL,
    "random_share": INTERVAL,
    "num_random": COUNT,
    "loss_before": Optional(NUMBER),
    "loss_after": Optional(NUMBER),
}
CAUSAL: Final[dict[str, Any]] = {
    "behaviour": Optional({"high": [TEXT], "low": [TEXT]}),
    "checks": [CAUSAL_CHECK],
}
FIT: Final[dict[str, Any]] = {
    "rank": COUNT,
    "correlation": Optional(NUMBER),
    "correlation_active": Optional(NUMBER),
    "r_squared": Optional(NUMBER),
    "r_squared_active": Optional(NUMBER),
    "slope": Optional(NUMBER),
    "intercept": Optional(NUMBER),
    "null_correlation": Optional(NUMBER),
    "null_correlation_active": Optional(NUMBER),
    "null_edge_active": Optional(NUMBER),
}
CIRCUIT: Final[dict[str, Any]] = {
    "latent": COUNT,
    "place": COUNT,
    "output": LATENT,
    "spectrum": SPECTRUM,
    "self": ENTRIES,
    "cross": ENTRIES,
    "features": [COUNT],
    "matrix": [[NUMBER]],
    "linear": [NUMBER],
    "constant": NUMBER,
    "projections": [[NUMBER]],
    "share_of_norm": NUMBER,
    "share_of_variance": Optional(NUMBER),
    "correlation": Optional(NUMBER),
    "num_active": COUNT,
    "example": [NUMBER],
    "fits": [FIT],
    "points": {
        "rank": COUNT,
        "truth": [NUMBER],
        "approximation": [NUMBER],
        "active": [FLAG],
    },
    "causal": CAUSAL,
}
QUANTILES: Final[dict[str, Any]] = {"levels": [NUMBER], "values": [NUMBER], "counts": [COUNT]}
CORRELATIONS: Final[dict[str, Any]] = {
    "num_latents": COUNT,
    "num_latents_active": COUNT,
    "num_random": COUNT,
    "edges": [NUMBER],
    "ranks": [
        {
            "rank": COUNT,
            "all": QUANTILES,
            "active": QUANTILES,
            "null": QUANTILES,
            "null_active": QUANTILES,
        }
    ],
}
SAE: Final[dict[str, Any]] = {
    "hook": TEXT,
    "path": TEXT,
    "weights_sha256": TEXT,
    "num_latents": COUNT,
    "k": COUNT,
    "sign": TEXT,
    "metrics": {
        "tokens": COUNT,
        "fvu": NUMBER,
        "nmse": NUMBER,
        "l0": NUMBER,
        "dead": NUMBER,
        "loss": NUMBER,
        "loss_patched": NUMBER,
        "loss_zero": NUMBER,
        "loss_mean": NUMBER,
        "loss_added": NUMBER,
        "recovered_from_zero": Optional(NUMBER),
        "recovered_from_mean": Optional(NUMBER),
    },
}
RANKED: Final[dict[str, Any]] = {
    "latent": COUNT,
    "score": NUMBER,
    "pair_share": NUMBER,
    "sign_contrast": NUMBER,
    "interaction_share": NUMBER,
    "positive": NUMBER,
    "negative": NUMBER,
    "explained_by_two": NUMBER,
    "correlation_active": Optional(NUMBER),
    "density": NUMBER,
    "peak": Optional(TEXT),
    "cluster": COUNT,
}
READING: Final[dict[str, Any]] = {
    "kind": TEXT,
    "name": TEXT,
    "singular_value": Optional(NUMBER),
    "share": Optional(NUMBER),
    "output": ENDS,
    "spectrum": SPECTRUM,
}
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "model": {
        "kind": TEXT,
        "vocab_size": COUNT,
        "d_model": COUNT,
        "d_hidden": COUNT,
        "n_layer": COUNT,
        "n_head": COUNT,
        "n_ctx": COUNT,
        "num_parameters": COUNT,
        "dtype": TEXT,
    },
    "layer": {"index": COUNT, "name": TEXT, "input": TEXT, "output": TEXT},
    "exactness": {"largest_error": NUMBER, "scale": NUMBER, "num_inputs": COUNT},
    "tokens_carry_spaces": FLAG,
    "saes": [SAE],
    "ranking": [RANKED],
    "num_outputs": COUNT,
    "clusters": [[COUNT]],
    "cluster_threshold": NUMBER,
    "contrasts": {
        "num_compared": COUNT,
        "pairs": [
            {
                "first": COUNT,
                "second": COUNT,
                "score": NUMBER,
                "nonlinear_share": NUMBER,
                "pair_share": NUMBER,
                "causal": Optional(CAUSAL),
            }
        ],
    },
    "correlations": Optional(CORRELATIONS),
    "circuits": [CIRCUIT],
    "input_latents": [LATENT],
    "readings": [READING],
    "seed": INTEGER,
    "source": {"path": TEXT, "weights_sha256": TEXT, "provenance": OBJECT},
    "data": Optional({"name": TEXT, "source": TEXT, "num_tokens": COUNT, "sha256": TEXT}),
    "reproduce": {
        "command": TEXT,
        "seed": INTEGER,
        "versions": OBJECT,
        "hardware": TEXT,
        "date": TEXT,
    },
}


def check_trace(document: Mapping[str, Any]) -> Document:
    """Return the document of a trace as JSON values of its own, once it is known to be drawable.

    Raises:
        UsageError: If it is not a trace, of a later schema, or a value does not fit.
        NonFiniteError: If a number is NaN or infinite.
    """
    copy = checked_copy(document, KIND, SCHEMA_VERSION, SHAPE)
    require(bool(copy["circuits"]) != bool(copy["readings"]), "there is nothing, or both, to draw")
    with_saes = bool(copy["circuits"])
    require(len(copy["saes"]) == 2 * with_saes, "a trace of latents has two autoencoders")
    require((copy["correlations"] is not None) == with_saes, "correlations are those of latents")
    ranked = {item["latent"] for item in copy["ranking"]}
    for pair in copy["contrasts"]["pairs"]:
        fits = {pair["first"], pair["second"]} <= ranked
        require(fits, "a contrast names an output latent that is not ranked")
    known = {item["latent"] for item in copy["input_latents"]}
    for circuit in copy["circuits"]:
        check_circuit(circuit, known)
    for item in (*copy["input_latents"], *(circuit["output"] for circuit in copy["circuits"])):
        for context in item["contexts"]:
            check_context(context)
    if copy["correlations"] is not None:
        require(len(copy["correlations"]["ranks"]) > 0, "correlations has no ranks")
    for rank in (copy["correlations"] or {"ranks": []})["ranks"]:
        check_quantiles(rank, len(copy["correlations"]["edges"]) - 1)
    return copy


def check_circuit(circuit: dict[str, Any], known: set[int]) -> None:
    """Refuse a circuit whose parts have different sizes, or that names unknown input latents."""
    name, features = f"the circuit of latent {circuit['latent']}", circuit["features"]
    size, points = len(features), circuit["points"]
    square = len(circuit["matrix"]) == size and all(len(row) == size for row in circuit["matrix"])
    require(size > 0 and square, f"{name} does not have a square matrix of its features")
    fits = len(circuit["linear"]) == len(circuit["projections"]) == size
    require(fits, f"{name} does not have one number for each feature")
    require(known.issuperset(features), f"{name} names an input latent that is not described")
    example = len(circuit["example"])
    active = bool(circuit["output"]["contexts"])
    require(example == size * active, f"{name} lacks activations at its strongest context")
    lengths = {len(points[key]) for key in ("truth", "approximation", "active")}
    require(len(lengths) == 1, f"{name} has points that lack a coordinate")
    columns = {len(row) for row in circuit["projections"]}
    require(len(columns) == 1, f"{name} has rows of projections of different lengths")
    require(len(circuit["spectrum"]["eigenvalues"]) > 0, f"{name} has no eigenvalues")
    require(len(circuit["fits"]) > 0, f"{name} has no fits")
    for kind in ("self", "cross"):
        entries = circuit[kind]
        require(len(entries["edges"]) == len(entries["counts"]) + 1, f"{name} has a bad histogram")


def check_context(context: dict[str, Any]) -> None:
    """Refuse a stretch of text whose numbers are not one for each token."""
    length = len(context["tokens"])
    fits = length == len(context["activations"]) and context["peak"] < length
    require(fits, "a context does not have one activation for each token")


def check_quantiles(rank: dict[str, Any], bins: int) -> None:
    """Refuse a distribution without a value for each level and a count for each bin."""
    for key in ("all", "active", "null", "null_active"):
        part = rank[key]
        fits = len(part["levels"]) == len(part["values"]) and len(part["counts"]) == bins
        require(fits, f"the correlations of rank {rank['rank']} lack a value or a count")
