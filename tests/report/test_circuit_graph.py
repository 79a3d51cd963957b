"""A circuit as a graph of circuit-tracer's layout: every key, the kinds of values, exact shares."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, convert, field

from bilens.records.base import Count
from bilens.report.circuit_graph import link_shares
from bilens.report.reports import TraceReport
from trace_documents import make_trace, make_weights_only, variants


# circuit-tracer 0.5, frontend/graph_models.py
class Metadata(Struct):
    slug: str
    scan: str
    transcoder_list: list[str]
    prompt_tokens: list[str]
    prompt: str
    node_threshold: float | None
    schema_version: Count


class Parameters(Struct):
    supernodes: list[list[str]]
    sg_pos: str
    pinned: list[str] = field(name="pinnedIds")
    link_type: str = field(name="linkType")
    clicked: str = field(name="clickedId")


class Node(Struct):
    node_id: str
    feature: Count
    layer: str
    ctx_idx: Count
    feature_type: str
    token_prob: float
    is_target_logit: bool
    run_idx: Count
    reverse_ctx_idx: Count
    clerp: str
    influence: float | None
    activation: float | None
    identity: str = field(name="jsNodeId")


class Link(Struct):
    source: str
    target: str
    weight: float
    kind: str = "share"
    head: Count | None = None


class Graph(Struct):
    metadata: Metadata
    nodes: list[Node]
    links: list[Link]
    parameters: Parameters = field(name="qParams")


def graphs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return TraceReport(document).graphs()


@pytest.mark.parametrize("name", variants())
def test_every_graph_has_the_layout(name: str) -> None:
    for graph in graphs(variants()[name]).values():
        convert(graph, Graph)
        nodes = [node["node_id"] for node in graph["nodes"]]
        assert len(set(nodes)) == len(nodes)
        assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= {
            *nodes
        }
        assert graph["qParams"]["clickedId"] in nodes
        length = len(graph["metadata"]["prompt_tokens"])
        assert all(node["ctx_idx"] < max(length, 1) for node in graph["nodes"])


def test_links_into_the_output_sum_to_the_circuit() -> None:
    circuit = make_trace()["circuits"][0]
    z, matrix, linear = circuit["example"], circuit["matrix"], circuit["linear"]
    size = range(len(z))
    value = sum(z[m] * matrix[m][n] * z[n] for m in size for n in size)
    value += sum(z[m] * linear[m] for m in size)
    assert sum(link_shares(TraceReport(make_trace()).record.circuits[0])) == pytest.approx(value)
    graph = graphs(make_trace())["block-0-latent-7.json"]
    into = [link["weight"] for link in graph["links"] if link["target"].startswith("1_7_")]
    assert sum(into) == pytest.approx(value)
    out = [link for link in graph["links"] if link["source"].startswith("1_7_")]
    assert {link["weight"] > 0 for link in out} == {True, False}


def test_the_number_of_a_latent_pairs_layer_and_latent() -> None:
    nodes = graphs(make_trace())["block-0-latent-7.json"]["nodes"]
    by_id = {node["node_id"]: node for node in nodes}
    assert by_id["0_4_3"]["feature"] == 4 * 5 // 2 + 4
    assert by_id["1_7_3"]["feature"] == 8 * 9 // 2 + 7
    assert by_id["1_7_3"]["activation"] == 2.0


def test_edges_through_the_attention_are_links_between_features() -> None:
    """Layer 0 with 12 input latents: feature 8 at the key is number 20, 3 at the query is 15."""
    document = make_trace()
    assert document["attention_edges"]["distance"] == 1
    document["attention_edges"]["writes"][0]["p_value"] = 0.05
    graph = graphs(document)["block-0-latent-7.json"]
    kinds = {link["kind"]: link for link in graph["links"] if "kind" in link}
    score, write = kinds["attention score"], kinds["attention write"]
    assert (score["source"], score["target"], score["weight"]) == ("0_20_2", "0_15_3", -1.25)
    assert (write["source"], write["target"], write["weight"]) == ("0_20_2", "0_4_3", 0.562)
    assert (score["head"], write["head"], write["p_value"]) == (1, 0, 0.05)
    nodes = {node["node_id"]: node for node in graph["nodes"]}
    assert nodes["0_15_3"]["clerp"] == "blocks.0.resid_pre 3 not"
    assert nodes["0_15_3"]["feature"] == 15 * 16 // 2 + 15
    assert (nodes["0_20_2"]["activation"], nodes["0_20_2"]["ctx_idx"]) == (None, 2)
    said = {"hook": "blocks.0.resid_pre", "distance": 1, "listed": 2, "drawn": 2}
    assert graph["metadata"]["attention_edges"] == said


def test_edges_that_chance_finds_and_keys_before_the_text_are_not_drawn() -> None:
    document = make_trace()
    graph = graphs(document)["block-0-latent-7.json"]
    assert [link["kind"] for link in graph["links"] if "kind" in link] == ["attention score"]
    assert graph["metadata"]["attention_edges"]["drawn"] == 1
    document["attention_edges"]["scores"][0]["p_value"] = 0.1
    assert not any("kind" in link for link in graphs(document)["block-0-latent-7.json"]["links"])
    document["attention_edges"]["scores"][0]["p_value"] = 0.05
    document["attention_edges"]["distance"] = 4  # one more than there are tokens before
    far = graphs(document)["block-0-latent-7.json"]
    assert far["metadata"]["attention_edges"]["drawn"] == 0
    document["attention_edges"] = None
    without = graphs(document)["block-0-latent-7.json"]
    assert "attention_edges" not in without["metadata"]
    assert (without["nodes"], without["links"]) == (far["nodes"], far["links"])


def test_the_name_of_a_token_has_what_viewers_take_a_probability_from() -> None:
    for node in graphs(make_trace())["block-0-latent-7.json"]["nodes"]:
        if node["feature_type"] == "logit":
            assert node["clerp"].split("(p=")[1] == "?)"


def test_a_token_at_both_ends_is_one_node() -> None:
    document = make_trace()
    ends = document["circuits"][0]["output"]["tokens"]
    ends["low"] = ends["high"]
    graph = graphs(document)["block-0-latent-7.json"]
    logits = [node for node in graph["nodes"] if node["feature_type"] == "logit"]
    assert len(logits) == 3
    assert [node["is_target_logit"] for node in logits] == [True, False, False]


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    files = TraceReport(make_trace()).to_graphs(tmp_path / "graphs")
    assert sorted(file.name for file in files) == ["block-0-latent-2.json", "block-0-latent-7.json"]
    assert all(json.loads(file.read_text())["metadata"]["schema_version"] == 1 for file in files)
    assert TraceReport(make_weights_only()).to_graphs(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
