"""Text to tokens and back, documents as blocks of tokens, and the training of tokenizers.

A tokenizer is a file, tokenizer.json, in the layout that every Hugging Face library reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bilens.base.checks import check_count
from bilens.base.errors import DataError, UsageError, optional_package
from bilens.base.files import check_regular_file, write_file
from bilens.base.option_rules import TokenizerKind as TokenizerKind
from bilens.data.text import END_OF_TEXT

if TYPE_CHECKING:
    import tokenizers

FILE_NAME = "tokenizer.json"
UNKNOWN = "[UNK]"
# What others call the end of a text; the first one that a tokenizer has is taken.
END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "[SEP]")
GROUP = 4096  # documents that are lists of Python integers at a time
LARGEST_FILE = 1 << 28  # bytes of a tokenizer.json; the large multilingual ones have 1 << 25
LARGEST_ID = 1 << 24
WRONG_TOKENIZER = (
    "the tokenizer is not the one that the model was trained with (SHA-256 {found}…, {expected}… "
    "was expected): pass that tokenizer.json."
)
PADDING_SHARE = 0.01  # models round the height of their embedding up by less than this
WORDS = r"\w+(?:['’]\w+)*|[^\w\s]"  # "wasn't" is one word, a punctuation mark is one
MIN_FREQUENCY = 2  # a pair of pieces that occurs once is chance, and is not joined


class Tokenizer:
    """Turns text into tokens and tokens into text."""

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
    def start(self) -> int | None:
        """The token that is put before every text; None for none."""
        ids: list[int] = self._inner.encode("", add_special_tokens=True).ids
        return ids[0] if ids and ids[0] != self.end_of_text else None

    @cached_property
    def unknown(self) -> int | None:
        """The token of what it cannot write; None where it writes everything, in bytes."""
        name = getattr(self._inner.model, "unk_token", None)
        found: int | None = None if name is None else self._inner.token_to_id(name)
        return found

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file that `save` writes."""
        return hashlib.sha256(self._content()).hexdigest()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, on all cores."""
        found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        for number in ids:
            self._piece(number)
        text: str = self._inner.decode([int(number) for number in ids], skip_special_tokens=False)
        return text

    def token(self, number: int) -> str:
        """Return one token as people read it: " good", "##ing"; half a letter as <0xE2>."""
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
        return "ByteLevel" in json.dumps(json.loads(self._inner.to_str())["decoder"])


@cache
def byte_of_letter() -> dict[str, int]:
    """Return printable letter -> byte, the table by which a byte-level BPE writes bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + rank): byte for rank, byte in enumerate(others)}


