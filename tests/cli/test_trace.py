"""`bilens trace`: the result on stdout, one line for each mistake, pages and graphs where asked."""

import json
from pathlib import Path
from typing import Any

import pytest

import traced_models
from commands import Shell

QUICK = ["--pairs", 4, "--features", 3, "--top", 4, "--tokens", 400]
Folders = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return traced_models.write_all(tmp_path_factory.mktemp("traced"))


def line(folders: Folders, *more: Any) -> list[Any]:
    saes = ["--input-sae", folders[1], "--output-sae", folders[2]]
    return ["--quiet", "trace", folders[0], "--layer", 0, *saes, *QUICK, *more]


def test_json_is_one_document_on_stdout(bilens: Shell, folders: Folders) -> None:
    result = bilens(*line(folders, "--json", "--latent", 3, "--seed", 7))
    assert (result.code, result.err) == (0, "")
    document = result.json()
    assert (document["schema_version"], document["kind"], document["seed"]) == (1, "trace", 7)
    assert [circuit["latent"] for circuit in document["circuits"]] == [3]
    assert document["reproduce"]["command"].startswith("bilens --quiet trace ")


def test_tables_pages_and_graphs_are_written_where_asked(
    bilens: Shell, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    page, graphs = tmp_path / "trace.html", tmp_path / "graphs"
    asked = ["--html", page, "--lang", "ja", "--graph", graphs, "--outputs", 2]
    result = bilens(*line(folders, *asked))
    assert result.code == 0
    table, _, _ = result.out.partition("Report: ")
    assert max(map(len, table.splitlines())) <= 100
    assert "…" not in table
    assert "正規化平均2乗誤差（誤差と長さの2乗の比）" in table
    assert "最大のλ" in table
    assert 'lang="ja"' in page.read_text()
    files = sorted(graphs.iterdir())
    assert [f"Graph: {file}" for file in files] == sorted(result.out.splitlines()[-2:])
    assert all(json.loads(file.read_text())["nodes"] for file in files)
    for repeated in (["--html", page], ["--graph", graphs]):
        refused = bilens(*line(folders, *repeated))
        assert refused.code == 2
        assert "--overwrite" in refused.error()
    assert bilens(*line(folders, *asked, "--overwrite")).code == 0


def test_without_autoencoders_directions_are_tokens(bilens: Shell, folders: Folders) -> None:
    model = ["--quiet", "trace", folders[0], "--layer", 0]
    result = bilens(*model, "--outputs", 2)
    assert result.code == 0
    assert "σ2 " in result.out
    result = bilens(*model, "--toward", "sad")
    assert result.code == 0
    assert "sad" in result.out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--column", "text"], 2, "--column: only with --corpus"),
        (["--corpus", "nowhere.txt"], 3, "does not exist"),
        (["--input-sae", "nowhere"], 3, "no such file or folder"),
    ],
)
def test_each_mistake_is_one_clear_line(
    options: list[Any], code: int, words: str, bilens: Shell, folders: Folders
) -> None:
    result = bilens(*line(folders, *options))
    assert result.code == code
    assert words in result.error()
    assert result.out == ""


def test_outputs_that_cannot_be_written_are_refused_first(
    bilens: Shell, folders: Folders, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for options, words in ((["--graph", file], "is a file"), (["--html", tmp_path], "is a folder")):
        result = bilens(*line(folders, *options))
        assert result.code in (2, 3)
        assert words in result.error()


def test_graphs_without_autoencoders_are_refused(
    bilens: Shell, folders: Folders, tmp_path: Path
) -> None:
    result = bilens("--quiet", "trace", folders[0], "--layer", 0, "--graph", tmp_path / "graphs")
    assert result.code == 2
    assert "only with autoencoders (--input-sae, --output-sae)" in result.error()


def test_a_gated_layer_is_refused(bilens: Shell, tmp_path: Path) -> None:
    gated = traced_models.write_model(tmp_path / "gated", gate="relu")
    result = bilens("--quiet", "trace", gated, "--layer", 0)
    assert result.code == 3
    assert "relu" in result.error()
