"""The negation study: its numbers on a model made by hand, its verdicts on records made by hand.

Broken once: random dictionaries that were all the same one, and shares of the trained directions
in their place.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bilens import save
from bilens.base.errors import UsageError
from bilens.data.story_grammar import FEELINGS, StoryGrammar
from bilens.data.text import load_text
from bilens.data.tokenizer import Tokenizer, train_tokenizer
from bilens.interp.interventions import InputDirections
from bilens.nn import BilinearTransformer, TopKSAE
from bilens.train.corpus import CorpusDescription, CorpusOptions
from bilens_studies import negation_circuit, negation_grammar, study
from bilens_studies.negation_candidates import keep_leading
from bilens_studies.negation_circuit import NegationCircuit, compare_with_chance, random_circuits
from bilens_studies.negation_grammar import MLP_IN, NegationStudy, measure_circuit, targets_met
from bilens_studies.negation_prompts import NegationPrompts, word_tokens
from bilens_studies.study import StudyOptions
from bilens_studies.study_folder import run_study

OPTIONS = CorpusOptions("grammar", limit=400)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(OPTIONS.load().documents, None, "word")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> BilinearTransformer:
    torch.manual_seed(0)
    return BilinearTransformer(tokenizer.vocab_size, 8, 8, 1, 2, 64)


@pytest.fixture(scope="module")
def prompts(model: BilinearTransformer, tokenizer: Tokenizer) -> NegationPrompts:
    return NegationPrompts.for_model(model, MLP_IN, tokenizer, 6, seed=0)


def test_margins_are_those_of_each_prompt_alone(
    prompts: NegationPrompts, model: BilinearTransformer, tokenizer: Tokenizer
) -> None:
    plain, negated = prompts.margins()
    for index, prompt in enumerate(StoryGrammar().minimal_pairs(6, 0)):
        ids = torch.tensor([[tokenizer.end_of_text, *tokenizer.encode(prompt.prompt)]])
        logits = model(ids)[0, -1].double()
        positive, negative = (
            logits[[tokenizer.encode(word)[0] for word in FEELINGS[sign]]].logsumexp(0)
            for sign in (1, -1)
        )
        margin = prompt.polarity * (positive - negative)
        found = (negated if prompt.negated else plain)[index // 2]
        assert float(found) == pytest.approx(margin.item(), abs=1e-5)
        assert int(prompts.feelings[index]) == prompt.feeling
    torch.testing.assert_close(prompts.flip(), plain - negated)
    assert prompts.inputs().shape == (12, 8)


def test_an_edit_reaches_the_margins_and_the_loss(
    prompts: NegationPrompts, tokenizer: Tokenizer
) -> None:
    blocks = torch.tensor([tokenizer.encode("Anna had a new hat . Anna looked happy .")])
    changed = prompts.flip(lambda x: 0 * x)
    assert not torch.equal(changed, prompts.flip())
    assert prompts.loss_elsewhere(blocks, lambda x: 0 * x) != prompts.loss_elsewhere(blocks)


def test_words_of_feeling_are_left_out_of_the_loss(
    prompts: NegationPrompts, model: BilinearTransformer, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode("Anna looked happy")
    logits = model(torch.tensor([ids]))[0].log_softmax(dim=-1)
    found = prompts.loss_elsewhere(torch.tensor([ids]))
    assert found == pytest.approx(-logits[0, ids[1]].item(), rel=1e-5)


def test_a_word_of_several_tokens_is_refused() -> None:
    pieces = train_tokenizer(["so sad and so glad"] * 9, 260, "byte-bpe")
    with pytest.raises(UsageError, match="the study needs one"):
        word_tokens(pieces, ["gloomy"])


def test_as_few_directions_as_hold_the_mass() -> None:
    def kept(*values: float) -> int:
        one = torch.eye(len(values)).double()
        found = InputDirections(one, one, one[0], torch.tensor(values).double())
        return len(keep_leading(found).readers)

    assert kept(-9.0, 2.0, 0.5, 0.1, 0.1) == 1
    assert kept(-9.0, 8.0, 0.5, 0.1, 0.1) == 2
    assert kept(1.0, 1.0, 1.0, 1.0, 1.0) == 4


def test_a_model_that_does_not_know_the_rule_is_refused(
    model: BilinearTransformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save(model, folder)
    tokenizer.save(folder / "tokenizer.json")
    CorpusDescription.describe(OPTIONS, load_text("grammar", limit=400)).write(folder)
    save(TopKSAE(8, 12, 2), tmp_path / "sae")
    with pytest.raises(UsageError, match="has not learnt the rule"):
        measure_circuit(folder, tmp_path / "sae", seed=0)


def test_random_dictionaries_are_read_by_the_same_steps_as_the_trained_one(
    prompts: NegationPrompts, model: BilinearTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negation_circuit, "NUM_DICTIONARIES", 3)
    monkeypatch.setattr(negation_circuit, "NUM_RANDOM", 4)
    torch.manual_seed(3)
    f = model.layer_map(0).detach().to(torch.float64)
    x, sae = torch.randn(300, 8).double(), TopKSAE(8, 6, 3)
    z = sae.encode(f(x)).detach()
    known = replace(prompts, polarity=prompts.polarity * prompts.flip().sign())  # a flip to remove
    trained = NegationCircuit.from_dictionary(known, f, sae, x, z)
    null = random_circuits(known, f, sae, x, z, seed=0)
    again = random_circuits(known, f, sae, x, z, seed=0)
    scores = [one.score(1) for one in null]
    assert scores == [one.score(1) for one in again]
    assert len({*scores, trained.score(1)}) == 4
    ablate, steer = trained.checks(known.tokens, null, seed=0)
    assert (ablate["share"]["value"], steer["share"]["value"]) == pytest.approx(trained.shares())
    assert [ablate["null_shares"], steer["null_shares"]] == [
        [one.shares()[kind] for one in null] for kind in range(2)
    ]
    for check in (ablate, steer):
        assert not check["confirmed"]  # three random dictionaries cannot tell
        assert check["chance"]["p_value"] == (1 + check["chance"]["reached"]) / 4


def test_an_observation_counts_as_one_more_random_dictionary() -> None:
    assert compare_with_chance(0.5, [0.6, 0.5, 0.4, None])["p_value"] == 3 / 5
    assert compare_with_chance(0.7, [0.6] * 19)["p_value"] == 0.05
    assert compare_with_chance(None, [0.1])["p_value"] is None


def record(seed: int, removed: float = 0.95, loss: float = 1.01) -> dict[str, Any]:
    def share(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    check = {
        "kind": "ablate",
        "num_directions": 2,
        "before": share(12.0),
        "after": share(1.0),
        "share": share(removed),
        "random_share": share(0.05),
        "num_random": 40,
        "loss_before": 1.0,
        "loss_after": loss,
        "null_shares": [0.1, 0.9],
        "num_null": 2,
        "confirmed": seed == 0,
        "chance": compare_with_chance(removed, [0.1, 0.9]),
    }
    return {
        "seed": seed,
        "place": 1 if seed == 0 else None,
        "num_pairs_ranked": 1500,
        "ranking": [{"score": 0.8}] if seed == 0 else [{"score": 0.8}, {"score": 0.7}],
        "latents": (3, 5),
        "promoted": [["glad", "happy"], ["sad"]],
        "eigenvalues": [3.0, -2.5],
        "score": compare_with_chance(0.8, [0.3, 0.2]),
        "rule_score": compare_with_chance(0.8 if seed == 0 else None, [0.3, None]),
        "null_places": [1, None],
        "checks": [check, {**check, "kind": "steer"}],
    }


def test_verdicts_are_counted_and_the_page_says_the_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records = [record(0), record(1, removed=0.7)]
    trained: list[str] = []
    monkeypatch.setattr(
        study, "train_language", lambda folder, *_, **__: trained.append(folder.name)
    )
    monkeypatch.setattr(study, "train_sae", lambda folder, *_, **__: trained.append(folder.name))
    monkeypatch.setattr(
        negation_grammar, "measure_circuit", lambda _model, _sae, seed: records[seed]
    )
    document = run_study(NegationStudy(), tmp_path, StudyOptions(seeds=2))
    assert trained == ["model", "sae"] * 2
    assert document["result"]["counts"] == {
        "found": 1,
        "removed": 1,
        "kept": 2,
        "random_is_less": 2,
        "created": 1,
        "score_beyond_chance": 0,  # of two random dictionaries
        "removal_confirmed": 1,
        "creation_confirmed": 1,
    }  # fmt: skip
    assert not targets_met(record(0, loss=1.05))["kept"]
    page = (tmp_path / "study.md").read_text()
    assert "First in the ranking of all pairs of output latents: 1 of 2 models." in page
    assert "| 95.0% [94.0%, 96.0%] |" in page
    assert "| none of 1,500 |" in page
    assert "| glad happy | sad | +3.00, -2.50 |" in page
    assert "| 0 | 0.80; 0.30 | 0.33 | 1; 1 of 2, first at 1 | **95.0%**; 90.0%, 0 of 2 |" in page
    assert "| 1 | 0.80; 0.30 | 0.33 | none; 1 of 2, first at 1 | 70.0%; 90.0%, 1 of 2 |" in page
    assert not NegationStudy().reproduced(document["result"])["removed"].holds


def test_models_that_are_given_are_not_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "train_sae", lambda *_, **__: None)
    seen: list[Path] = []

    def measured(model: Path, _sae: Path, seed: int) -> dict[str, Any]:
        seen.append(model)
        return record(seed)

    monkeypatch.setattr(negation_grammar, "measure_circuit", measured)
    run_study(NegationStudy(), tmp_path, StudyOptions(models=("a", "b")))
    assert seen == [Path("a"), Path("b")]
    with pytest.raises(UsageError, match="leave one out"):
        NegationStudy().check(StudyOptions(models=("a",), seeds=2))
