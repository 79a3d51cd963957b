"""Running a study: each cell once, whatever happens in between; other options are refused."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

import tiny
from bilens.base.errors import (
    CheckpointError,
    DataError,
    InterruptedRunError,
    NumericalError,
    OutputExistsError,
    UsageError,
)
from bilens.base.files import file_sha256
from bilens_studies import study as study_module, study_folder
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions
from bilens_studies.study_folder import run_study
from bilens_studies.study_list import all_studies, find_studies


class Squares(Study):
    """A study of three numbers; it can be made to fail at one of them."""

    name, title = "test/squares", "Squares"
    uses, needs = frozenset({"seeds", "corpus"}), frozenset({"seeds"})

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.fault: Exception | None = None

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        assert options.seeds is not None

        def measure(number: int) -> Measure:
            def square(context: CellContext) -> Record:
                if number == 1 and self.fault is not None:
                    raise self.fault
                self.measured.append(context.folder.name)
                return {"value": number**2, "before": sorted(context.done)}

            return square

        return {f"square-{number}": measure(number) for number in range(options.seeds)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        assert options.seeds == len(cells)
        return {"sum": sum(cell["value"] for cell in cells.values()), "last": [*cells.values()][-1]}

    def figures(self, result: Record) -> Mapping[str, str]:
        return {"squares.svg": f"<svg>{result['sum']}</svg>"}

    def page(self, document: Record) -> str:
        return f"The sum is {document['result']['sum']}.\n\n![](squares.svg)"


THREE = StudyOptions(seeds=3)


def test_a_study_leaves_document_page_and_figures(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    document = run_study(Squares(), tmp_path, THREE, on_cell=lambda *cell: seen.append(cell))
    assert document["result"]["sum"] == 5
    assert document["result"]["last"]["before"] == ["square-0", "square-1"]
    assert document["options"] == {"seeds": 3}
    assert json.loads((tmp_path / "study.json").read_text()) == document
    assert (tmp_path / "study.md").read_text() == (
        "# Squares\n\nThe sum is 5.\n\n![](squares.svg)\n"
    )
    assert (tmp_path / "squares.svg").read_text() == "<svg>5</svg>"
    assert seen == [("square-0", 0, 3), ("square-1", 1, 3), ("square-2", 2, 3)]
    assert not (tmp_path / ".lock").exists()


def test_a_study_that_was_broken_off_measures_what_is_missing(tmp_path: Path) -> None:
    study = Squares()
    study.fault = NumericalError("diverged")
    with pytest.raises(NumericalError, match="diverged"):
        run_study(study, tmp_path, THREE)
    assert study.measured == ["square-0"]
    assert not (tmp_path / "study.json").exists()
    study.fault = None
    document = run_study(study, tmp_path, THREE)
    assert study.measured == ["square-0", "square-1", "square-2"]
    assert run_study(study, tmp_path, THREE)["result"] == document["result"]
    assert len(study.measured) == 3


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    study = Squares()
    study.fault = InterruptedRunError("repeat with --resume")
    with pytest.raises(InterruptedRunError, match=r"Interrupted in square-1; .*the same command"):
        run_study(study, tmp_path, THREE)


def test_options_that_a_study_does_not_read_or_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not use --steps: its options are --corpus, --see"):
        run_study(Squares(), tmp_path / "a", StudyOptions(seeds=1, steps=3))
    with pytest.raises(UsageError, match=r"test/squares needs --seeds: add it"):
        run_study(Squares(), tmp_path / "a", StudyOptions())
    assert not (tmp_path / "a").exists()


def test_options_that_no_study_can_read_are_refused_where_they_are_given() -> None:
    with pytest.raises(UsageError, match="seeds is 0; expected a whole number of at least 1"):
        StudyOptions(seeds=0)
    with pytest.raises(UsageError, match="models is 'run'; expected a tuple"):
        StudyOptions(models="run")  # type: ignore[arg-type]


def test_cells_of_other_options_are_not_mixed(tmp_path: Path) -> None:
    run_study(Squares(), tmp_path, THREE)
    with pytest.raises(OutputExistsError, match=r"cells of test/squares with the options"):
        run_study(Squares(), tmp_path, StudyOptions(seeds=2))


def test_cells_of_another_model_or_text_are_not_mixed(tmp_path: Path) -> None:
    class OnFiles(Squares):
        uses = frozenset({"seeds", "corpus", "models"})

    text, model = tmp_path / "text.txt", tmp_path / "model"
    model.mkdir()
    options = StudyOptions(seeds=3, corpus=str(text), models=(str(model),))
    for place in (text, model / "model.safetensors"):
        text.write_text("one")
        (model / "model.safetensors").write_bytes(b"one")
        run_study(OnFiles(), tmp_path / f"of {place.name}", options)
        place.write_text("two")
        with pytest.raises(OutputExistsError, match="choose another folder"):
            run_study(OnFiles(), tmp_path / f"of {place.name}", options)


def test_cells_of_another_version_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(Squares(), tmp_path, THREE)
    monkeypatch.setattr(study_folder, "__version__", "99.0")
    with pytest.raises(OutputExistsError, match=r"\(bilens 0.*; this is .*\(bilens 99.0\)"):
        run_study(Squares(), tmp_path, THREE)


def test_cells_that_other_code_measured_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = run_study(Squares(), tmp_path, THREE)
    assert document["code"] == Squares().code() == file_sha256(Path(__file__))
    study = Squares()
    monkeypatch.setattr(study, "code", lambda: "other")
    with pytest.raises(OutputExistsError, match=r"other code of test/squares.* move models to it"):
        run_study(study, tmp_path, THREE)


def test_the_code_of_a_study_is_that_of_its_class_and_bases() -> None:
    folder = Path(study_module.__file__).parent
    own = [folder / f"{name}.py" for name in ("corners", "vision")]
    assert all_studies()["vision/corners"].code() == file_sha256(*own)
    assert all_studies()["language/layers"].code() == file_sha256(folder / "autoencoders.py")


def test_cells_of_other_images_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnImages(Squares):
        datasets = ("mnist",)

    monkeypatch.setattr(study_module, "load_images", lambda *_, **__: tiny.images())
    run_study(OnImages(), tmp_path, THREE)
    monkeypatch.setattr(study_module, "load_images", lambda *_, **__: tiny.images(seed=1))
    with pytest.raises(OutputExistsError, match=r"on mnist \w{8}; this is .* on mnist \w{8}:"):
        run_study(OnImages(), tmp_path, THREE)


def test_the_digits_of_a_package_do_not_stand_for_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnImages(Squares):
        datasets, uses = ("mnist",), frozenset({"seeds", "quick"})

    few = dataclasses.replace(tiny.images(), source_kind="embedded")
    monkeypatch.setattr(study_module, "load_images", lambda *_, **__: few)
    with pytest.raises(DataError, match=r"squares needs mnist: .*, not all: pass .* --data-dir"):
        run_study(OnImages(), tmp_path, THREE)
    run_study(OnImages(), tmp_path, StudyOptions(seeds=3, quick=True))


def test_two_sizes_at_once_are_refused(tmp_path: Path) -> None:
    study = Squares()
    study.uses = frozenset({"seeds", "quick", "full"})  # type: ignore[misc]
    with pytest.raises(UsageError, match="--quick and --full"):
        run_study(study, tmp_path, StudyOptions(seeds=1, quick=True, full=True))


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"something else than a study \(thesis.tex\)"):
        run_study(Squares(), tmp_path, THREE)
    with pytest.raises(OutputExistsError, match="is a file"):
        run_study(Squares(), tmp_path / "thesis.tex", THREE)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    run_study(Squares(), tmp_path, THREE)
    for content in ("{}", "", "{", "[]"):
        (tmp_path / "cells" / "square-1.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"square-1.json: is damaged: remove it"):
            run_study(Squares(), tmp_path, THREE)


def test_studies_are_found_by_name_and_by_group() -> None:
    assert all([study.name for study in find_studies(name)] == [name] for name in all_studies())
    assert len(find_studies("language")) == 5
    with pytest.raises(UsageError, match="no study 'language/gate': choose one of language/gates"):
        find_studies("language/gate")
    with pytest.raises(UsageError, match="no study 'gates': choose one of language/gates"):
        find_studies("gates")
    with pytest.raises(UsageError, match=r"no study 'zzz': choose one of .*language/gates.*list"):
        find_studies("zzz")
