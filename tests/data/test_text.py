"""How documents are told apart, and a corpus of them in two parts that share none."""

import json
import logging
import os
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import datasets
import pytest

from bilens.base.errors import DataError, MissingExtraError, UsageError
from bilens.data import text as module
from bilens.data.text import (
    CleanText,
    TextCorpus,
    TextDocument,
    clean,
    load_text,
    read_documents,
    read_hub,
    read_table,
)
from raising import raising


def documents(path: Path, content: bytes | str) -> list[TextDocument]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents(path))


def texts(path: Path, content: bytes | str) -> list[str]:
    return [text for text, _ in documents(path, content)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "corpus.txt"


def test_a_file_with_the_mark_is_split_at_it_and_at_nothing_else(file: Path) -> None:
    found = documents(file, "one\n\nstill one<|endoftext|>\ntwo\n<|endoftext|>\n")
    assert found == [("one\n\nstill one", True), ("\ntwo\n", True), ("\n", False)]


def test_what_follows_the_last_mark_is_not_whole(file: Path) -> None:
    assert documents(file, "one<|endoftext|>tw")[-1] == ("tw", False)


@pytest.mark.parametrize("gap", ["\n\n", "\n\n\n\n", "\r\n\r\n", "\n \t\n"])
def test_any_other_file_is_split_at_blank_lines(file: Path, gap: str) -> None:
    assert texts(file, f"one\nstill one{gap}two") == ["one\nstill one", "two"]


def test_a_byte_order_mark_is_no_text(file: Path) -> None:
    assert texts(file, b"\xef\xbb\xbfone\n\ntwo") == ["one", "two"]


def test_a_folder_has_one_document_a_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name, content in {
        "b.txt": "two\n\nstill two",
        "a.txt": "one",
        "inner/c.txt": "three<|endoftext|>four<|endoftext|>",
        "notes.md": "no document",
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    found = [text for text, _ in read_documents(tmp_path)]
    assert found == ["one", "two\n\nstill two", "three", "four", ""]


@pytest.mark.parametrize("before", ["", "ä\n\n" * 3, "é<|endoftext|>"])
def test_bytes_that_are_not_utf_8_are_named_by_their_offset(file: Path, before: str) -> None:
    start = len(before.encode())
    with pytest.raises(DataError, match=rf"is not UTF-8: byte {start + 4:,} is 0xe9 .*iconv"):
        documents(file, before.encode() + b"caf \xe9 au lait")


def test_a_letter_cut_in_half_at_the_end_is_not_utf_8(file: Path) -> None:
    with pytest.raises(DataError, match="byte 3 is 0xc3"):
        documents(file, b"caf\xc3")


def test_only_as_much_is_read_as_is_asked_for(file: Path) -> None:
    file.write_bytes(b"one\n\ntwo\n\n\xff")
    reader = read_documents(file)
    assert [next(reader).text, next(reader).text] == ["one", "two"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt: no such file; expected a text file"):
        list(read_documents(tmp_path / "none.txt"))


def test_an_empty_file_is_named(file: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.txt: is empty"):
        documents(file, b"")


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no \.txt file; a folder of text files"):
        list(read_documents(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(file: Path) -> None:
    file.write_text("text", encoding="utf-8")
    file.chmod(0)
    with pytest.raises(DataError, match=r"cannot be read .*check its permissions"):
        list(read_documents(file))


Loader = Callable[..., Any]


def table(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def column_texts(path: Path, column: str | None = None) -> list[str]:
    return [document.text for document in read_table(path, column)]


def test_json_lines_are_read_by_their_text(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", {"id": 1, "text": "one"}, {"id": 2, "text": "two\n\nlines"})
    assert column_texts(path) == ["one", "two\n\nlines"]


def test_tables_of_other_formats_are_read(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"story": ["one", "two, or more"]})
    rows.to_csv(tmp_path / "a.csv")
    rows.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        assert column_texts(tmp_path / name) == ["one", "two, or more"]


def test_a_column_can_be_chosen(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", {"text": "one", "summary": "short"})
    assert column_texts(path, "summary") == ["short"]


def test_where_two_columns_are_text_one_has_to_be_chosen(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", {"story": "one", "summary": "short"})
    with pytest.raises(UsageError, match=r"2 columns of text \(story, summary\).*--column"):
        column_texts(path)


def test_a_column_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", {"text": "one", "id": 1})
    with pytest.raises(UsageError, match="has no column 'txt': choose one of 'text', 'id'"):
        column_texts(path, "txt")


def test_a_column_of_numbers_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", {"text": "one", "id": 1})
    with pytest.raises(DataError, match="a row whose 'id' is a int; text was expected"):
        column_texts(path, "id")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": ', encoding="utf-8")
    logged = Recorder()
    logging.getLogger("datasets").addHandler(logged)
    with pytest.raises(DataError, match=r"a\.jsonl cannot be read \(.*check the file"):
        column_texts(path)
    logging.getLogger("datasets").removeHandler(logged)
    assert logged.messages == []  # one error, and nothing beside it


class Recorder(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def test_an_empty_cell_is_a_document_without_text(tmp_path: Path) -> None:
    """`clean` leaves it out, as it does an empty one; one such cell does not spoil a table."""
    path = table(tmp_path / "a.jsonl", {"text": None}, {"text": "one"}, {"text": ""})
    assert column_texts(path) == ["", "one", ""]
    (tmp_path / "a.csv").write_text('text\n"a b"\n""\n"c d"\n')
    assert column_texts(tmp_path / "a.csv") == ["a b", "", "c d"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Loader], list[Any]]:
    """Put another `load_dataset` in the library's place; what it was called with is returned."""

    def replace(load: Loader) -> list[Any]:
        calls: list[Any] = []

        def recorded(*args: Any, **kwargs: Any) -> Any:
            calls.append((args, kwargs))
            return load(*args, **kwargs)

        monkeypatch.setattr(datasets, "load_dataset", recorded)
        monkeypatch.setattr(module, "is_reachable", lambda *_, **__: True)
        return calls

    return replace


@pytest.mark.parametrize("stream", [False, True])
def test_a_data_set_of_the_hub_is_asked_for_as_the_library_expects(
    hub: Callable[[Loader], list[Any]], stream: bool
) -> None:
    calls = hub(lambda *_, **__: datasets.Dataset.from_dict({"text": ["one", "two"]}))
    found = [text for text, _ in read_hub("owner/name:part", "validation", None, stream)]
    assert found == ["one", "two"]
    assert calls == [
        (("owner/name",), {"name": "part", "split": "validation", "streaming": stream})
    ]


def test_rows_are_read_as_they_come(hub: Callable[[Loader], list[Any]]) -> None:
    seen = []

    def rows() -> Iterator[dict[str, str]]:
        for index in range(1000):
            seen.append(index)
            yield {"text": str(index)}

    hub(lambda *_, **__: datasets.IterableDataset.from_generator(rows))
    reader = read_hub("owner/name", "train", None, stream=True)
    assert [next(reader).text for _ in range(3)] == ["0", "1", "2"]
    assert len(seen) < 10


def test_a_data_set_that_cannot_be_had_is_named_with_the_reason(
    hub: Callable[[Loader], list[Any]],
) -> None:
    hub(raising(ConnectionError("Couldn't reach\n the Hub")))
    with pytest.raises(
        DataError,
        match=r"owner/none cannot be read \(ConnectionError: Couldn't reach the Hub\): check the "
        "name, the configuration and the split, or pass a text file",
    ):
        list(read_hub("owner/none", "train", None, stream=False))


def test_without_a_network_the_library_is_not_left_to_try_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", raising(URLError("the tests have no network")))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"owner/none was not read: https://\S+ gave no answer"):
        list(read_hub("owner/none", "train", None, stream=True))


def test_what_the_library_has_in_its_cache_is_read_without_a_network(
    hub: Callable[[Loader], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(lambda *_, **__: datasets.Dataset.from_dict({"text": ["one"]}))
    monkeypatch.setattr(module, "is_reachable", lambda *_, **__: False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert list(read_hub("owner/name", "train", None, stream=False)) == [("one", True)]


def test_a_connection_that_breaks_off_is_an_error_of_the_data(
    hub: Callable[[Loader], list[Any]],
) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise TimeoutError("no answer")

    hub(lambda *_, **__: rows())
    reader = read_hub("owner/name", "train", None, stream=True)
    assert next(reader).text == "one"
    with pytest.raises(DataError, match=r"owner/name cannot be read \(TimeoutError: no answer\)"):
        next(reader)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bilens\[language\]'"):
        list(read_hub("owner/name", "train", None, stream=False))


LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAMPLE = Path(
    os.environ.get("BILENS_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data",
    "text/tinystories_sample.txt",
)


def separated(path: Path, *texts: str) -> Path:
    path.write_text("".join(f"{text}\n<|endoftext|>\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    return separated(tmp_path / "letters.txt", *LETTERS)


def test_every_document_is_in_one_of_the_two_parts_in_its_order(letters: Path) -> None:
    corpus = load_text(letters, held_out=0.25)
    assert len(corpus.held_out) == round(0.25 * 26)
    assert set(corpus.documents) | set(corpus.held_out) == set(LETTERS)
    assert not set(corpus.documents) & set(corpus.held_out)
    for part in (corpus.documents, corpus.held_out):
        assert list(part) == sorted(part)


def test_the_seed_chooses_what_is_held_out_and_nothing_else_does(tmp_path: Path) -> None:
    letters = separated(tmp_path / "a.txt", *LETTERS)
    turned = separated(tmp_path / "b.txt", *reversed(LETTERS))
    assert set(load_text(letters).held_out) == set(load_text(turned).held_out)
    assert len({load_text(letters, held_out=0.25, seed=seed).held_out for seed in range(5)}) == 5


def test_what_was_trained_on_is_not_held_out_when_a_corpus_grows(tmp_path: Path) -> None:
    """Adding documents never brings one back from training, at an equal number held out."""
    small = load_text(separated(tmp_path / "a.txt", *LETTERS[:20]), held_out=0.25)
    large = load_text(separated(tmp_path / "b.txt", *LETTERS[:25]), held_out=0.2)
    assert len(small.held_out) == len(large.held_out) == 5
    assert not set(small.documents) & set(large.held_out)


@pytest.mark.parametrize("share", [1e-9, 0.999])
def test_neither_part_is_ever_empty(letters: Path, share: float) -> None:
    corpus = load_text(letters, held_out=share)
    assert {len(corpus.documents), len(corpus.held_out)} == {1, 25}


def test_the_fingerprint_is_that_of_the_texts_and_their_parts() -> None:
    corpus = TextCorpus(("a", "b"), ("c",), "name", "source")
    assert corpus.fingerprint == replace(corpus, name="other", source="other").fingerprint
    others = [("ab",), ("b", "a"), ("a", "b", "c"), ("a",)]
    prints = {replace(corpus, documents=one).fingerprint for one in others}
    assert len(prints | {corpus.fingerprint}) == 5


def test_the_source_says_where_from_and_what_was_left_out(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "tales.txt"
    path.write_text("a<|endoftext|>b<|endoftext|>a<|endoftext|>c", encoding="utf-8")
    corpus = load_text(path, report=lines.append)
    assert corpus.name == "tales"
    assert corpus.source == f"the file {path}: 2 documents (without 1 cut, 1 duplicate)"
    assert lines == [corpus.source]


def test_a_limit_is_the_number_of_documents_read(letters: Path) -> None:
    corpus = load_text(str(letters), limit=10)
    assert sorted(corpus.documents + corpus.held_out) == list(LETTERS[:10])


def test_a_folder_is_a_corpus(tmp_path: Path) -> None:
    for letter in LETTERS:
        (tmp_path / f"{letter}.txt").write_text(letter, encoding="utf-8")
    assert len(load_text(tmp_path).documents) == 25


def test_a_table_is_a_corpus(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": list(LETTERS), "title": ["same"] * 26})
    rows.to_parquet(tmp_path / "a.parquet")
    assert len(load_text(tmp_path / "a.parquet", column="text").documents) == 25


def test_the_grammar_is_a_corpus() -> None:
    corpus = load_text("grammar", limit=200, seed=3)
    assert (len(corpus.documents), len(corpus.held_out)) == (190, 10)
    assert corpus.source == "the story grammar, seed 3: 200 documents"
    assert corpus.fingerprint == load_text("grammar", limit=200, seed=3).fingerprint
    assert corpus.fingerprint != load_text("grammar", limit=200, seed=4).fingerprint


@pytest.mark.parametrize("stream", [False, True])
def test_a_data_set_of_the_hub_is_a_corpus(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    def load(place: str, *, split: str, streaming: bool, **_: object) -> Any:
        assert (place, split, streaming) == ("owner/tales", "test", stream)
        rows = datasets.Dataset.from_dict({"text": list(LETTERS)})
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(module, "is_reachable", lambda *_, **__: True)
    corpus = load_text("owner/tales", split="test", stream=stream, limit=20)
    assert len(corpus.documents) == 19
    assert corpus.source == "the Hugging Face data set owner/tales, split test: 20 documents"


def test_a_data_set_that_cannot_be_reached_is_an_error_of_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "is_reachable", lambda *_, **__: False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"owner/tales was not read: .* gave no answer within 6 s"):
        load_text("owner/tales")


@pytest.mark.parametrize("corpus", ["no/such/file", "tales", "a/b.txt", Path("owner/tales"), ""])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(corpus: str | Path) -> None:
    with pytest.raises(DataError, match="does not exist; a text file, a folder of"):
        load_text(corpus)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"held_out": 0.0}, "held_out must be more than 0 and less than 1, got 0.0"),
        ({"held_out": 1}, "held_out must be more than 0 and less than 1, got 1"),
        ({"held_out": float("nan")}, "held_out must be more than 0"),
        ({"limit": 1}, "limit must be an integer of at least 2, got 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"stream": True}, "stream is set without a limit"),
        ({"stream": True, "limit": 5}, "stream and split are for Hugging Face data sets"),
        ({"split": "test"}, "stream and split are for Hugging Face data sets"),
        ({"column": "text"}, "has no columns: leave out column='text'"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(
    letters: Path, arguments: dict[str, Any], problem: str
) -> None:
    for corpus in (letters, "grammar"):
        with pytest.raises(UsageError, match=problem):
            load_text(corpus, **arguments)


@pytest.mark.parametrize("content", ["", "\n \n\n", "one story alone", "a<|endoftext|>b"])
def test_a_corpus_of_fewer_than_two_documents_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tiny.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        DataError, match=r"tiny\.txt(: [01] documents?.* at least 2 were expected|: is empty)"
    ):
        load_text(path)


@pytest.mark.skipif(
    not SAMPLE.is_file(), reason=f"no {SAMPLE}: set BILENS_TEST_DATA to the folder that has text/"
)
def test_the_sample_of_tinystories_has_no_duplicates_and_one_cut_story() -> None:
    corpus = load_text(SAMPLE)
    assert corpus.source.endswith("1,727 documents (without 1 cut)")
    assert (len(corpus.documents), len(corpus.held_out)) == (1641, 86)
    assert max(map(len, corpus.documents)) < 10_000


def cleaned(*texts: str) -> CleanText:
    return clean(TextDocument(text) for text in texts)


def test_each_text_is_kept_once_where_it_came_first() -> None:
    result = cleaned("b", "a", "  b\n", "c", "a")
    assert result.documents == ("b", "a", "c")
    assert result.left_out == {"duplicate": 2}


def test_line_ends_make_no_difference() -> None:
    assert cleaned("one\r\ntwo", "one\ntwo", "one\rtwo").documents == ("one\ntwo",)


def test_empty_documents_are_not_counted_at_all() -> None:
    assert cleaned("", " \n\t", "a") == CleanText(("a",), Counter())


def test_a_document_whose_end_is_missing_is_left_out() -> None:
    result = clean([TextDocument("whole"), TextDocument("hal", is_whole=False)])
    assert (result.documents, result.left_out) == (("whole",), {"cut": 1})


@pytest.mark.parametrize(
    "text",
    [
        "He said \u00e2\u20ac\u0153hi",  # “ as UTF-8 read as Windows-1252
        "caf\u00c3\u00a9",
        "20 \u00c2\u00b0C",
        "a \ufffd b",
        "bell \x07",
        "nul \x00",
        "next \x85 line",
        "one <|endoftext|> two",
    ],
)
def test_a_corrupted_document_is_left_out(text: str) -> None:
    assert cleaned(text, "good") == CleanText(("good",), Counter(corrupted=1))


@pytest.mark.parametrize(
    "text",
    [
        "café, naïve",
        "SÃO PAULO",
        "“quoted” — ‘so’ …",
        "a\tb\nc",
        "日本語",
        "Â, said the sailor",
        "🙂",
    ],
)
def test_text_of_other_languages_is_not_corrupted(text: str) -> None:
    assert cleaned(text).documents == (text,)


def test_the_description_names_only_what_was_left_out() -> None:
    assert cleaned("a", "b").describe() == "2 documents"
    mixed = [
        TextDocument("a"),
        TextDocument("a"),
        TextDocument("\x07"),
        TextDocument("b", is_whole=False),
    ]
    assert clean(mixed).describe() == "1 document (without 1 cut, 1 duplicate, 1 corrupted)"
