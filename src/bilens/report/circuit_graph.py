"""A circuit as a graph in the layout that circuit-tracer and its viewers read.

A graph of that layout belongs to one text and its links have two ends, while a circuit is made of
products of two input latents. So it is drawn where the output latent is strongest: a link from an
input latent has its exact share of the circuit there, the Shapley value of a quadratic form.

Edges through the attention are of no text: their links say what features at 1 would do, and name
the kind, the head and how often random features do as well.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bilens.records.base import Json, displayable
from bilens.records.mlp_trace import Circuit, LatentReading, TokenValue, Trace
from bilens.report.text import latent_name, token_name, visible

SCHEMA_VERSION: Final = 1  # of the layout, not of ours
FEATURE: Final = "cross layer transcoder"  # what viewers call a node that is a latent
NO_LABELS: Mapping[str, str] = {}
Node = dict[str, Json]


def graph_slug(trace: Trace, circuit: Circuit) -> str:
    """Return the name of a graph, of letters, digits and hyphens."""
    return f"block-{trace.layer.index}-latent-{circuit.latent}"


def latent_subject(trace: Trace, latent: int, *, output: bool) -> str:
    """Return the name under which people judge a latent, with the hash of its autoencoder."""
    sae = trace.saes[output]
    return f"latent:{sae.hook}:{sae.weights_sha256[:8]}:{latent}"


def build_circuit_graph(
    trace: Trace, circuit: Circuit, labels: Mapping[str, str] = NO_LABELS
) -> dict[str, Json]:
    """Return the graph of a circuit; `labels` are those that people gave, by `latent_subject`."""

    def name(item: LatentReading, *, output: bool = False) -> str:
        label = labels.get(latent_subject(trace, item.latent, output=output), "")
        return visible(label) or latent_name(item)

    # A link to a token is the activation of the output latent times the change of that token's
    # logit for one unit. Without a context there is no link.
    layer, output = trace.layer.index, circuit.output
    position, activation, tokens = 0, 0.0, tuple[str, ...]()
    if output.contexts:
        position, tokens = output.contexts[0].peak, output.contexts[0].tokens
        activation = output.contexts[0].activations[position]
    described = {item.latent: item for item in trace.input_latents}
    shares = link_shares(circuit)
    inputs = [
        feature_node(layer, latent, name(described[latent]), position, value, abs(share))
        for latent, value, share in zip(circuit.features, circuit.example, shares, strict=False)
    ]
    called = name(output, output=True)
    number, size = circuit.latent, abs(activation)
    middle = feature_node(layer + 1, number, called, position, activation, size)
    effects: dict[int, TokenValue] = {}
    for token in (*output.tokens.high, *output.tokens.low):
        effects.setdefault(token.id, token)  # of few tokens, one may stand at both ends
    targets = [
        token_node(trace.model.n_layer + 1, token, position, first=order == 0)
        for order, token in enumerate(effects.values())
    ]
    raised = [activation * token.value for token in effects.values()]
    links = [graph_link(node, middle, share) for node, share in zip(inputs, shares, strict=True)]
    links += [graph_link(middle, node, share) for node, share in zip(targets, raised, strict=True)]
    features, edges, about = attention_parts(trace, circuit, position if inputs else -1)
    text = ("" if trace.tokens_carry_spaces else " ").join(tokens)
    return {
        "metadata": {
            "slug": graph_slug(trace, circuit),
            "scan": displayable(Path(trace.source.path).name) or "bilens",
            "transcoder_list": [displayable(Path(sae.path).name) for sae in trace.saes],
            "prompt_tokens": [visible(token) for token in tokens],
            "prompt": visible(text),
            "node_threshold": None,
            "schema_version": SCHEMA_VERSION,
            **about,
        },
        "qParams": {
            "pinnedIds": [node["node_id"] for node in (*inputs, middle)],
            "supernodes": [],
            "linkType": "both",
            "clickedId": middle["node_id"],
            "sg_pos": "",
        },
        "nodes": [*inputs, middle, *targets, *features],
        "links": [link for link in (*links, *edges) if link["weight"]],
    }


def attention_parts(
    trace: Trace, circuit: Circuit, position: int
) -> tuple[list[Node], list[Node], Node]:
    """Return the features that attend or are written, links of edges that are no chance, metadata.

    A query is where the circuit is drawn, its key as many tokens before as was asked for; without
    so many there are none. Features are numbered behind the input latents of the layer.
    """
    found, nodes, links = trace.attention_edges, dict[str, Node](), list[Node]()
    if found is None:
        return [], [], {}
    count: Node = {"listed": len(found.scores) + len(found.writes), "drawn": 0}
    about: Node = {"hook": found.hook, "distance": found.distance, **count}
    if position < found.distance:
        return [], [], {"attention_edges": about}
    layer, first = trace.layer.index, trace.saes[0].num_latents
    attended = position - found.distance

    def feature(number: int, peak: str | None, place: int) -> Node:
        name = f"{found.hook} {number}{'' if peak is None else f' {token_name(peak)}'}"
        node = feature_node(layer, first + number, name, place, None, None)
        return nodes.setdefault(str(node["node_id"]), node)

    for score in (one for one in found.scores if one.p_value <= found.level):
        key = feature(score.key, score.key_peak, attended)
        query = feature(score.query, score.query_peak, position)
        said: Node = {"kind": "attention score", "head": score.head, "p_value": score.p_value}
        links.append(graph_link(key, query, score.score) | said)
    for write in found.writes:
        if write.p_value <= found.level and write.latent in circuit.features:
            key = feature(write.key, write.key_peak, attended)
            end: Node = {"node_id": f"{layer}_{write.latent}_{position}"}
            said = {"kind": "attention write", "head": write.head, "p_value": write.p_value}
            links.append(graph_link(key, end, write.weight) | said)
    return list(nodes.values()), links, {"attention_edges": about | {"drawn": len(links)}}


def graph_link(source: Node, target: Node, weight: float) -> Node:
    return {"source": source["node_id"], "target": target["node_id"], "weight": weight}


def link_shares(circuit: Circuit) -> list[float]:
    """Return how much each input latent adds to the circuit at the strongest context.

    With z the input latents there, z_m (Σ_n S[m, n] z_n + linear_m); these and the constant sum to
    the circuit's value.
    """
    z = circuit.example
    return [
        value * (linear + sum(entry * other for entry, other in zip(row, z, strict=True)))
        for value, row, linear in zip(z, circuit.matrix, circuit.linear, strict=False)
    ]


def node_of(layer: int, number: int, position: int, name: str, more: Node) -> Node:
    """Return the fields that all nodes have; the probability of a token is not known."""
    return {
        "node_id": f"{layer}_{number}_{position}",
        "layer": str(layer),
        "ctx_idx": position,
        "token_prob": 0.0,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "clerp": name,
        **more,
    }


def feature_node(
    layer: int,
    number: int,
    name: str,
    position: int,
    activation: float | None,
    influence: float | None,
) -> Node:
    """Return the node of a feature; `feature` is Cantor's pairing of layer and number."""
    total = layer + number
    kind: Node = {"feature": total * (total + 1) // 2 + number, "feature_type": FEATURE}
    kind |= {"is_target_logit": False, "jsNodeId": f"{layer}_{number}-0"}
    sizes: Node = {"influence": influence, "activation": activation}
    return node_of(layer, number, position, name, kind | sizes)


def token_node(layer: int, token: TokenValue, position: int, *, first: bool) -> Node:
    kind: Node = {"feature": token.id, "feature_type": "logit", "is_target_logit": first}
    kind |= {"jsNodeId": f"L_{token.id}-{position}", "influence": None, "activation": None}
    # viewers read a probability out of the name of a token, and stop where there is none
    name = f'Output "{visible(token.text)}" (p=?)'
    return node_of(layer, token.id, position, name, kind)
