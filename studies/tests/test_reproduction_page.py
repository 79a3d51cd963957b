"""The page of the paper's experiments: all of them have a row, and nothing measured is lost.

Broken once: by a study left out where it has no document, and by a command that kept its folders.
"""

import json
from pathlib import Path

import pytest

from bilens_studies.study_folder import DOCUMENT_NAME
from bilens_studies.study_list import all_studies
from tools import reproduction


def lines(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


def test_every_experiment_and_every_quantity_of_a_committed_study_has_a_row() -> None:
    page = reproduction.page()
    for one in reproduction.EXPERIMENTS:
        assert len(lines(page, f"| [{one.name}](#")) == 1, one.name
        assert f"\n## {one.name}\n" in page
    for name in reproduction.told():
        for published in all_studies()[name].published.values():
            quantity = published.quantity.replace("|", "\\|")  # bars in cells are text
            assert lines(page, f"| {quantity} | "), published.quantity


def test_every_study_is_of_an_experiment() -> None:
    known = (*reproduction.EXPERIMENTS, reproduction.OTHERS)
    assert set(all_studies()) <= {name for one in known for name in one.studies}


def test_rows_stand_with_their_study_whatever_their_source() -> None:
    def told(name: str, *sources: str) -> reproduction.Told:
        rows = [{"source": source} for source in sources]
        return reproduction.Told(all_studies()[name], {"findings": rows}, "")

    names = {
        "vision/replacing": ("App. I, text",),
        "vision/eigenvectors": ("§4.1", "Fig. 7, on masks"),
        "vision/regularisation": ("App. B", "App. E, Fig. 17", "Fig. 4", "TMLR"),
    }
    found = reproduction.of_experiments({name: told(name, *one) for name, one in names.items()})
    placed = {
        one.name: {name: [row["source"] for row in rows] for name, rows in by_study.items()}
        for one, by_study in found.items()
        if by_study
    }
    assert placed == {
        "Further studies": {"vision/replacing": ["App. I, text"]},
        "§4.1, Fig. 2, 3, App. A": {"vision/eigenvectors": ["§4.1", "Fig. 7, on masks"]},
        "Fig. 4": {"vision/regularisation": ["Fig. 4", "TMLR"]},
        "App. B": {"vision/regularisation": ["App. B"]},
        "App. E": {"vision/regularisation": ["App. E, Fig. 17"]},
    }


def test_every_committed_result_is_of_a_study_and_names_no_folder_of_a_machine() -> None:
    names = {reproduction.file_name(name) for name in all_studies()}
    for path in reproduction.KEPT.glob("*.json"):
        assert path.name in names
        document = json.loads(path.read_text())
        assert "result" not in document
        assert not document["options"].get("quick")
        assert '"/' not in path.read_text()


def test_what_is_not_measured_says_how_to_measure_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduction, "KEPT", tmp_path)
    monkeypatch.setattr(reproduction, "BENCHMARKS", tmp_path)
    page = reproduction.page()
    for name in all_studies():
        assert f"Not measured: `bilens reproduce {name} " in page
    assert (
        len(lines(page, "| [")) == page.count(" | all |  |\n") == 1 + len(reproduction.EXPERIMENTS)
    )


def test_what_the_page_needs_is_kept_without_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduction, "KEPT", tmp_path / "kept")
    study = all_studies()["toy/logic"]
    finding = {"quantity": "a sum", "source": "nowhere", "claim": "", "value": 1.0, "flaw": "old"}
    finding |= {
        "deviation": None,
        "tolerance": 0.5,
        "others": "",
        "ours": 2.0,
        "low": 1.5,
        "high": 2.5,
        "runs": 5,
    }
    document = {
        "study": study.name,
        "options": {"corpus": "/home/me/text.txt", "seeds": 5},
        "command": "bilens reproduce toy/logic --out '/home/me/a b'",
        "hardware": ["a machine"],
        "date": ["2026-01-01"],
        "findings": [{**finding, "verdict": "differs", "note": ""}],
        "result": {"rows": []},
    }
    path = tmp_path / "out" / study.name / DOCUMENT_NAME
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    (path.parent / "study.md").write_text("# Gates\n\n![a](a.svg)\n\n![big](big.svg)\n")
    (path.parent / "a.svg").write_text("<svg/>")
    (path.parent / "big.svg").write_text("<svg/>" * 2)
    monkeypatch.setattr(reproduction, "MOST_DRAWN", 10)
    (path.parent / "cells").mkdir()
    for seed in (0, 1):
        record = {"recipe": {"width": 12, "seed": seed}}
        (path.parent / "cells" / f"{seed}.json").write_text(json.dumps({"record": record}))
    (tmp_path / "kept").mkdir()
    (kept,) = reproduction.keep(tmp_path / "out")
    found = json.loads(kept.read_text())
    assert "result" not in found
    assert found["recipes"] == [{"width": 12}]
    own = tmp_path / "kept" / "toy-logic"
    assert sorted(one.name for one in own.iterdir()) == ["a.svg", "study.md"]
    text = (own / "study.md").read_text()
    assert text == "# Gates\n\n![a](a.svg)\n\n*big: too large*\n"
    assert found["options"] == {"corpus": "text.txt", "seeds": 5}
    page = reproduction.page()
    assert "| a sum | 1 ± 0.5 (tolerance; nowhere) | – | 2 [1.5, 2.5] | differs |" in page
    assert "Flaw: old." in page
    assert "(reproduction/toy-logic/study.md): " in page
    assert "Without a study: its CP-constrained layers" in page
    assert "`bilens reproduce toy/logic --out 'a b'`, 2026-01-01, a machine." in page
    document["options"] = {"quick": True}
    path.write_text(json.dumps(document))
    assert reproduction.keep(tmp_path / "out") == []
