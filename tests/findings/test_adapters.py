"""Tokens of an update, planted in a model of random weights.

Broken once: with the right singular vector of ΔO, and without turning the sign, tokens are others.
"""

from __future__ import annotations

import pytest
import torch

import tiny_language_models as tiny
from bilens.api.audit import audit
from bilens.io.load import load
from bilens.records.layer_audit import UpdateDirection
from bilens.report.reports import LayerAuditReport

WRITTEN, ANSWERED = 11, 5  # tokens
OUT, QUERY = "model.layers.1.self_attn.o_proj.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> LayerAuditReport:
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
    found = audit(load(folder / "tuned"), baseline=load(folder / "base"), null_samples=3)
    assert isinstance(found, LayerAuditReport)
    return found


def directions(report: LayerAuditReport) -> dict[str, UpdateDirection]:
    assert report.record.difference is not None
    assert report.record.difference.whole is not None
    return {one.name: one for one in report.record.difference.whole.directions}


def test_planted_tokens_are_named(report: LayerAuditReport) -> None:
    found = directions(report)
    assert {*found} == {OUT, QUERY}
    assert (found[OUT].side, found[OUT].layer) == ("writes", 1)
    assert found[OUT].tokens[0].token == f"#{WRITTEN}"
    assert (found[QUERY].side, found[QUERY].layer) == ("reads", 0)
    assert found[QUERY].tokens[0].token == f"#{ANSWERED}"
    assert found[OUT].share == pytest.approx(1.0)
    scores = [token.score for token in found[OUT].tokens]
    assert scores == sorted(scores, reverse=True)


def test_the_page_says_them_in_both_languages(report: LayerAuditReport) -> None:
    for lang, word in (("en", "Tokens of the change"), ("ja", "変化のトークン")):
        page = report.to_html(lang=lang)
        assert word in page
        assert f"#{WRITTEN}" in page
