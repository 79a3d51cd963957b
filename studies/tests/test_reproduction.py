"""Studies in one folder: groups, what is left out, the page, the command."""

from collections.abc import Mapping
from pathlib import Path

import pytest

import bilens
import tiny
from bilens import ImageDataset
from bilens.base.errors import (
    DataError,
    InterruptedRunError,
    NumericalError,
    OutputExistsError,
    UsageError,
)
from bilens_studies.published import Published, Reproduced
from bilens_studies.reproduction import reproduce
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions
from commands import USAGE, Shell, assert_one_line


class Sums(Study):
    """Adds numbers up; breaks off before the last one where it is told to."""

    name, title, uses = "tests/sums", "Sums of <numbers>", frozenset({"seeds", "quick"})
    published = {  # type: ignore[assignment]  # noqa: RUF012 - in the place of a table
        "sum": Published("sum", "App. Z", value=3.0, tolerance=0.5)
    }
    broken = False

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        def measure(number: int) -> Measure:
            def add(context: CellContext) -> Record:
                if self.broken and number:
                    raise InterruptedRunError("stop")
                context.models.mkdir(exist_ok=True)
                return {"number": number}

            return add

        return {f"n-{number}": measure(number) for number in range(options.seeds or 3)}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        assert options.corpus is None or "corpus" in self.uses  # of another study
        return {"sum": sum(cell["number"] for cell in cells.values())}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        return {"sum": Reproduced((float(result["sum"]),), once=True)}

    def page(self, document: Record) -> str:
        told = f"*The sum* `is` **{document['result']['sum']}**, not q* or 2\\*q*."
        return f"## Text\n\n{told}\n\n![sum](sum.svg)"

    def figures(self, result: Record) -> Mapping[str, str]:
        return {"sum.svg": f"<svg><title>{result['sum']}</title></svg>"}


class OnImages(Sums):
    """A study whose images are missing."""

    name, datasets = "tests/images", ("mnist",)


class Alone(Sums):
    """A study of another group, with an option that it needs."""

    name, uses, needs = "other", frozenset({"corpus"}), frozenset({"corpus"})


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> dict[str, Study]:
    found: dict[str, Study] = {one.name: one for one in (Sums(), OnImages(), Alone())}
    for module in ("study_list", "reproduction"):
        monkeypatch.setattr(f"bilens_studies.{module}.all_studies", lambda: found)

    def no_images(*_: object, **__: object) -> ImageDataset:
        raise DataError("there are none")

    monkeypatch.setattr("bilens_studies.study.load_images", no_images)
    return found


@pytest.mark.usefixtures("three")
def test_a_group_runs_what_it_can_and_says_what_is_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    document = reproduce(["tests"], tmp_path, StudyOptions(seeds=3), say=said.append)
    assert document["studies"]["tests/sums"]["findings"][0]["verdict"] == "agrees"
    assert document["left_out"] == {"tests/images": "tests/images needs mnist: there are none"}
    assert said == ["tests/images is left out: needs mnist: there are none"]
    page = (tmp_path / "index.html").read_text()
    assert "Sums of &lt;numbers&gt;" in page
    assert "tests/images needs mnist" in page
    assert '<td class="agrees">agrees</td>' in page
    told = "<p><em>The sum</em> <code>is</code> <strong>3</strong>, not q* or 2*q*.</p>"
    assert told in page
    assert "<svg><title>3</title></svg>" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "models", "tests"]


def test_what_was_broken_off_ends_with_the_same_page(
    tmp_path: Path, three: dict[str, Study]
) -> None:
    options = StudyOptions(seeds=3)
    reproduce(["tests/sums"], tmp_path / "whole", options)
    three["tests/sums"].broken = True  # type: ignore[attr-defined]
    with pytest.raises(InterruptedRunError, match="n-1"):
        reproduce(["tests/sums"], tmp_path / "broken", options)
    three["tests/sums"].broken = False  # type: ignore[attr-defined]
    reproduce(["tests/sums"], tmp_path / "broken", options)
    pages = [(tmp_path / name / "index.html").read_text() for name in ("whole", "broken")]
    assert pages[0] == pages[1]


