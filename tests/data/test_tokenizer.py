"""Three kinds of tokenizer: there and back, equal when trained again, refused when damaged."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from hypothesis import given, strategies as st

from bilens.base.errors import DataError, MissingExtraError, UsageError
from bilens.data import tokenizer as module
from bilens.data.story_grammar import StoryGrammar
from bilens.data.tokenizer import (
    Tokenizer,
    TokenizerKind,
    byte_of_letter,
    check_tokenizer_fits,
    load_tokenizer,
    pack_documents,
    train_tokenizer,
)

STORIES = StoryGrammar().generate(300, seed=0)
SIZES: dict[TokenizerKind, int] = {"byte-bpe": 330, "wordpiece-lower": 150, "word": 60}


def trained(kind: TokenizerKind) -> Tokenizer:
    return train_tokenizer(STORIES, SIZES[kind], kind)


BYTE_BPE = trained("byte-bpe")
each_kind = pytest.mark.parametrize("kind", SIZES)  # those of text


@each_kind
def test_the_vocabulary_has_the_size_that_was_asked_for(kind: TokenizerKind) -> None:
    tokenizer = trained(kind)
    assert tokenizer.vocab_size == SIZES[kind]
    assert {number for story in STORIES for number in tokenizer.encode(story)} <= set(
        range(tokenizer.vocab_size)
    )


@given(st.text())
def test_a_byte_level_tokenizer_gives_any_text_back(text: str) -> None:
    assert BYTE_BPE.decode(BYTE_BPE.encode(text)) == text


def test_a_wordpiece_tokenizer_gives_the_text_back_in_lower_case() -> None:
    tokenizer = trained("wordpiece-lower")
    assert tokenizer.decode(tokenizer.encode(STORIES[0])) == STORIES[0].lower()


def test_a_word_tokenizer_has_a_token_for_each_word_and_mark() -> None:
    tokenizer = train_tokenizer(STORIES, None, "word")
    ids = tokenizer.encode("The cake wasn't good.")
    assert [tokenizer.token(number) for number in ids] == ["The", "cake", "wasn't", "good", "."]
    assert tokenizer.decode(ids) == "The cake wasn't good."
    assert tokenizer.decode(tokenizer.encode("The xylophone")) == "The [UNK]"


def test_all_words_are_the_vocabulary_where_no_size_is_given() -> None:
    tokenizer = train_tokenizer(["a b, a", "isn't"], None, "word")
    names = [tokenizer.token(number) for number in range(tokenizer.vocab_size)]
    assert names == ["<|endoftext|>", "[UNK]", "a", ",", "b", "isn't"]


@each_kind
def test_the_end_of_text_is_one_token_and_nothing_is_added_to_a_text(kind: TokenizerKind) -> None:
    tokenizer = trained(kind)
    assert tokenizer.token(tokenizer.end_of_text) == "<|endoftext|>"
    assert tokenizer.encode("<|endoftext|>") == [tokenizer.end_of_text]
    assert tokenizer.encode("") == []
    assert tokenizer.end_of_text not in tokenizer.encode(STORIES[0])


@each_kind
def test_all_texts_together_are_encoded_as_each_one_alone(kind: TokenizerKind) -> None:
    tokenizer = trained(kind)
    assert tokenizer.encode_all(STORIES[:20]) == [tokenizer.encode(text) for text in STORIES[:20]]


@each_kind
def test_training_again_gives_the_same_file(kind: TokenizerKind) -> None:
    """The hash tables of the library have another order each time."""
    assert len({trained(kind).sha256 for _ in range(8)}) == 1


def test_a_token_is_shown_as_it_is_read() -> None:
    tokenizer = train_tokenizer(["good good good", "naïve naïve", "日本 日本"], 270)
    shown = {tokenizer.token(number) for number in range(tokenizer.vocab_size)}
    assert {"<|endoftext|>", " good", "g", " ", "\n"} <= shown
    assert {"<0xE2>", "<0xC3>"} <= shown  # half of a letter
    assert "Ġgood" not in shown


def test_the_letters_of_bytes_are_those_that_the_library_uses() -> None:
    table = byte_of_letter()
    assert sorted(table.values()) == list(range(256))
    assert table.keys() == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in (" ", "\n", "é", "日", "\x00", "~", "\xad"):
        ((written, _),) = split.pre_tokenize_str(text)
        assert bytes(table[letter] for letter in written) == text.encode()


@pytest.mark.parametrize("number", [-1, 330, 10**6])
def test_a_number_that_is_no_token_is_refused(number: int) -> None:
    for read in (BYTE_BPE.token, lambda n: BYTE_BPE.decode([0, n])):
        with pytest.raises(UsageError, match=f"^{number} is not a token; 0 to 329 are"):
            read(number)


@each_kind
def test_a_saved_tokenizer_is_the_same_when_loaded(kind: TokenizerKind, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(place)
        assert loaded.sha256 == tokenizer.sha256
        assert loaded.encode_all(STORIES) == tokenizer.encode_all(STORIES)
    content = (tmp_path / "tokenizer.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == tokenizer.sha256


def test_what_a_file_says_about_cutting_padding_and_added_tokens_is_not_done() -> None:
    inner = tokenizers.Tokenizer.from_str(BYTE_BPE_JSON)
    inner.enable_truncation(3)
    inner.enable_padding(length=50)
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert Tokenizer(inner).encode(STORIES[0]) == BYTE_BPE.encode(STORIES[0])
    assert inner.truncation is not None  # the caller's object is as it was


BYTE_BPE_JSON = BYTE_BPE._inner.to_str()


def of_vocabulary(**ids: int) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, "a")))


def test_the_end_of_text_may_have_another_name() -> None:
    assert of_vocabulary(**{"a": 0, "</s>": 1}).end_of_text == 1


def test_a_gap_in_the_numbers_counts_for_the_size() -> None:
    assert of_vocabulary(**{"a": 0, "</s>": 7}).vocab_size == 8


@pytest.mark.parametrize(
    ("size", "kind", "problem"),
    [
        (256, "byte-bpe", "vocab_size must be an integer of at least 257, got 256"),
        (2, "word", "vocab_size must be an integer of at least 3, got 2"),
        (None, "byte-bpe", "vocab_size is None, which only 'word' knows"),
        (1024.0, "byte-bpe", "vocab_size must be an integer"),
        (1024, "unigram", "'unigram' is not a kind of tokenizer: use one of byte-bpe"),
        (20, "wordpiece-lower", "vocab_size is 20, and the letters of the documents alone need"),
    ],
)
def test_a_vocabulary_that_makes_no_sense_is_refused(size: Any, kind: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        train_tokenizer(STORIES, size, kind)


@each_kind
def test_a_vocabulary_larger_than_the_data_supports_is_refused_with_the_largest(
    kind: TokenizerKind,
) -> None:
    with pytest.raises(
        DataError, match=r"2 documents support \d+ tokens of kind .* 5,000"
    ) as raised:
        train_tokenizer(STORIES[:2], 5000, kind)
    largest = int(str(raised.value).split("at most ")[1].split(",")[0])
    assert train_tokenizer(STORIES[:2], largest, kind).vocab_size == largest


def test_pairs_that_occur_once_are_not_joined() -> None:
    with pytest.raises(DataError, match="1 documents support 257 tokens"):
        train_tokenizer(["abcdefgh"], 258)


@pytest.mark.parametrize("documents", [[], ["", " \n"]])
def test_nothing_is_trained_on_no_text(documents: list[str]) -> None:
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        train_tokenizer(documents, 300)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; expected a tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": is empty"),
        (b"{}", " is not a tokenizer.json"),
        (b"[1, 2", " is not a tokenizer.json"),
        (BYTE_BPE_JSON.encode()[:-40], " is not a tokenizer.json"),
        (b"\xff\xfe{}", " is not a tokenizer.json"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"tokenizer\.json{problem}"):
        load_tokenizer(path)


def test_a_file_without_an_end_of_text_is_named(tmp_path: Path) -> None:
    document = json.loads(BYTE_BPE_JSON)
    document["added_tokens"] = []
    del document["model"]["vocab"]["<|endoftext|>"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer\.json: the tokenizer has no token for the end"):
        load_tokenizer(path)


@pytest.mark.parametrize("vocab_size", [330, 333])
def test_a_tokenizer_fits_a_model_of_its_size_or_rounded_up(vocab_size: int) -> None:
    check_tokenizer_fits(BYTE_BPE, vocab_size)


@pytest.mark.parametrize("vocab_size", [1, 329, 334, 1024])
def test_a_tokenizer_of_another_size_does_not_fit(vocab_size: int) -> None:
    with pytest.raises(UsageError, match=f"has 330 tokens and the model {vocab_size:,}; they do"):
        check_tokenizer_fits(BYTE_BPE, vocab_size)


def test_another_tokenizer_of_the_same_size_does_not_fit() -> None:
    check_tokenizer_fits(BYTE_BPE, 330, BYTE_BPE.sha256)
    with pytest.raises(UsageError, match="is not the one that the model was trained with"):
        check_tokenizer_fits(BYTE_BPE, 330, "0" * 64)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bilens\[language\]'"):
        train_tokenizer(STORIES, 300)


@pytest.mark.parametrize("number", [-1, 1.5, True, "7", (1 << 24) + 1, 1 << 62])
@pytest.mark.parametrize("place", ["vocab", "added_tokens"])
def test_an_id_out_of_range_never_reaches_the_library(
    number: Any, place: str, tmp_path: Path
) -> None:
    """An id of 2 ** 32 - 1 ends the whole process inside the library."""
    content = json.loads(BYTE_BPE_JSON)
    if place == "vocab":
        content["model"]["vocab"]["zz"] = number
    else:
        content["added_tokens"][0]["id"] = number
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"not a tokenizer\.json \(a token has the id .*; 0 to"):
        load_tokenizer(tmp_path)


def test_another_hash_and_a_huge_file_never_reach_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizers.Tokenizer, "from_str", None)
    path = tmp_path / "tokenizer.json"
    path.write_text(BYTE_BPE_JSON)
    with pytest.raises(UsageError, match="is not the one that the model was trained with"):
        load_tokenizer(path, "0" * 64)
    with path.open("ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(DataError, match="is 1,073,741,824 bytes; at most"):
        load_tokenizer(path)


FEW = StoryGrammar().generate(50, seed=0)
TOKENIZER = train_tokenizer(FEW, None, "word")


@given(num=st.integers(1, 50), n_ctx=st.integers(2, 20), group=st.integers(1, 60))
def test_the_blocks_are_the_documents_with_their_ends_but_for_a_rest(
    num: int, n_ctx: int, group: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROUP", group)
        packed = pack_documents(TOKENIZER, FEW[:num], n_ctx)
    stream = [i for text in FEW[:num] for i in (*TOKENIZER.encode(text), TOKENIZER.end_of_text)]
    assert packed.tokens.dtype == torch.int64
    assert packed.tokens.shape == (len(stream) // n_ctx, n_ctx)
    assert packed.tokens.flatten().tolist() == stream[: packed.tokens.numel()]
    assert packed.num_tokens == len(stream)


def test_documents_that_do_not_fill_a_block_are_refused() -> None:
    with pytest.raises(DataError, match=r"^1 documents have \d\d tokens together; at least one"):
        pack_documents(TOKENIZER, FEW[:1], 64)
    with pytest.raises(DataError, match=r"^0 documents have 0 tokens"):
        pack_documents(TOKENIZER, [], 8)


@pytest.mark.parametrize("n_ctx", [1, 0, 8.0])
def test_a_block_has_at_least_two_tokens(n_ctx: int) -> None:
    with pytest.raises(UsageError, match="n_ctx must be an integer of at least 2"):
        pack_documents(TOKENIZER, FEW, n_ctx)
