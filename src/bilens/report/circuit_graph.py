"""A circuit as a graph in the layout that circuit-tracer and its viewers read.

A graph of that layout belongs to one text and its links have two ends, while a circuit is made of
products of two input latents. So it is drawn where the output latent is strongest: a link from an
input latent has its exact share of the circuit there, the Shapley value of a quadratic form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bilens.records.base import displayable
from bilens.report.document import Document
from bilens.report.token_text import latent_name, visible

SCHEMA_VERSION: Final = 1  # of the layout, not of ours
FEATURE = "cross layer transcoder"  # what viewers call a node that is a latent


def graph_name(document: Document, circuit: dict[str, Any]) -> str:
    """Return the name of the file of a circuit, the slug of its graph and .json."""
    return f"{slug(document, circuit)}.json"


def slug(document: Document, circuit: dict[str, Any]) -> str:
    """Return a name of letters, digits and hyphens."""
    return f"block-{document['layer']['index']}-latent-{circuit['latent']}"


def circuit_graph(document: Document, circuit: dict[str, Any]) -> dict[str, Any]:
    """Return the graph of a circuit at the strongest context of its output latent.

    Math: with z the input latents there, the link of latent m is z_m (Σ_n S[m, n] z_n + linear_m);
        these and the constant sum to the circuit's value. A link to a token is the activation of
        the output latent times the change of that token's logit for one unit.

    Args:
        document: a checked document of a trace.
        circuit: one of its circuits.

    Returns:
        JSON values; without links where the output latent is active nowhere.
    """
    layer, tokens = document["layer"]["index"], []
    contexts, position, activation = circuit["output"]["contexts"], 0, 0.0
    if contexts:
        position, tokens = contexts[0]["peak"], contexts[0]["tokens"]
        activation = contexts[0]["activations"][position]
    described = {item["latent"]: item for item in document["input_latents"]}
    shares = link_shares(circuit)
    inputs = [
        latent_node(layer, described[latent], position, value, share)
        for latent, value, share in zip(
            circuit["features"], circuit["example"], shares, strict=False
        )
    ]
    output = latent_node(layer + 1, circuit["output"], position, activation, activation)
    ends, top = circuit["output"]["tokens"], document["model"]["n_layer"] + 1
    effects: dict[int, dict[str, Any]] = {}
    for token in (*ends["high"], *ends["low"]):
        effects.setdefault(token["id"], token)  # of few tokens, one may stand at both ends
    targets = [
        (token_node(top, token, position, first=place == 0), activation * token["value"])
        for place, token in enumerate(effects.values())
    ]
    links = [link(node, output, share) for node, share in zip(inputs, shares, strict=True) if share]
    links += [link(output, node, effect) for node, effect in targets if effect]
    return {
        "metadata": {
            "slug": slug(document, circuit),
            "scan": displayable(Path(document["source"]["path"]).name) or "bilens",
            "transcoder_list": [displayable(Path(sae["path"]).name) for sae in document["saes"]],
            "prompt_tokens": [visible(token) for token in tokens],
            "prompt": visible(
                "".join(tokens) if document["tokens_carry_spaces"] else " ".join(tokens)
            ),
            "node_threshold": None,
            "schema_version": SCHEMA_VERSION,
        },
        "qParams": {
            "pinnedIds": [node["node_id"] for node in (*inputs, output)],
            "supernodes": [],
            "linkType": "both",
            "clickedId": output["node_id"],
            "sg_pos": "",
        },
        "nodes": [*inputs, output, *(node for node, _ in targets)],
        "links": links,
    }


def link_shares(circuit: dict[str, Any]) -> list[float]:
    """Return what each input latent adds to the circuit at the strongest context."""
    z = circuit["example"]
    return [
        value * (linear + sum(entry * other for entry, other in zip(row, z, strict=True)))
        for value, row, linear in zip(z, circuit["matrix"], circuit["linear"], strict=False)
    ]


def latent_node(
    layer: int, item: dict[str, Any], position: int, activation: float, influence: float
) -> dict[str, Any]:
    """Return the node of a latent; `feature` is Cantor's pairing of layer and latent."""
    latent = item["latent"]
    total = layer + latent
    return {
        "node_id": f"{layer}_{latent}_{position}",
        "feature": total * (total + 1) // 2 + latent,
        "layer": str(layer),
        "ctx_idx": position,
        "feature_type": FEATURE,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{layer}_{latent}-0",
        "clerp": latent_name(item),
        "influence": abs(influence),
        "activation": activation,
    }


def token_node(layer: int, token: dict[str, Any], position: int, first: bool) -> dict[str, Any]:
    """Return the node of a token whose logit changes; its probability is not known."""
    return {
        "node_id": f"{layer}_{token['id']}_{position}",
        "feature": token["id"],
        "layer": str(layer),
        "ctx_idx": position,
        "feature_type": "logit",
        "token_prob": 0.0,
        "is_target_logit": first,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"L_{token['id']}-{position}",
        "clerp": visible(token["text"]),
        "influence": None,
        "activation": None,
    }


def link(source: dict[str, Any], target: dict[str, Any], weight: float) -> dict[str, Any]:
    """Return a link between two nodes."""
    return {"source": source["node_id"], "target": target["node_id"], "weight": weight}
