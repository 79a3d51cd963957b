"""Batches: every token is predicted once a pass, and a batch depends on its number alone."""

import math

import pytest
import torch
from torch import Tensor

import language_runs
from bilens.base.errors import DataError, UsageError
from bilens.data.text import TextCorpus
from bilens.train.corpus import Batches, tokens_of, windows
from bilens.train.tasks.language import LanguageRecipe

RECIPE = language_runs.RECIPE


def batches_of(tokens: Tensor, recipe: LanguageRecipe) -> Batches:
    return Batches(tokens, recipe.n_ctx, recipe.batch_size, recipe.seed)


def test_windows_predict_every_token_behind_the_first_once() -> None:
    tokens = torch.arange(50)
    for offset in range(7):
        texts = windows(tokens, 7, offset)
        assert texts.shape[1] == 8
        predicted = texts[:, 1:].flatten()
        assert torch.equal(predicted, torch.arange(offset + 1, offset + 1 + len(predicted)))
        assert 50 - (offset + 1 + len(predicted)) < 7


def test_a_pass_takes_no_text_twice_and_the_next_one_cuts_elsewhere() -> None:
    tokens = torch.arange(2000)
    batches = batches_of(tokens, RECIPE)
    passes = []
    for index in range(2):
        numbers = range(index * batches.steps_per_pass, (index + 1) * batches.steps_per_pass)
        starts = torch.cat([batches.batch(number)[:, 0] for number in numbers])
        assert len(starts.unique()) == len(starts)
        offsets = (starts % RECIPE.n_ctx).unique()
        assert len(offsets) == 1
        passes.append(int(offsets))
    assert passes[0] != passes[1]


def test_a_batch_is_a_function_of_its_number() -> None:
    forward, again = (batches_of(language_runs.tokens().train, RECIPE) for _ in range(2))
    expected = [forward.batch(number) for number in range(14)]
    for number in (13, 0, 7, 6):
        assert torch.equal(again.batch(number), expected[number])
    other = batches_of(language_runs.tokens().train, language_runs.changed(seed=1))
    assert not torch.equal(other.batch(0), expected[0])


def test_steps_follow_from_epochs_unless_they_are_given() -> None:
    tokens = language_runs.tokens().train
    batches = batches_of(tokens, RECIPE)
    assert batches.total_steps(2.5, None) == round(2.5 * batches.steps_per_pass)
    assert batches.total_steps(2.5, 14) == 14


def test_a_corpus_without_one_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 32 and n_ctx 15, but the corpus has 100 "):
        batches_of(torch.arange(100), RECIPE)


def test_a_corpus_shorter_than_the_context_is_refused() -> None:
    small = TextCorpus(("Anna had a ball.",), ("Ben was sad.",), "small", "here")
    with pytest.raises(DataError, match="at least one block of 16 was expected"):
        tokens_of(small, language_runs.tokenizer(), RECIPE.n_ctx)


def test_bits_compare_tokenizers() -> None:
    """A model that gives each byte probability 1/2 has one bit per byte, however it is cut."""
    tokens = language_runs.tokens()
    text = "".join(language_runs.corpus().held_out)
    nats = math.log(2) * tokens.bytes_per_token
    assert tokens.bits_per_byte(nats) == pytest.approx(1)
    assert tokens.bytes_per_token == tokens.characters_per_token  # plain ASCII
    number = sum(
        len(language_runs.tokenizer().encode(story)) + 1
        for story in language_runs.corpus().held_out
    )
    assert tokens.bytes_per_token == pytest.approx(len(text) / number)


def test_other_text_or_another_tokenizer_has_another_fingerprint() -> None:
    corpus, tokenizer = language_runs.corpus(), language_runs.tokenizer()
    reordered = TextCorpus(corpus.documents[::-1], corpus.held_out, corpus.name, corpus.source)
    same, other = (tokens_of(c, tokenizer, 15).fingerprint for c in (corpus, reordered))
    assert same == language_runs.tokens().fingerprint != other
