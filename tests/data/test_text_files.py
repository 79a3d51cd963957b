"""How documents are told apart in files and folders, and what is wrong with a file that has none.

Broken once: the offset of a bad byte counted from the document instead of the file, and the last
piece of a separated file called whole; the tests of both failed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bilens.base.errors import DataError
from bilens.data.text_cleaning import Document
from bilens.data.text_files import read_documents


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
    with pytest.raises(DataError, match=r"none\.txt does not exist; a text file was expected"):
        list(read_documents(tmp_path / "none.txt"))


def test_an_empty_file_is_named(file: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.txt is empty; text was expected"):
        documents(file, b"")


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no \.txt file; a folder of text files"):
        list(read_documents(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is not a file"):
        list(read_documents(tmp_path / "pipe"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(file: Path) -> None:
    file.write_text("text", encoding="utf-8")
    file.chmod(0)
    with pytest.raises(DataError, match=r"cannot be read .*check its permissions"):
        list(read_documents(file))
