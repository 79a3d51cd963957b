"""`bilens audit` of many models, and its evidence: one index, one exit code, none stops the others.

Damage seen to fail: an index in the order of the command; the exit code of the last model; a model
that cannot be read ends the command.
"""

import gc
import json
import re
import runpy
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import tiny
from bilens.cli.commands import audit
from bilens.cli.commands.audit import distinct
from bilens.io.any_model import open_any
from bilens.io.load import LoadedModel
from bilens.report.evidence import DOCUMENT
from builders import randn
from commands import FILE, USAGE, Shell, assert_one_line, model_folder

FEW = ("--null-samples", 39)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with two models, one that cannot be read, and what is no model."""
    folder = tmp_path / "models"
    model_folder(folder / "a", tiny.classifier(n_layers=2))
    model_folder(folder / "b")
    broken = model_folder(folder / "c")
    (broken / "model.safetensors").write_bytes(b"damaged")
    (folder / "notes.txt").write_text("no model")
    return folder


def test_a_folder_of_models_is_one_index(bilens: Shell, models: Path, tmp_path: Path) -> None:
    index = tmp_path / "pages" / "index.html"
    result = bilens("audit", models, *FEW, "--html", index, "--fail-on", "r2<0.9", "--json")
    document = result.json()
    rows = document["models"]
    assert document["kind"] == "audit_index"
    assert [Path(row["model"]).name for row in rows] == ["c", "a", "b"] or [
        Path(row["model"]).name for row in rows
    ] == ["c", "b", "a"]
    assert rows[0]["outcome"] == "unread"
    assert "model.safetensors" in rows[0]["error"]
    assert rows[0]["audit"] is None
    assert result.code == max(row["exit_code"] for row in rows) == FILE
    assert "Model 2 of 3" in result.err
    listed = {one["name"]: one["state"] for one in document["files"]}
    assert listed == {
        **{f"{name}/model.safetensors": "read" for name in "ab"},
        **{f"{name}/{one}": "beside" for name in "abc" for one in ("config.json", "README.md")},
        "c/model.safetensors": "refused",
        "notes.txt": "no_model",
    }
    page = index.read_text("utf-8")
    assert re.findall(r'href="(\w+\.html)"', page) == [row["page"] for row in rows[1:]]
    for row in rows[1:]:
        text = (index.parent / row["page"]).read_text("utf-8")
        assert row["document_sha256"] in text
    assert not (index.parent / "c.html").exists()


def test_a_table_is_printed_and_the_exit_code_is_the_worst(bilens: Shell, models: Path) -> None:
    good = (models / "a", models / "b")
    result = bilens("audit", *good, *FEW, "--lang", "ja")
    assert result.code == 0
    assert "最大のリスク" in result.out
    assert bilens("audit", *good, *FEW, "--fail-on", "dead_units<1").code == 1
    assert bilens("audit", *good, models / "nothing", *FEW).code == FILE


def test_what_looks_like_a_model_is_a_row_and_an_interrupted_run_leaves_the_index(
    bilens: Shell, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "forest.joblib").write_bytes(b"x")
    index, read = tmp_path / "index.html", audit.read_and_judge

    def until_b(output: Any, source: Any, *more: Any) -> Any:
        if source.model.name == "forest.joblib":
            raise KeyboardInterrupt
        return read(output, source, *more)

    monkeypatch.setattr(audit, "read_and_judge", until_b)
    assert bilens("audit", models, *FEW, "--html", index).code == 130
    text = index.read_text("utf-8")
    assert [name in text for name in ("models/a", "models/b", "models/c", "models/forest")] == [
        *3 * [True],
        False,
    ]


def test_one_model_is_in_memory_at_a_time(
    bilens: Shell, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[LoadedModel]] = []

    def load_one(*given: Any, **options: Any) -> LoadedModel:
        gc.collect()
        assert [one() for one in seen] == len(seen) * [None]
        seen.append(weakref.ref(loaded := open_any(*given, **options)))
        return loaded

    monkeypatch.setattr("bilens.io.any_model.open_any", load_one)
    assert bilens("audit", *2 * (models / "a", models / "b"), *FEW).code == 0
    assert len(seen) == 4


def test_evidence_of_many_is_a_folder_each(bilens: Shell, models: Path, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    line = ("audit", models / "a", models / "b", *FEW, "--evidence", evidence)
    result = bilens(*line)
    assert result.code == 0
    assert f"Evidence: {evidence}" in result.out
    for name in "ab":
        document = json.loads((evidence / name / DOCUMENT).read_text())
        assert document["source"]["path"] == str(models / name)
    assert_one_line(bilens("-q", *line), USAGE, ["exists already", "--overwrite"])
    assert bilens(*line, "--overwrite").code == 0


def test_what_may_not_be_written_is_refused_before_any_work(
    bilens: Shell, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    words = ["Not a directory", "choose an output folder"]
    line = ("audit", models / "b", *FEW, "--evidence", tmp_path / "file")
    assert_one_line(bilens("-q", *line), FILE, words)
    assert_one_line(bilens("-q", *line[:1], models, *line[2:]), FILE, words)
    result = bilens("-q", "audit", models, *FEW, "--markdown", tmp_path / "a.md")
    assert_one_line(result, USAGE, ["--markdown is of one model"])


def test_options_of_the_reading_are_for_each_model_of_a_folder(
    bilens: Shell, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "index"):
        weights = {"0.weight": randn(6, 4), "2.weight": randn(3, 6)}
        save_file(weights, folder / f"{name}.safetensors")
    options = (*FEW, "--activation", "relu", "--no-transposed")
    index = tmp_path / "a.safetensors.html"  # the name that the page of a model would have
    result = bilens("audit", folder, *options, "--html", index, "--json")
    assert [row["outcome"] for row in result.json()["models"]].count("unread") == 0
    text = index.read_text("utf-8")
    assert re.findall(r'href="([\w.-]+\.html)"', text) == [
        row["page"] for row in result.json()["models"]
    ]
    assert index.name not in [row["page"] for row in result.json()["models"]]


def test_pages_have_names_of_their_own() -> None:
    paths = [Path("x/index"), Path("x/a"), Path("y/a"), Path("z/a.gguf"), Path("y/../x/a")]
    assert distinct(paths) == ["index-2", "a", "a-2", "a.gguf", "a-3"]


def signing(patch: pytest.MonkeyPatch, *arguments: object) -> int:
    """`model_signing ARGUMENTS`: its exit code."""
    patch.setattr(sys, "argv", ["model_signing", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("model_signing", run_name="__main__")
    return int(end.value.code or 0)


def test_model_and_evidence_are_signed_and_one_byte_is_noticed(
    bilens: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed")
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    assert bilens("audit", model, *FEW, "--evidence", model / "evidence").code == 0
    key = generate_private_key(SECP256R1())
    private, public, signature = (model.parent / name for name in ("key", "key.pub", "model.sig"))
    private.write_bytes(
        key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
    )
    sign = ("sign", "key", model, "--private_key", private, "--signature", signature)
    verify = ("verify", "key", model, "--public_key", public, "--signature", signature)
    assert signing(monkeypatch, *sign) == 0
    assert signing(monkeypatch, *verify) == 0
    for file in (model / "model.safetensors", model / "evidence" / "test-result.intoto.json"):
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
        assert signing(monkeypatch, *verify) != 0
        content[-2] ^= 1
        file.write_bytes(content)
    assert signing(monkeypatch, *verify) == 0


def test_a_model_that_needs_more_words_says_the_command(bilens: Shell, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file(
            {"0.weight": randn(6, 4), "2.weight": randn(3, 6)}, tmp_path / f"{name}.safetensors"
        )
    result = bilens("audit", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "Or audit it with --activation ACTIVATION" in result.err
    assert "bl.load" not in result.err
