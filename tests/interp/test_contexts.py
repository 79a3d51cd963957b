"""The strongest stretches of text, on activations made by hand.

Broken once: `divmod(place, length)` -> `divmod(place, len(values))`; the peak was elsewhere.
"""

from __future__ import annotations

import pytest
import torch

from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.interp.contexts import top_contexts

TOKENS = torch.arange(24).view(2, 12)


def active(**places: float) -> torch.Tensor:
    """Activations with the values given at flat positions, such as p5=1.0."""
    values = torch.zeros(24)
    for name, value in places.items():
        values[int(name[1:])] = value
    return values.view(2, 12)


def test_stretches_come_by_falling_peak_with_the_text_around() -> None:
    found = top_contexts(TOKENS, active(p1=2.0, p16=3.0, p17=0.5), 7, before=2, after=1)
    assert (found.latent, found.largest, found.density) == (7, 3.0, pytest.approx(3 / 24))
    first, second = found.contexts
    assert (first.sequence, first.start, first.peak) == (1, 2, 2)
    assert first.tokens == (14, 15, 16, 17)
    assert first.activations == (0.0, 0.0, 3.0, 0.5)
    assert (second.tokens, second.peak) == ((0, 1, 2), 1)  # cut at the start of the sequence


def test_a_stretch_that_overlaps_a_stronger_one_is_left_out() -> None:
    found = top_contexts(TOKENS, active(p4=2.0, p5=3.0, p11=1.0), 0, before=2, after=0)
    assert [context.tokens[context.peak] for context in found.contexts] == [5, 11]


def test_no_more_are_returned_than_asked_for_and_none_where_it_is_silent() -> None:
    assert len(top_contexts(TOKENS, active(p0=1.0, p23=1.0), 0, num=1).contexts) == 1
    assert top_contexts(TOKENS, active(p3=-1.0), 0).contexts == ()


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ShapeError, match="one activation for each token"):
        top_contexts(TOKENS, torch.zeros(2, 11), 0)
    with pytest.raises(NonFiniteError, match="activations"):
        top_contexts(TOKENS, active(p0=float("nan")), 0)
    with pytest.raises(UsageError, match="num"):
        top_contexts(TOKENS, active(), 0, num=0)
