"""Cleaning keeps whole documents, each one once, and says how many it left out.

Broken once: `is_whole` not looked at, and the texts compared before their ends were stripped; the
tests of the cut document and of the duplicates failed.
"""

from __future__ import annotations

import pytest

from bilens.data.text_cleaning import CleanText, Document, clean


def cleaned(*texts: str) -> CleanText:
    return clean(Document(text) for text in texts)


def test_each_text_is_kept_once_where_it_came_first() -> None:
    result = cleaned("b", "a", "  b\n", "c", "a")
    assert result.documents == ("b", "a", "c")
    assert result.num_duplicates == 2


def test_line_ends_make_no_difference() -> None:
    assert cleaned("one\r\ntwo", "one\ntwo", "one\rtwo").documents == ("one\ntwo",)


def test_empty_documents_are_not_counted_at_all() -> None:
    assert cleaned("", " \n\t", "a") == CleanText(("a",), 0, 0, 0)


def test_a_document_whose_end_is_missing_is_left_out() -> None:
    result = clean([Document("whole"), Document("hal", is_whole=False)])
    assert (result.documents, result.num_cut) == (("whole",), 1)


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
    assert cleaned(text, "good") == CleanText(("good",), 0, 0, 1)


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
    mixed = [Document("a"), Document("a"), Document("\x07"), Document("b", is_whole=False)]
    assert clean(mixed).describe() == "1 document (without 1 cut, 1 duplicate, 1 corrupted)"
