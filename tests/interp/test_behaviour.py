"""Where a latent is active: beside silent positions, and beside another latent."""

import torch

from bilens.interp.behaviour import positions_of_contrast, positions_of_latent

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
