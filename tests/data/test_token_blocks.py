"""Blocks hold every token of every document once, in order, but for less than one block.

Broken once: the end of text left out behind the last document of a group, and the number of
blocks rounded up; the tests of the stream and of a corpus that is too small failed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from bilens.base.errors import DataError, UsageError
from bilens.data import token_blocks
from bilens.data.story_grammar import StoryGrammar
from bilens.data.token_blocks import pack_documents
from bilens.data.tokenizer import train_tokenizer

STORIES = StoryGrammar().generate(50, seed=0)
TOKENIZER = train_tokenizer(STORIES, None, "word")


@given(num=st.integers(1, 50), n_ctx=st.integers(2, 20), group=st.integers(1, 60))
def test_the_blocks_are_the_documents_with_their_ends_but_for_a_rest(
    num: int, n_ctx: int, group: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_blocks, "GROUP", group)
        packed = pack_documents(TOKENIZER, STORIES[:num], n_ctx)
    stream = [i for text in STORIES[:num] for i in (*TOKENIZER.encode(text), TOKENIZER.end_of_text)]
    assert packed.tokens.dtype == torch.int64
    assert packed.tokens.shape == (len(stream) // n_ctx, n_ctx)
    assert packed.tokens.flatten().tolist() == stream[: packed.tokens.numel()]
    assert (packed.num_tokens, packed.num_documents) == (len(stream), num)
    assert packed.num_left_over == len(stream) % n_ctx


def test_documents_that_do_not_fill_a_block_are_refused() -> None:
    with pytest.raises(DataError, match=r"^1 documents have \d\d tokens together; at least one"):
        pack_documents(TOKENIZER, STORIES[:1], 64)
    with pytest.raises(DataError, match=r"^0 documents have 0 tokens"):
        pack_documents(TOKENIZER, [], 8)


@pytest.mark.parametrize("n_ctx", [1, 0, 8.0])
def test_a_block_has_at_least_two_tokens(n_ctx: int) -> None:
    with pytest.raises(UsageError, match="n_ctx must be an integer of at least 2"):
        pack_documents(TOKENIZER, STORIES, n_ctx)