@pytest.mark.usefixtures("three")
def test_studies_run_from_python_as_from_the_command(tmp_path: Path) -> None:
    document = bilens.reproduce("tests/sums", str(tmp_path), seeds=3)
    assert document["studies"]["tests/sums"]["result"] == {"sum": 3}
    for nothing in ([], 3, [3]):
        with pytest.raises(UsageError, match=r"names is \[?3?\]?; expected studies or groups"):
            bilens.reproduce(nothing, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no option 'seed': use one of corpus, .*, quick"):
        bilens.reproduce("tests/sums", tmp_path, seed=3)


@pytest.mark.usefixtures("three")
def test_the_one_study_that_is_asked_for_says_once_why_it_cannot_run(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DataError, match="tests/images needs mnist"):
        reproduce(["tests/images"], tmp_path, StudyOptions(), say=said.append)
    assert said == []


def test_where_no_study_can_run_the_first_reason_is_raised(
    tmp_path: Path, three: dict[str, Study]
) -> None:
    three["tests/more"] = more = OnImages()
    more.name = "tests/more"
    del three["tests/sums"]
    said: list[str] = []
    with pytest.raises(DataError, match=r"^tests/images needs mnist: there are none"):
        reproduce(["tests"], tmp_path / "b", StudyOptions(seeds=1), say=said.append)
    assert said == [
        f"tests/{x} is left out: needs mnist: there are none" for x in ("images", "more")
    ]


def test_a_size_that_no_study_has_is_refused(tmp_path: Path, three: dict[str, Study]) -> None:
    three["tests/sums"].uses = frozenset({"quick"})  # type: ignore[misc]
    with pytest.raises(UsageError, match="--quick and --full"):
        reproduce(["tests/sums"], tmp_path, StudyOptions(full=True, quick=True))
    with pytest.raises(UsageError, match="does not use --full, --steps"):
        reproduce(["tests/sums"], tmp_path, StudyOptions(full=True, steps=1))


def test_what_other_code_wrote_is_left_out_of_the_page(
    tmp_path: Path, three: dict[str, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce(["tests/sums"], tmp_path, StudyOptions())
    monkeypatch.setattr(three["tests/sums"], "code", lambda: "other")
    monkeypatch.setattr(three["tests/sums"], "page", lambda _: {}["by_index.svg"])
    document = reproduce(["other"], tmp_path, StudyOptions(corpus="text"))
    assert list(document["left_out"]) == ["tests/sums"]
    assert "written by other code" in (tmp_path / "index.html").read_text()


def test_a_study_that_fails_is_left_out_and_the_others_run(
    tmp_path: Path, three: dict[str, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Record:
        raise NumericalError("diverged")

    monkeypatch.setattr(three["tests/sums"], "document", fail)
    options = StudyOptions(corpus="text", seeds=3)
    document = reproduce(["tests/sums", "other"], tmp_path, options)
    assert list(document["studies"]) == ["other"]
    assert document["left_out"] == {"tests/sums": "diverged"}
    assert "diverged" in (tmp_path / "index.html").read_text()


def test_images_that_are_at_hand_are_read_without_the_others(
    tmp_path: Path, three: dict[str, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = three["tests/images"]
    study.datasets = ("mnist", "fashion-mnist")

    def load(name: str, *_: object) -> ImageDataset:
        if name != "mnist":
            raise DataError("there are none")
        return tiny.images()

    def document(options: StudyOptions, _cells: Mapping[str, Record]) -> Record:
        return {"sum": len(study.images_read(options))}

    monkeypatch.setattr("bilens_studies.study.load_images", load)
    monkeypatch.setattr(study, "document", document)
    found = reproduce([study.name], tmp_path, StudyOptions(seeds=1))
    assert found["studies"][study.name]["result"] == {"sum": 1}
    why = f"{study.name} needs fashion-mnist: there are none"
    assert found["left_out"] == {f"{study.name}, fashion-mnist": why}
    assert why in (tmp_path / study.name / "study.md").read_text()
    monkeypatch.setattr("bilens_studies.study.load_images", lambda *_: tiny.images())
    found = reproduce([study.name], tmp_path, StudyOptions(seeds=1))  # in the same folder
    assert found["studies"][study.name]["result"] == {"sum": 2}
    assert found["left_out"] == {}


@pytest.mark.usefixtures("three")
def test_quick_and_other_sizes_are_not_mixed_on_a_page(tmp_path: Path) -> None:
    reproduce(["tests/sums"], tmp_path, StudyOptions(quick=True))
    with pytest.raises(OutputExistsError, match=r"holds tests/sums of --quick"):
        reproduce(["tests/sums"], tmp_path, StudyOptions())
    reproduce(["other"], tmp_path, StudyOptions(corpus="text"))  # has no such size


@pytest.mark.usefixtures("three")
def test_the_page_tells_of_all_that_the_folder_holds(tmp_path: Path) -> None:
    reproduce(["tests/sums"], tmp_path, StudyOptions())
    document = reproduce(["other"], tmp_path, StudyOptions(corpus="text"))
    assert list(document["studies"]) == ["other"]
    assert (tmp_path / "index.html").read_text().count("<h2>") == 2


@pytest.mark.usefixtures("three")
def test_what_cannot_be_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tests does not use --corpus: its options are --quick"):
        reproduce(["tests"], tmp_path / "a", StudyOptions(corpus="text"))
    with pytest.raises(DataError, match="tests/images needs mnist"):  # nothing else was asked for
        reproduce(["tests/images"], tmp_path / "a", StudyOptions())
    assert not (tmp_path / "a").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"something else than studies \(thesis.tex\)"):
        reproduce(["tests/sums"], tmp_path, StudyOptions())
    with pytest.raises(OutputExistsError, match="is a file"):
        reproduce(["tests/sums"], tmp_path / "thesis.tex", StudyOptions())


@pytest.mark.usefixtures("three")
def test_the_command_lists_and_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bilens = Shell(capsys, monkeypatch)
    listed = bilens("reproduce", "list")
    assert "tests/sums: Sums of <numbers> (--quick, --seeds)" in listed.out
    assert bilens("reproduce", "list", "--json").json()["other"]["options"] == ["--corpus"]
    for idle in ("--seeds", "--out"):
        assert_one_line(bilens("reproduce", "list", idle, "3"), USAGE, [idle, ": only "])
    assert_one_line(bilens("reproduce", "tests/sums"), USAGE, ["--out is missing"])
    command = ["reproduce", "tests/sums", "--seeds", "2", "--quick", "--out", tmp_path]
    result = bilens(*command)
    assert "tests/sums: n-1 (2 of 2)" in result.err
    assert "| 1 (1 of at least 3 runs: no interval) | not judged: --quick |" in result.out
    document = bilens(*command, "--json").json()
    assert document["studies"]["tests/sums"]["options"] == {"seeds": 2, "quick": True}
