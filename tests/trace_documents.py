"""Documents of traces for tests, written by hand: a few latents, made-up text, known numbers."""

import copy
import random
from functools import cache
from typing import Any

from bilens.records.base import json_text

WORDS = ("The", "cake", "was", "not", "good", ".", "Anna", "felt", "sad", "\n", "<|endoftext|>")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
ORIGIN = {
    "source": {"path": "runs/grammar", "weights_sha256": "0" * 64, "provenance": {"seed": "1"}},
    "reproduce": {
        "command": "bilens trace runs/grammar --layer 0",
        "seed": 0,
        "versions": {"bilens": "0.0"},
        "hardware": "a machine",
        "date": "2026-01-01",
    },
}
MODEL = {
    "kind": "BilinearTransformer",
    "vocab_size": 90,
    "d_model": 8,
    "d_hidden": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_ctx": 16,
    "num_parameters": 1234,
    "dtype": "float32",
}


def tokens(draw: random.Random, num: int = 3) -> dict[str, Any]:
    """Tokens at both ends of a direction."""
    chosen = [
        {"id": place, "text": WORDS[place], "value": draw.uniform(0.1, 1.0)}
        for place in draw.sample(range(len(WORDS)), 2 * num)
    ]
    low = [{**item, "value": -item["value"]} for item in chosen[num:]]
    return {"high": chosen[:num], "low": low}


def latent(draw: random.Random, number: int, num_contexts: int = 2) -> dict[str, Any]:
    """One latent with its contexts, the strongest first."""
    contexts = []
    for place in range(num_contexts):
        words = draw.choices(WORDS, k=6)
        values = [0.0, 0.3, 0.0, 2.0 - place, 0.5, 0.0]
        contexts.append(
            {"sequence": place, "start": 4, "peak": 3, "tokens": words, "activations": values}
        )
    return {
        "latent": number,
        "density": 0.125,
        "largest": 2.0 * bool(num_contexts),
        "contexts": contexts,
        "tokens": tokens(draw),
    }


def spectrum(draw: random.Random, values: list[float]) -> dict[str, Any]:
    """The eigenvalues of one form, with two eigenvectors read."""
    near = [{"latent": number, "cosine": 0.5, "projection": 0.25} for number in (1, 4, 6)]
    return {
        "eigenvalues": values,
        "num_eigenvalues": 8,
        "norm": 1.5,
        "explained": 0.875,
        "rounding_bound": 1e-15,
        "complete": True,
        "eigenvectors": [
            {"eigenvalue": value, "nearest": near, "tokens": tokens(draw)} for value in values[:2]
        ],
    }


def entries(kind: str) -> dict[str, Any]:
    """The largest interactions of one kind."""
    pairs = [(1, 4), (1, 6)] if kind == "cross" else [(4, 4), (6, 6)]
    times = 2 if kind == "cross" else 1
    return {
        "entries": [
            {"first": m, "second": n, "value": 0.5, "coefficient": times * 0.5} for m, n in pairs
        ],
        "count": 28,
        "mean": -0.001,
        "standard_deviation": 0.07,
        "listed_share": 0.625,
        "edges": [-1.0, 0.0, 1.0],
        "counts": [15, 13],
        "below": 0,
        "above": 0,
    }


def interval(value: float) -> dict[str, float]:
    """A number with its interval."""
    return {"value": value, "low": value - 0.125, "high": value + 0.125}


def causal(second: str = "steer") -> dict[str, Any]:
    """Two checks of one behaviour."""
    check = {
        "kind": "ablate",
        "num_directions": 2,
        "before": interval(3.0),
        "after": interval(0.5),
        "share": interval(0.75),
        "random_share": interval(0.25),
        "num_random": 20,
        "loss_before": 1.25,
        "loss_after": 1.5,
    }
    return {
        "behaviour": {"high": ["sad", "upset"], "low": ["glad"]},
        "checks": [check, {**check, "kind": second, "loss_before": None, "loss_after": None}],
    }


def circuit(draw: random.Random, number: int, place: int) -> dict[str, Any]:
    """One circuit of three input latents."""
    fit = {
        "correlation": 0.75,
        "correlation_active": 0.875,
        "r_squared": 0.5,
        "r_squared_active": 0.625,
        "slope": 1.125,
        "intercept": 0.0625,
        "null_correlation": 0.0,
        "null_correlation_active": 0.0625,
        "null_edge_active": 0.125,
    }
    truth = [draw.gauss(0, 1) for _ in range(30)]
    return {
        "latent": number,
        "position": place,
        "output": latent(draw, number),
        "spectrum": spectrum(draw, [0.75, -0.7, 0.25]),
        "self_interactions": entries("self"),
        "cross_interactions": entries("cross"),
        "features": [1, 4, 6],
        "matrix": [[0.0, 0.5, -0.25], [0.5, 0.1, 0.0], [-0.25, 0.0, 0.3]],
        "linear": [0.25, 0.0, -0.5],
        "constant": -0.125,
        "projections": [[0.5, 0.5, 0.1], [0.5, -0.5, 0.2], [-0.4, 0.4, 0.3]],
        "share_of_norm": 0.5625,
        "share_of_variance": 0.8125,
        "correlation": 0.9375,
        "num_active": 40,
        "example": [2.0, 1.0, 0.0],
        "fits": [{"rank": rank, **fit} for rank in (1, 2)],
        "points": {
            "rank": 2,
            "truth": truth,
            "approximation": [0.9 * value for value in truth],
            "active": [value > 0 for value in truth],
        },
        "causal": causal(),
    }


