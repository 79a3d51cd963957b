"""Text to tokens and back: a wrapper of the `tokenizers` library, and the training of three kinds.

A tokenizer is a file, tokenizer.json, in the layout that every Hugging Face library reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bilens.base.atomic import write_file
from bilens.base.checks import check_count
from bilens.base.errors import DataError, MissingExtraError, UsageError
from bilens.data.text_cleaning import END_OF_TEXT

if TYPE_CHECKING:
    import tokenizers

TokenizerKind: TypeAlias = Literal["byte-bpe", "wordpiece-lower", "word"]

FILE_NAME = "tokenizer.json"
UNKNOWN = "[UNK]"
# What others call the end of a text; the first one that a tokenizer has is taken.
END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]")
WORDS = r"\w+(?:['’]\w+)*|[^\w\s]"  # "wasn't" is one word, a punctuation mark is one
MIN_FREQUENCY = 2  # a pair of pieces that occurs once is chance, and is not joined
PADDING_SHARE = 0.01  # models round the height of their embedding up by less than this


class Tokenizer:
    """Turns text into tokens and tokens into text.

    Promise: no special token is added, nothing is cut or padded. The text of a special token,
    such as "<|endoftext|>", becomes that token.

    Args:
        inner: a tokenizer of the `tokenizers` library; it is copied.

    Raises:
        DataError: If it has no token for the end of a text.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = type(inner).from_str(inner.to_str())
        self._inner.no_truncation()
        self._inner.no_padding()
        ids = {name: self._inner.token_to_id(name) for name in END_NAMES}
        known = [number for number in ids.values() if number is not None]
        if not known:
            raise DataError(
                f"the tokenizer has no token for the end of a text; one of {', '.join(END_NAMES)} "
                "was expected: add it as a special token."
            )
        self.end_of_text: int = known[0]

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token: the height of the embedding that a model needs."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file that `save` writes."""
        return hashlib.sha256(self._content()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, on all cores."""
        found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones included.

        Raises:
            UsageError: If a number is not a token.
        """
        for number in ids:
            self._piece(number)
        text: str = self._inner.decode([int(number) for number in ids], skip_special_tokens=False)
        return text

    def token(self, number: int) -> str:
        """Return one token as people read it: " good", "##ing"; bytes of half a letter as <0xE2>.

        Raises:
            UsageError: If the number is not a token.
        """
        piece = self._piece(number)
        table = byte_of_letter()
        if not self._is_byte_level or piece in END_NAMES or not set(piece) <= table.keys():
            return piece  # an added token is written as it is
        data = bytes(table[letter] for letter in piece)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "".join(chr(b) if b < 128 else f"<0x{b:02X}>" for b in data)

    def save(self, path: Path) -> None:
        """Write tokenizer.json, whole or not at all."""
        write_file(path, self._content())

    def _content(self) -> bytes:
        content: str = self._inner.to_str(pretty=True)
        return content.encode()

    def _piece(self, number: int) -> str:
        piece: str | None = self._inner.id_to_token(int(number)) if number >= 0 else None
        if piece is None:
            raise UsageError(
                f"{number} is not a token; 0 to {self.vocab_size - 1} are: does the tokenizer "
                "belong to this model?"
            )
        return piece

    @cached_property
    def _is_byte_level(self) -> bool:
        decoder = json.loads(self._inner.to_str())["decoder"]
        return "ByteLevel" in json.dumps(decoder)


@cache
def byte_of_letter() -> dict[str, int]:
    """Return printable letter -> byte, the table by which a byte-level BPE writes bytes.

    Bytes that are printable in Latin-1 stand for themselves, the others follow from U+0100 on.

    Source: Radford et al., 2019 (GPT-2), `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + rank): byte for rank, byte in enumerate(others)}


def train_tokenizer(
    documents: Sequence[str], vocab_size: int | None, kind: TokenizerKind = "byte-bpe"
) -> Tokenizer:
    """Return a tokenizer trained on documents.

    * "byte-bpe": byte pair encoding over bytes. Any text comes back as it was.
    * "wordpiece-lower": pieces of lower-case words, "play" "##ing"; case and white space are
      lost. Letters that were not seen become [UNK].
    * "word": each word and each punctuation mark is one token, the frequent ones first; words
      outside the vocabulary become [UNK], and white space is lost.

    Args:
        documents: texts.
        vocab_size: tokens in the vocabulary, special ones included; None, for "word" alone, is
            every word there is.
        kind: see above.

    Raises:
        UsageError: If the kind is not known, or vocab_size is too small for it.
        DataError: If the documents are empty, or support fewer than vocab_size tokens: a pair
            of pieces is joined only if it occurs at least twice.
        MissingExtraError: If `tokenizers` is not installed.
    """
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
    """Return a lower-case WordPiece tokenizer.

    The trainer numbers the letters inside words in the order of a hash table, which is another
    one each time, and settles equally frequent pairs by these numbers. So it is given the letters
    as if they were special tokens, in alphabetical order; the result has only the real ones.
    """
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


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json.

    Args:
        path: the file, or the folder that it is in, such as a model folder.

    Raises:
        DataError: If the file is missing, damaged, or lacks a token for the end of a text.
        MissingExtraError: If `tokenizers` is not installed.
    """
    library = tokenizers_library(f"Reading {path}")
    if path.is_dir():
        path = path / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; a tokenizer.json was expected: check the path."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); a tokenizer.json was expected: check the file."
        ) from None
    try:
        inner = library.Tokenizer.from_str(text)
    except Exception as error:  # the library raises a bare Exception
        raise DataError(
            f"{path} is not a tokenizer.json ({' '.join(str(error).split())[:200]}): "
            "copy or train it again."
        ) from None
    try:
        return Tokenizer(inner)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def check_tokenizer_fits(tokenizer: Tokenizer, vocab_size: int, sha256: str | None = None) -> None:
    """Refuse a tokenizer that does not belong to a model with vocab_size tokens.

    A model may have up to 1 % more rows than there are tokens: many round them up.

    Args:
        tokenizer: what was found beside the model.
        vocab_size: rows of the model's embedding.
        sha256: of the tokenizer that the model was trained with; None if that is not known.

    Raises:
        UsageError: If the numbers of tokens do not fit, or it is another tokenizer.
    """
    largest = tokenizer.vocab_size * (1 + PADDING_SHARE)
    if not tokenizer.vocab_size <= vocab_size <= largest:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the model {vocab_size:,}; "
            "they do not belong together: pass the tokenizer.json that the model was trained with."
        )
    if sha256 is not None and tokenizer.sha256 != sha256:
        raise UsageError(
            f"the tokenizer is not the one that the model was trained with (SHA-256 "
            f"{tokenizer.sha256[:12]}…, {sha256[:12]}… was expected): pass that tokenizer.json."
        )


def tokenizers_library(purpose: str) -> Any:
    """Return the library."""
    try:
        import tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "language", purpose) from None
    return tokenizers
