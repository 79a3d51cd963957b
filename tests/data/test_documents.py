"""How documents are told apart in files and folders, and files that have none."""

import json
import logging
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import datasets
import pytest

from bilens.base.errors import DataError, MissingExtraError, UsageError
from bilens.data import text as module
from bilens.data.text import Document, read_documents, read_hub, read_table


def documents(path: Path, content: bytes | str) -> list[Document]:
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


Load = Callable[..., Any]


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
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Load], list[Any]]:
    """Put another `load_dataset` in the library's place; what it was called with is returned."""

    def replace(load: Load) -> list[Any]:
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
    hub: Callable[[Load], list[Any]], stream: bool
) -> None:
    calls = hub(lambda *_, **__: datasets.Dataset.from_dict({"text": ["one", "two"]}))
    found = [text for text, _ in read_hub("owner/name:part", "validation", None, stream)]
    assert found == ["one", "two"]
    assert calls == [
        (("owner/name",), {"name": "part", "split": "validation", "streaming": stream})
    ]


def test_rows_are_read_as_they_come(hub: Callable[[Load], list[Any]]) -> None:
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
    hub: Callable[[Load], list[Any]],
) -> None:
    def load(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach\n the Hub")

    hub(load)
    with pytest.raises(
        DataError,
        match=r"owner/none cannot be read \(ConnectionError: Couldn't reach the Hub\): check the "
        "name, the configuration and the split, or pass a text file",
    ):
        list(read_hub("owner/none", "train", None, stream=False))


def test_without_a_network_the_library_is_not_left_to_try_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("the tests have no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"owner/none was not read: https://\S+ gave no answer"):
        list(read_hub("owner/none", "train", None, stream=True))


def test_what_the_library_has_in_its_cache_is_read_without_a_network(
    hub: Callable[[Load], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(lambda *_, **__: datasets.Dataset.from_dict({"text": ["one"]}))
    monkeypatch.setattr(module, "is_reachable", lambda *_, **__: False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert list(read_hub("owner/name", "train", None, stream=False)) == [("one", True)]


def test_a_connection_that_breaks_off_is_an_error_of_the_data(
    hub: Callable[[Load], list[Any]],
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
