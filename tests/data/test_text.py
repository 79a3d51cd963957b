"""A corpus comes from files, the grammar or the hub, in two parts that share no document."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from bilens.base.errors import DataError, UsageError
from bilens.data import text as documents
from bilens.data.text import CleanText, Document, TextCorpus, clean, load_text

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAMPLE = Path(
    os.environ.get("BILENS_TEST_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data",
    "text/tinystories_sample.txt",
)


def separated(path: Path, *texts: str) -> Path:
    path.write_text("".join(f"{text}\n<|endoftext|>\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return separated(tmp_path / "letters.txt", *LETTERS)


def test_every_document_is_in_one_of_the_two_parts_in_its_order(file: Path) -> None:
    corpus = load_text(file, held_out=0.25)
    assert len(corpus.held_out) == round(0.25 * 26)
    assert set(corpus.documents) | set(corpus.held_out) == set(LETTERS)
    assert not set(corpus.documents) & set(corpus.held_out)
    for part in (corpus.documents, corpus.held_out):
        assert list(part) == sorted(part)


def test_the_seed_chooses_what_is_held_out_and_nothing_else_does(tmp_path: Path) -> None:
    file = separated(tmp_path / "a.txt", *LETTERS)
    turned = separated(tmp_path / "b.txt", *reversed(LETTERS))
    assert set(load_text(file).held_out) == set(load_text(turned).held_out)
    assert len({load_text(file, held_out=0.25, seed=seed).held_out for seed in range(5)}) == 5


def test_what_was_trained_on_is_not_held_out_when_a_corpus_grows(tmp_path: Path) -> None:
    """Adding documents never brings one back from training, at an equal number held out."""
    small = load_text(separated(tmp_path / "a.txt", *LETTERS[:20]), held_out=0.25)
    large = load_text(separated(tmp_path / "b.txt", *LETTERS[:25]), held_out=0.2)
    assert len(small.held_out) == len(large.held_out) == 5
    assert not set(small.documents) & set(large.held_out)


@pytest.mark.parametrize("share", [1e-9, 0.999])
def test_neither_part_is_ever_empty(file: Path, share: float) -> None:
    corpus = load_text(file, held_out=share)
    assert {len(corpus.documents), len(corpus.held_out)} == {1, 25}


def test_the_fingerprint_is_that_of_the_texts_and_their_parts() -> None:
    corpus = TextCorpus(("a", "b"), ("c",), "name", "source")
    assert corpus.fingerprint == replace(corpus, name="other", source="other").fingerprint
    others = [("ab",), ("b", "a"), ("a", "b", "c"), ("a",)]
    prints = {replace(corpus, documents=documents).fingerprint for documents in others}
    assert len(prints | {corpus.fingerprint}) == 5


def test_the_source_says_where_from_and_what_was_left_out(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "tales.txt"
    path.write_text("a<|endoftext|>b<|endoftext|>a<|endoftext|>c", encoding="utf-8")
    corpus = load_text(path, report=lines.append)
    assert corpus.name == "tales"
    assert corpus.source == f"the file {path}: 2 documents (without 1 cut, 1 duplicate)"
    assert lines == [corpus.source]


def test_a_limit_is_the_number_of_documents_read(file: Path) -> None:
    corpus = load_text(str(file), limit=10)
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
    monkeypatch.setattr(documents, "is_reachable", lambda *_, **__: True)
    corpus = load_text("owner/tales", split="test", stream=stream, limit=20)
    assert len(corpus.documents) == 19
    assert corpus.source == "the Hugging Face data set owner/tales, split test: 20 documents"


def test_a_data_set_that_cannot_be_reached_is_an_error_of_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "is_reachable", lambda *_, **__: False)
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
    file: Path, arguments: dict[str, Any], problem: str
) -> None:
    for corpus in (file, "grammar"):
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