def load_tokenizer(path: Path, sha256: str | None = None) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, or of the folder that it is in."""
    library = optional_package("tokenizers", "language", f"Reading {path}")
    if path.is_dir():
        path = path / FILE_NAME
    size = check_regular_file(path, f"expected a {FILE_NAME}", DataError).st_size
    if size > LARGEST_FILE:
        raise DataError(f"{path}: is {size:,} bytes; at most {LARGEST_FILE:,} are read.")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise UsageError(WRONG_TOKENIZER.format(found=found[:12], expected=sha256[:12]))
    try:
        text = data.decode()
        check_ids(json.loads(text))
        inner = library.Tokenizer.from_str(text)
    except Exception as error:  # the library raises a bare Exception
        short = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a tokenizer.json ({short}): copy or train it again."
        ) from None
    try:
        return Tokenizer(inner)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def check_ids(content: Any) -> None:
    """Refuse tokens whose ids are not whole numbers from 0 to LARGEST_ID."""
    model, added = content["model"], content.get("added_tokens") or []
    vocab = model["vocab"]
    ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
    ids += [token["id"] for token in added]
    for number in ids:
        if type(number) is not int or not 0 <= number <= LARGEST_ID:
            raise DataError(f"a token has the id {number!r}; 0 to {LARGEST_ID:,} are known")


def check_tokenizer_fits(tokenizer: Tokenizer, vocab_size: int, sha256: str | None = None) -> None:
    """Refuse a tokenizer that does not belong to a model with vocab_size tokens."""
    largest = tokenizer.vocab_size * (1 + PADDING_SHARE)
    if not tokenizer.vocab_size <= vocab_size <= largest:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the model {vocab_size:,}; "
            "they do not belong together: pass the tokenizer.json that the model was trained with."
        )
    if sha256 is not None and tokenizer.sha256 != sha256:
        raise UsageError(WRONG_TOKENIZER.format(found=tokenizer.sha256[:12], expected=sha256[:12]))


@dataclass(frozen=True, eq=False)
class TokenBlocks:
    """Blocks of equal length, and what they were cut from."""

    tokens: Tensor  # (num_blocks, n_ctx) int64
    num_tokens: int  # of all documents, ends of text and what filled no block included


def pack_documents(tokenizer: Tokenizer, documents: Sequence[str], n_ctx: int) -> TokenBlocks:
    """Return documents, each followed by the end of text, joined and cut into whole blocks."""
    n_ctx = check_count("n_ctx", n_ctx, 2)
    parts = [torch.empty(0, dtype=torch.int64)]
    for start in range(0, len(documents), GROUP):
        encoded = tokenizer.encode_all(documents[start : start + GROUP])
        ids = chain.from_iterable((*ids, tokenizer.end_of_text) for ids in encoded)
        parts.append(torch.tensor(list(ids)))
    stream = torch.cat(parts)
    num_blocks = len(stream) // n_ctx
    if num_blocks == 0:
        raise DataError(
            f"{len(documents):,} documents have {len(stream):,} tokens together; at least one "
            f"block of {n_ctx} was expected: pass more text, or make the context shorter."
        )
    return TokenBlocks(stream[: num_blocks * n_ctx].view(num_blocks, n_ctx), len(stream))


def train_tokenizer(
    documents: Sequence[str], vocab_size: int | None, kind: TokenizerKind = "byte-bpe"
) -> Tokenizer:
    library = optional_package("tokenizers", "language", "Training a tokenizer")
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind of tokenizer: use one of {', '.join(KINDS)}.")
    if not any(document.strip() for document in documents):
        raise DataError("There is no text to train a tokenizer on: pass at least one document.")
    if vocab_size is None and kind != "word":
        raise UsageError(f"vocab_size is None, which only 'word' knows: say how many for {kind!r}.")
    smallest = {"byte-bpe": 257, "wordpiece-lower": 3, "word": 3, "numbers": 2}[kind]
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
    letters = library.pre_tokenizers.ByteLevel.alphabet()
    options = {"min_frequency": MIN_FREQUENCY, "initial_alphabet": letters}
    return learnt(inner, library.trainers.BpeTrainer, documents, size, [END_OF_TEXT], **options)


def learnt(
    inner: Any, kind: Any, documents: Sequence[str], size: int, special: list[str], **options: Any
) -> Any:
    """Return a tokenizer trained by a trainer of a kind."""
    told = {"vocab_size": size, "special_tokens": special, "show_progress": False}
    inner.train_from_iterator(documents, kind(**told, **options))
    return inner


def train_wordpiece_lower(library: Any, documents: Sequence[str], size: int) -> Any:
    """Return a lower-case WordPiece tokenizer."""
    inner = untrained_wordpiece(library, library.models.WordPiece(unk_token=UNKNOWN))
    words: set[str] = set()  # that the model is given
    for document in documents:
        text = inner.normalizer.normalize_str(document)
        words.update(word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text))
    letters = sorted(set("".join(words)))
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    special = [END_OF_TEXT, UNKNOWN, *letters, *inside]
    trainer = library.trainers.WordPieceTrainer
    inner = learnt(inner, trainer, documents, size, special, min_frequency=MIN_FREQUENCY)
    known = library.models.WordPiece(inner.get_vocab(), unk_token=UNKNOWN)
    result = untrained_wordpiece(library, known)
    result.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return result


def untrained_wordpiece(library: Any, model: Any) -> Any:
    """Return a tokenizer around a model: lower case, split at spaces and marks."""
    inner = library.Tokenizer(model)
    inner.normalizer = library.normalizers.Sequence(
        [library.normalizers.NFC(), library.normalizers.Lowercase()]
    )
    inner.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    inner.decoder = library.decoders.WordPiece()
    return inner


def train_words(library: Any, documents: Sequence[str], size: int) -> Any:
    inner = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
    words = library.Regex(WORDS)
    inner.pre_tokenizer = library.pre_tokenizers.Split(words, "removed", invert=True)
    inner.decoder = library.decoders.WordPiece()
    trainer = library.trainers.WordLevelTrainer
    return learnt(inner, trainer, documents, size, [END_OF_TEXT, UNKNOWN])


def number_tokenizer(library: Any, _documents: Sequence[str], size: int) -> Any:
    """Return a tokenizer of texts that are tokens, "5 17 3"; the last token is the end of text."""
    vocab = {str(number): number for number in range(size - 1)} | {END_OF_TEXT: size - 1}
    inner = library.Tokenizer(library.models.WordLevel(vocab, unk_token=END_OF_TEXT))
    inner.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    return inner


KINDS = {
    "byte-bpe": train_byte_bpe,
    "wordpiece-lower": train_wordpiece_lower,
    "word": train_words,
    "numbers": number_tokenizer,
}
