"""Where a latent is active, the strongest stretches of text, and the tokens of a direction."""

import pytest
import torch

from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.interp import traced_layer
from bilens.interp.behaviour import positions_of_contrast, positions_of_latent
from bilens.interp.traced_layer import eigenvector_tokens, output_tokens, top_contexts
from builders import D_IN, form_from_pairs, randn, random_map, vector

BLOCKS = torch.tensor([[9, 1, 2, 1, 3], [9, 2, 1, 1, 4]])


def test_silent_positions_are_as_many_and_never_the_first_of_a_text() -> None:
    z = torch.tensor([[0.0, 3, 0, 1], [2, 0, 0, 0]])
    on, off = positions_of_latent(z, torch.Generator().manual_seed(0))
    assert on.tolist() == [2, 6, 4]
    assert len(off) == 3
    assert not set(off.tolist()) & {0, 5, *on.tolist()}


def test_positions_of_two_latents_read_the_same_tokens() -> None:
    first = torch.tensor([[1.0, 5, 0, 0], [0, 0, 3, 7]])
    second = torch.tensor([[0.0, 0, 4, 0], [2, 6, 0, 7]])
    on, off = positions_of_contrast(first, second, BLOCKS)
    tokens = BLOCKS.flatten()
    assert tokens[on].tolist() == tokens[off].tolist()
    assert on.tolist() == [2, 8, 1]  # by falling activation; 9, where both are active, left out
    assert off.tolist() == [6, 7, 3]


def test_latents_of_different_tokens_have_no_positions_to_compare() -> None:
    first = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    second = torch.tensor([[0.0, 2, 0, 1], [0, 0, 0, 0]])
    on, off = positions_of_contrast(first, second, BLOCKS)
    assert (len(on), len(off)) == (0, 0)


TOKENS = torch.arange(24).view(2, 12)


def active(**places: float) -> torch.Tensor:
    """Activations with the values given at flat positions, such as p5=1.0."""
    values = torch.zeros(24)
    for name, value in places.items():
        values[int(name[1:])] = value
    return values.view(2, 12)


def around(monkeypatch: pytest.MonkeyPatch, before: int, after: int) -> None:
    monkeypatch.setattr(traced_layer, "BEFORE", before)
    monkeypatch.setattr(traced_layer, "AFTER", after)


def test_stretches_come_by_falling_peak_with_the_text_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around(monkeypatch, 2, 1)
    found = top_contexts(TOKENS, active(p1=2.0, p16=3.0, p17=0.5), 7, str)
    assert (found.latent, found.largest, found.density) == (7, 3.0, pytest.approx(3 / 24))
    first, second = found.contexts
    assert (first.sequence, first.start, first.peak) == (1, 2, 2)
    assert first.tokens == ("14", "15", "16", "17")
    assert first.activations == (0.0, 0.0, 3.0, 0.5)
    assert (second.tokens, second.peak) == (("0", "1", "2"), 1)  # cut at the start of the sequence


def test_a_stretch_that_overlaps_a_stronger_one_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around(monkeypatch, 2, 0)
    found = top_contexts(TOKENS, active(p4=2.0, p5=3.0, p11=1.0), 0, str)
    assert [context.tokens[context.peak] for context in found.contexts] == ["5", "11"]


def test_no_more_are_returned_than_asked_for_and_none_where_it_is_silent() -> None:
    assert len(top_contexts(TOKENS, active(p0=1.0, p23=1.0), 0, str, num=1).contexts) == 1
    assert top_contexts(TOKENS, active(p3=-1.0), 0, str).contexts == ()


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ShapeError, match="one activation for each token"):
        top_contexts(TOKENS, torch.zeros(2, 11), 0, str)
    with pytest.raises(NonFiniteError, match="activations"):
        top_contexts(TOKENS, active(p0=float("nan")), 0, str)
    with pytest.raises(UsageError, match="num"):
        top_contexts(TOKENS, active(), 0, str, num=0)


def test_effects_are_centred_logits() -> None:
    unembed, direction = randn(7, 4), randn(4, seed=1)
    found = output_tokens(direction, unembed, num=7)
    effects = unembed @ direction
    effects = effects - effects.mean()
    assert [score.token for score in found.high] == effects.argsort(descending=True).tolist()
    assert [score.token for score in found.low] == effects.argsort().tolist()
    assert found.high[0].value == pytest.approx(float(effects.max()))


def test_an_eigenvector_reads_the_tokens_along_it_and_against_it() -> None:
    embed = torch.eye(D_IN).double()
    embed = torch.cat([embed, -embed]) + 10  # what all tokens share says nothing
    form = form_from_pairs(vector(2.0), torch.eye(D_IN).double()[3:4])
    (found,) = eigenvector_tokens(eigendecompose(form, k=1), embed, num=1)
    assert (found.high[0].token, found.low[0].token) == (3, 3 + D_IN)
    assert found.high[0].value == pytest.approx(1.0)


def test_more_tokens_than_there_are_gives_all_of_them() -> None:
    assert len(output_tokens(randn(4), randn(3, 4), num=10).high) == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="direction has shape"):
        output_tokens(randn(3), randn(7, 4))
    with pytest.raises(UsageError, match="num"):
        output_tokens(randn(4), randn(7, 4), num=0)
    batch = eigendecompose_all(random_map(), k=2)
    with pytest.raises(ShapeError, match="works on one form"):
        eigenvector_tokens(batch, randn(7, D_IN))
    with pytest.raises(ShapeError, match="an eigenvector has shape"):
        eigenvector_tokens(batch[0], randn(7, D_IN + 1))
