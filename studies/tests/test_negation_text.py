"""Negation in running text: word masks and margins by hand, the study on a random tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bilens.base.errors import UsageError
from bilens.data.tokenizer import train_tokenizer
from bilens.interp.traced_layer import open_layer
from bilens_studies import negation_candidates, negation_text, study as study_module
from bilens_studies.negation_candidates import InputKinds, held_positions, positions
from bilens_studies.negation_prompts import FRAMES, OPENERS, NegationPairs, TruthWords, over_words
from bilens_studies.negation_text import NegationTextStudy, margins, verdict
from bilens_studies.study import StudyOptions
from bilens_studies.study_folder import run_study
from tests import traced_models

TEXTS = ["Tim was not very happy . He didn't run .", "so sad and scared , never good !"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced_models, "N_CTX", 32)
        return traced_models.write_model(tmp_path_factory.mktemp("model"))


def test_negators_reach_three_tokens_and_no_further_than_the_sentence() -> None:
    tokenizer = train_tokenizer(TEXTS * 2, None, "word")
    words = TruthWords.for_tokenizer(tokenizer)
    blocks = torch.tensor([tokenizer.encode(TEXTS[0])])
    names = [tokenizer.token(token) for token in blocks[0].tolist()]
    negated = [
        name for name, at in zip(names, words.negated(blocks)[0].tolist(), strict=True) if at
    ]
    assert negated == ["not", "very", "happy", "didn't", "run"]
    said = words.sentiment(torch.tensor([tokenizer.encode(TEXTS[1])]))
    assert int(said.sum()) == 3


def test_latents_are_of_the_kind_that_most_of_their_activation_is() -> None:
    tokenizer = train_tokenizer(TEXTS * 2, None, "word")
    words = TruthWords.for_tokenizer(tokenizer)
    blocks = torch.tensor([tokenizer.encode(f"so {TEXTS[0]}")])
    negated, said = words.negated(blocks)[0, 1:], words.sentiment(blocks)[0, 1:]
    z = torch.stack(
        [negated.double(), (said & negated).double(), torch.ones(len(said)).double()], dim=1
    )
    kinds = InputKinds.by_words(z, blocks, words, 1)
    assert kinds.negation.tolist()[:2] == [True, True]
    assert not bool((kinds.negation & kinds.sentiment).any())
    assert InputKinds.by_words(z, blocks, words, 99).negation.tolist() == [False] * 3
    one = InputKinds(torch.tensor([True, False, False]), torch.tensor([False, True, False]))
    first, second = torch.tensor([[0, 2], [1, 2], [2, -1]]), torch.tensor([[1, 0], [2, 0], [1, 0]])
    with_both, with_one = one.coupled(first, second)
    assert with_both.tolist() == [True, False, False]
    assert with_one.tolist() == [True, True, False]


def test_positions_are_counted_from_one_and_chance_is_the_first_of_a_random_order() -> None:
    both = torch.tensor([False, False, True, False])
    some = torch.tensor([True, False, True, False])
    found = positions([1, 3, 2, 0], both, some)
    assert (found["both"], found["num_both"], found["negation"]) == (3, 1, 3)
    assert found["chance_both"] == pytest.approx(2.5)
    assert held_positions([1, 3, 2, 0], both, some) == [3, 4]
    assert positions([], both, some)["both"] is None


def test_flip_and_shift_are_those_of_the_logits(model: Path) -> None:
    layer = open_layer(model, 0)
    words = TruthWords.for_tokenizer(layer.tokenizer)
    hook = layer.hook("mlp_in")
    pairs = NegationPairs.for_model(layer.module, hook, layer.tokenizer, words, OPENERS[1:])
    text = "Tim saw a big tree. Tim was not happy and"
    ids = torch.tensor([[layer.tokenizer.end_of_text, *layer.tokenizer.encode(text)]])
    with torch.no_grad():
        logits = layer.module(ids)[0, -1].double()
    odds = logits[words.positive].exp().sum().log() - logits[words.negative].exp().sum().log()
    with torch.no_grad():
        every = layer.module(pairs.tokens)[torch.arange(len(pairs.tokens)), pairs.last].double()
    second = every[1, words.positive].logsumexp(0) - every[1, words.negative].logsumexp(0)
    assert float(second) == pytest.approx(float(odds), abs=1e-5)
    leaning = pairs.leaning()
    assert leaning.shape == (len(FRAMES), 10, 2)
    shift = leaning[..., 0] - leaning[..., 1]
    torch.testing.assert_close(pairs.shift(), shift)
    torch.testing.assert_close(pairs.flip(), torch.cat([shift[:, :5], -shift[:, 5:]], dim=1))
    nothing = pairs.leaning(lambda x: x)
    torch.testing.assert_close(nothing, leaning)
    assert float((pairs.leaning(torch.zeros_like) - leaning).abs().max()) > 1e-4


def test_behind_a_negator_the_mlp_reads_what_it_reads_without(model: Path) -> None:
    layer = open_layer(model, 0)
    words = TruthWords.for_tokenizer(layer.tokenizer)
    pairs = NegationPairs.for_model(layer.module, layer.hook("mlp_in"), layer.tokenizer, words)
    x = pairs.tokens[..., None].double()  # a stream that is the token itself
    edited = pairs.negator_ablated()(x)[..., 0].long()
    negator = layer.tokenizer.encode("not")[0]
    assert torch.equal(edited[::2], pairs.tokens[::2])
    for plain, negated, row in zip(
        pairs.tokens[::2], pairs.tokens[1::2], edited[1::2], strict=True
    ):
        assert torch.equal(row, negated)  # the same tokens, each from one place before
        at = negated.tolist().index(negator)
        assert torch.equal(row[at + 1 :], plain[at:-1])


def test_intervals_resample_words_of_both_halves() -> None:
    values = torch.tensor([1.0, 1, 1, -3, -3, -3])
    found = over_words(values, torch.Generator().manual_seed(0))
    assert found == {"value": -1, "low": -1, "high": -1}


def test_a_tokenizer_without_the_words_is_refused(model: Path) -> None:
    layer = open_layer(model, 0)
    empty = torch.tensor([], dtype=torch.long)
    words = TruthWords(empty, empty, empty, empty)
    with pytest.raises(UsageError, match="the study needs both"):
        NegationPairs.for_model(layer.module, "blocks.0.mlp_in", layer.tokenizer, words)


@pytest.fixture(scope="module")
def study(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    out = tmp_path_factory.mktemp("negation-text") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "BATCH", 128)
        patch.setattr(negation_text, "K", 4)
        patch.setattr(negation_candidates, "LEAST_ACTIVE", 5)
        patch.setattr(negation_candidates, "MOST_COMPARED", 4)
        options = StudyOptions(models=(str(model),), steps=4)
        document = run_study(NegationTextStudy(), out, options)
    return document["result"], (out / "study.md").read_text()


def test_the_study_says_what_the_model_does_and_what_its_blocks_hold(
    study: tuple[dict[str, Any], str],
) -> None:
    result, page = study
    assert [row["frame"] for row in result["behaviour"]["frames"]] == list(FRAMES)
    found = result["behaviour"]["all"]
    assert found["flip"]["low"] <= found["flip"]["value"] <= found["flip"]["high"]
    assert found["plain"]["value"] - found["negated"]["value"] == pytest.approx(
        found["flip"]["value"]
    )
    (block,) = result["blocks"]
    assert block["pairs"]["ranked"] == 6
    for kind in ("both", "negation"):
        places_found = block["latents"]
        assert (places_found[kind] is None) == (places_found[f"num_{kind}"] == 0)
    for circuit in block["circuits"]:
        assert 1 <= circuit["num_directions"] <= 4
        for name in ("flip", "shift"):
            assert circuit[name] is None or circuit[name]["before"]["value"] > 0
    assert verdict(found) in page
    assert page.count(" … |") == len(FRAMES)
    assert [row["block"] for row in result["mlps"]] == [0]


def test_verdicts_follow_the_intervals() -> None:
    def found(negated: float, flip: float) -> dict[str, dict[str, float]]:
        return {
            "negated": {"low": negated - 0.1, "high": negated + 0.1},
            "flip": {"low": flip - 0.1, "high": flip + 0.1},
        }

    assert "turns the sentiment around" in verdict(found(-0.5, 1.5))
    assert "weakens" in verdict(found(0.5, 0.3))
    assert "does nothing" in verdict(found(0.5, 0.05))
    assert "does nothing" in verdict(found(0.5, -0.3))


def test_margins_are_leanings_to_the_side_of_the_word() -> None:
    frames = [{"words": [[2.0, 1.0], [-3.0, -4.0]]}, {"words": [[1.0, 0.0], [-1.0, -2.0]]}]
    found = margins({"frames": frames})
    assert found["plain"]["value"] == pytest.approx((2 + 3 + 1 + 1) / 4)
    assert found["negated"]["value"] == pytest.approx((1 + 4 + 0 + 2) / 4)
