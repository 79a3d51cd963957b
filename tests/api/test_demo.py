"""The demo: all its files or none, and an earlier one stays until the new one is whole."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import tiny
from bilens.api import train as demo_module
from bilens.api.train import DEMO_RECIPE, run_demo
from bilens.base.errors import DiskError, InterruptedRunError, OutputExistsError
from bilens.base.files import file_sha256
from bilens.io.load import load
from bilens.report.reports import AuditReport

FILES = {
    "config.json",
    "model.safetensors",
    "README.md",
    "run.json",
    "history.jsonl",
    "report.html",
    "report.json",
    "eigenvectors.svg",
}


def run(folder: Path, **options: Any) -> AuditReport:
    options = {"recipe": tiny.RECIPE, "null_samples": tiny.ROTATIONS, **options}
    return run_demo(folder, tiny.images(), **options)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that was made once; tests take a copy."""
    folder = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    run(folder)
    return folder


@pytest.fixture
def folder(earlier: Path, tmp_path: Path) -> Path:
    """A folder with an earlier demo in it."""
    return Path(shutil.copytree(earlier, tmp_path / "demo"))


def test_a_demo_leaves_model_report_and_plate(earlier: Path) -> None:
    assert {item.name for item in earlier.iterdir()} == FILES
    assert [item.name for item in earlier.parent.iterdir()] == ["demo"]
    model = load(earlier)
    report = json.loads((earlier / "report.json").read_text())
    assert report["source"]["weights_sha256"] == model.weights_sha256
    assert report["source"]["path"] == str(earlier)  # and not the folder it was made in
    assert report["source"]["files"]["model.safetensors"] == model.weights_sha256
    assert report["performance"]["classification"]["accuracy"]["total"] == tiny.NUM_TEST
    assert "</html>" in (earlier / "report.html").read_text()
    assert (earlier / "eigenvectors.svg").read_text().startswith("<svg")
    assert (earlier.stat().st_mode & 0o777) == 0o755  # not the private mode of a temporary folder


def test_the_page_is_in_the_language_asked_for(tmp_path: Path) -> None:
    run(tmp_path / "demo", lang="ja")
    assert 'lang="ja"' in (tmp_path / "demo" / "report.html").read_text()


def test_an_earlier_demo_is_replaced(folder: Path) -> None:
    before = snapshot(folder)
    said: list[str] = []
    run(folder, recipe=dataclasses.replace(tiny.RECIPE, seed=1), say=said.append)
    assert said[0] == f"{folder} holds an earlier demo: it is replaced when this one is done."
    assert set(snapshot(folder)) == FILES
    assert snapshot(folder)["model.safetensors"] != before["model.safetensors"]
    files = json.loads(snapshot(folder)["report.json"])["source"]["files"]
    assert files["model.safetensors"] == file_sha256(folder / "model.safetensors")
    assert [item.name for item in folder.parent.iterdir()] == ["demo"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    run(tmp_path / "demo")
    assert {item.name for item in (tmp_path / "demo").iterdir()} == FILES


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["a folder", "a file"])
def test_what_is_not_ours_is_never_replaced(kind: str, overwrite: bool, tmp_path: Path) -> None:
    target = tmp_path / "work"
    if kind == "a folder":
        target.mkdir()
        (target / "thesis.tex").write_text("years of work")
    else:
        target.write_text("years of work")
    with pytest.raises(OutputExistsError, match=str(target)) as caught:
        run(target, overwrite=overwrite)
    assert "thesis.tex" in str(caught.value) or "is a file" in str(caught.value)
    kept = target / "thesis.tex" if kind == "a folder" else target
    assert kept.read_text() == "years of work"
    assert [item.name for item in tmp_path.iterdir()] == ["work"]


def test_a_demo_with_other_files_beside_it_is_replaced_only_when_told(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"\(notes.txt\): .*replace all of it with --over"):
        run(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    run(folder, overwrite=True)
    assert {item.name for item in folder.iterdir()} == FILES


def fail_in_training(_metrics: object) -> None:
    raise ZeroDivisionError


def fail_in_audit(_stage: str, _done: int, _total: int) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("options", [{"on_epoch": fail_in_training}, {"progress": fail_in_audit}])
def test_a_failure_leaves_the_earlier_demo_and_nothing_else(
    options: dict[str, Any], folder: Path
) -> None:
    before = snapshot(folder)
    with pytest.raises(ZeroDivisionError):
        run(folder, **options)
    assert snapshot(folder) == before
    assert [item.name for item in folder.parent.iterdir()] == ["demo"]


def test_a_full_disk_at_the_last_file_leaves_the_earlier_demo(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _data: bytes) -> None:
        raise DiskError(f"{path}: cannot be written")

    before = snapshot(folder)
    monkeypatch.setattr(demo_module, "write_file", full)
    with pytest.raises(DiskError):
        run(folder)
    assert snapshot(folder) == before
    assert [item.name for item in folder.parent.iterdir()] == ["demo"]


def test_ctrl_c_leaves_the_earlier_demo_and_does_not_offer_to_resume(folder: Path) -> None:
    before = snapshot(folder)
    with pytest.raises(InterruptedRunError, match="as it was before") as caught:
        run(folder, on_epoch=lambda _metrics: signal.raise_signal(signal.SIGINT))
    assert "--resume" not in str(caught.value)
    assert snapshot(folder) == before
    assert [item.name for item in folder.parent.iterdir()] == ["demo"]


def test_the_recipe_of_the_demo_is_one() -> None:
    assert DEMO_RECIPE.parsed_augmentations()
    assert DEMO_RECIPE.batch_size <= 4000  # the digits that it is trained on