def distribution(centre: float) -> dict[str, Any]:
    """Quantiles and a histogram of four bins."""
    values = [centre + 0.1 * (place - 2) for place in range(5)]
    return {"levels": list(LEVELS), "values": values, "counts": [0, 1, 2, 9]}


def sae(hook: str) -> dict[str, Any]:
    """One autoencoder and its metrics."""
    return {
        "hook": hook,
        "path": f"runs/{hook}",
        "weights_sha256": "1" * 64,
        "num_latents": 12,
        "k": 3,
        "sign": "relu",
        "metrics": {
            "tokens": 100,
            "fvu": 0.125,
            "nmse": 0.0625,
            "l0": 2.5,
            "dead": 0.0625,
            "loss": 1.25,
            "loss_patched": 1.5,
            "loss_zero": 3.25,
            "loss_mean": 2.25,
            "loss_added": 0.25,
            "recovered_from_zero": 0.875,
            "recovered_from_mean": 0.75,
        },
    }


@cache
def _made() -> str:
    draw = random.Random(0)
    circuits = [circuit(draw, 7, 1), circuit(draw, 2, 2)]
    ranking = [
        {
            "latent": number,
            "score": 0.5 / place,
            "pair_share": 0.625,
            "sign_contrast": 0.875,
            "interaction_share": 0.75,
            "positive": 0.75,
            "negative": -0.7,
            "explained_by_two": 0.5,
            "correlation_active": 0.875,
            "density": 0.125,
            "peak": "was",
            "cluster": 0,
        }
        for place, number in enumerate((7, 2, *(n for n in range(12) if n not in (2, 7))), start=1)
    ]
    document = {
        "schema_version": 1,
        "kind": "trace",
        "model": MODEL,
        "layer": {
            "index": 0,
            "name": "blocks.0.mlp",
            "input": "blocks.0.mlp_in",
            "output": "blocks.0.mlp_out",
        },
        "exactness": {"largest_error": 1e-7, "scale": 0.5, "num_inputs": 256},
        "tokens_carry_spaces": False,
        "saes": [sae("blocks.0.mlp_in"), sae("blocks.0.mlp_out")],
        "ranking": ranking,
        "num_outputs": 12,
        "clusters": [[0, 3], [4, 5, 6]],
        "cluster_threshold": 0.5,
        "contrasts": {
            "num_compared": 11,
            "pairs": [
                {
                    "first": 7,
                    "second": second,
                    "score": 0.3125,
                    "nonlinear_share": 0.4375,
                    "pair_share": 0.71875,
                    "causal": checked,
                }
                for second, checked in (
                    (2, causal("sign_flip")),
                    (5, None),
                    (6, {**causal(), "behaviour": None}),
                )
            ],
        },
        "correlations": {
            "num_latents": 12,
            "num_latents_active": 11,
            "num_random": 20,
            "edges": [-1.0, -0.5, 0.0, 0.5, 1.0],
            "ranks": [
                {
                    "rank": rank,
                    "all": distribution(0.6),
                    "active": distribution(0.7),
                    "null": distribution(0.0),
                    "null_active": distribution(-0.1),
                }
                for rank in (1, 2, 4)
            ],
        },
        "circuits": circuits,
        "input_latents": [latent(draw, number) for number in (1, 4, 6)],
        "readings": [],
        "seed": 0,
        "data": {
            "name": "grammar",
            "source": "the story grammar",
            "num_tokens": 320,
            "sha256": "2" * 64,
        },
        **ORIGIN,
    }
    return json_text(document)


def make_trace() -> dict[str, Any]:
    """Return a document of a trace with autoencoders, that a test may change."""
    import json

    document: dict[str, Any] = json.loads(_made())
    return document


def make_weights_only() -> dict[str, Any]:
    """Return a document of a trace without autoencoders."""
    draw = random.Random(1)
    document = make_trace()
    readings = [
        {
            "kind": kind,
            "name": name,
            "singular_value": value,
            "share": value,
            "output": tokens(draw),
            "spectrum": spectrum(draw, [0.75, -0.7, 0.25]),
        }
        for kind, name, value in (("hosvd", "", 0.5), ("token", " sad", None))
    ]
    document.update(
        saes=[],
        ranking=[],
        clusters=[],
        correlations=None,
        contrasts={"num_compared": 0, "pairs": []},
        circuits=[],
        input_latents=[],
        readings=readings,
        data=None,
    )
    return document


def variants() -> dict[str, dict[str, Any]]:
    """Return documents that together need every sentence."""
    bare, silent = make_trace(), make_trace()
    bare["contrasts"]["pairs"] = []
    bare["data"]["name"] = ""
    bare["tokens_carry_spaces"] = True
    for item in bare["circuits"]:
        item["causal"] = {"behaviour": None, "checks": []}
        item["spectrum"]["complete"] = False
        item["share_of_variance"] = item["correlation"] = None
        item["spectrum"]["eigenvalues"] = [0.75, 0.5, 0.25]
    bare["saes"][0]["sign"] = "raw"
    bare["saes"][0]["metrics"]["recovered_from_zero"] = None
    bare["clusters"] = [list(range(25))]
    silent["clusters"] = []
    for item in silent["circuits"]:
        item["output"].update(contexts=[], density=0.0, largest=0.0)
        item["example"] = []
        for fit in item["fits"]:
            fit["correlation_active"] = fit["null_correlation_active"] = None
    for rank in silent["correlations"]["ranks"]:
        rank["active"] = {"levels": [], "values": [], "counts": [0, 0, 0, 0]}
    silent["ranking"][0].update(correlation_active=None, peak=None)
    silent["ranking"][5]["peak"] = None
    return {
        "plain": make_trace(),
        "bare": bare,
        "silent": silent,
        "weights": copy.deepcopy(make_weights_only()),
    }
