"""Training of tokenizers, three kinds: byte-level BPE, lower-case WordPiece, whole words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bilens.base.checks import check_count
from bilens.base.errors import DataError, UsageError
from bilens.data.documents import END_OF_TEXT
from bilens.data.tokenizer import UNKNOWN, Tokenizer, TokenizerKind, tokenizers_library

WORDS = r"\w+(?:['’]\w+)*|[^\w\s]"  # "wasn't" is one word, a punctuation mark is one
MIN_FREQUENCY = 2  # a pair of pieces that occurs once is chance, and is not joined


def train_tokenizer(
    documents: Sequence[str], vocab_size: int | None, kind: TokenizerKind = "byte-bpe"
) -> Tokenizer:
    """Return a tokenizer trained on documents."""
    library = tokenizers_library("Training a tokenizer")
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind of tokenizer: use one of {', '.join(KINDS)}.")
    if not any(document.strip() for document in documents):
        raise DataError("There is no text to train a tokenizer on: pass at least one document.")
    if vocab_size is None and kind != "word":
        raise UsageError(f"vocab_size is None, which only 'word' knows: say how many for {kind!r}.")
    smallest = {"byte-bpe": 257, "wordpiece-lower": 3, "word": 3}[kind]
    size = 2**31 if vocab_size is None else check_count("vocab_size", vocab_size, smallest)
    inner = KINDS[kind](library, documents, size)
    found = inner.get_vocab_size()
    if vocab_size is not None and found < size:
        raise DataError(
            f"{len(documents):,} documents support {found:,} tokens of kind {kind!r}, and "
            f"{size:,} were asked for: ask for at most {found:,}, or pass more text."
        )
    if vocab_size is not None and found > size:
        raise UsageError(
            f"vocab_size is {size:,}, and the letters of the documents alone need {found:,}: "
            "ask for more."
        )
    return Tokenizer(inner)


def train_byte_bpe(library: Any, documents: Sequence[str], size: int) -> Any:
    """Return a byte-level BPE, as GPT-2 has one, without a space put before the text."""
    inner = library.Tokenizer(library.models.BPE())
    inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(documents, trainer)
    return inner


def train_wordpiece_lower(library: Any, documents: Sequence[str], size: int) -> Any:
    """Return a lower-case WordPiece tokenizer."""
    inner = untrained_wordpiece(library, library.models.WordPiece(unk_token=UNKNOWN))
    words = pieces_between_gaps(inner, documents)
    letters = sorted(set("".join(words)))
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[END_OF_TEXT, UNKNOWN, *letters, *inside],
        show_progress=False,
    )
    inner.train_from_iterator(documents, trainer)
    model = library.models.WordPiece(inner.get_vocab(), unk_token=UNKNOWN)
    result = untrained_wordpiece(library, model)
    result.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return result


def untrained_wordpiece(library: Any, model: Any) -> Any:
    """Return a tokenizer around a WordPiece model: lower case, split at spaces and marks."""
    inner = library.Tokenizer(model)
    inner.normalizer = library.normalizers.Sequence(
        [library.normalizers.NFC(), library.normalizers.Lowercase()]
    )
    inner.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    inner.decoder = library.decoders.WordPiece()
    return inner


def pieces_between_gaps(inner: Any, documents: Sequence[str]) -> set[str]:
    """Return the different words that a tokenizer splits documents into before its model acts."""
    words: set[str] = set()
    for document in documents:
        text = inner.normalizer.normalize_str(document)
        words.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text))
    return words


def train_words(library: Any, documents: Sequence[str], size: int) -> Any:
    """Return a tokenizer of whole words."""
    inner = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
    words = library.Regex(WORDS)
    inner.pre_tokenizer = library.pre_tokenizers.Split(words, "removed", invert=True)
    inner.decoder = library.decoders.WordPiece()
    trainer = library.trainers.WordLevelTrainer(
        vocab_size=size, special_tokens=[END_OF_TEXT, UNKNOWN], show_progress=False
    )
    inner.train_from_iterator(documents, trainer)
    return inner


KINDS = {"byte-bpe": train_byte_bpe, "wordpiece-lower": train_wordpiece_lower, "word": train_words}
