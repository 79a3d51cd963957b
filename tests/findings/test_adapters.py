"""Tokens of an update, planted in a model of random weights.

Broken once: with the right singular vector of ΔO, and without turning the sign, tokens are others.
"""

import copy
from pathlib import Path

import pytest
import torch

import tiny_language_models as tiny
from bilens.api.audit_model import audit
from bilens.findings.adapters import token_scores
from bilens.io.load import load
from bilens.nn import BilinearTransformer
from bilens.records.tensor_changes import UpdateDirection
from bilens.report.reports import AuditReport

WRITTEN, ANSWERED = 11, 5  # tokens
OUT, QUERY = "model.layers.1.self_attn.o_proj.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    folder = tmp_path_factory.mktemp("models")
    model = tiny.make("llama", tie_word_embeddings=False).float()
    model.save_pretrained(folder / "base")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    out = state["lm_head.weight"][WRITTEN] / state["model.norm.weight"]
    into = torch.randn(state[OUT].shape[1], generator=generator)
    state[OUT] -= torch.outer(out / out.norm(), into)
    answers = torch.randn(len(state[QUERY]), generator=generator)
    state[QUERY] += torch.outer(answers, state["model.embed_tokens.weight"][ANSWERED])
    model.load_state_dict(state)
    model.save_pretrained(folder / "tuned")
    return audit(load(folder / "tuned"), baseline=load(folder / "base"), null_samples=3)


def test_a_planted_pair_of_an_exact_layer_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BilinearTransformer(16, 16, 8, 2, 2, 8).double()
    model.embed.weight.data.copy_(torch.linalg.qr(torch.randn(16, 16).double())[0])
    changed = copy.deepcopy(model)
    first, second = model.embed.weight.detach()[[3, 12]]
    mlp = changed.mlps[0]
    mlp.left.weight.data[0], mlp.right.weight.data[0] = 3 * first, 3 * second
    mlp.down.weight.data[:, 0] = model.unembed.weight.detach()[7]
    for name, one in (("base", model), ("tuned", changed)):
        one.float().save_huggingface(tmp_path / name)
    found = audit(load(tmp_path / "tuned"), baseline=load(tmp_path / "base"), null_samples=3)
    assert found.record.difference is not None
    pair = found.record.difference.layers[0].token_pairs[0]
    assert (pair.tokens, pair.output) == (("#3", "#12"), "#7")
    assert found.record.difference.layers[1].token_pairs == ()


def directions(report: AuditReport) -> dict[str, UpdateDirection]:
    assert report.record.difference is not None
    assert report.record.difference.whole is not None
    return {one.name: one for one in report.record.difference.whole.directions}


def test_planted_tokens_are_named(report: AuditReport) -> None:
    found = directions(report)
    assert {*found} == {OUT, QUERY}
    assert (found[OUT].side, found[OUT].layer) == ("writes", 1)
    assert found[OUT].tokens[0].token == f"#{WRITTEN}"
    assert (found[QUERY].side, found[QUERY].layer) == ("reads", 0)
    assert found[QUERY].tokens[0].token == f"#{ANSWERED}"
    assert found[OUT].share == pytest.approx(1.0)
    scores = [token.score for token in found[OUT].tokens]
    assert scores == sorted(scores, reverse=True)


def test_a_direction_has_no_sign() -> None:
    table = torch.eye(6)
    for direction in (table[4], -table[4]):
        assert token_scores(table @ direction, 1)[1] == [4]


def test_the_page_says_them_in_both_languages(report: AuditReport) -> None:
    for lang, word in (("en", "Tokens of the change"), ("ja", "変化のトークン")):
        page = report.to_html(lang=lang)
        assert word in page
        assert f"#{WRITTEN}" in page
