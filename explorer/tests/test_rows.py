"""What a one-file export holds of data: no cell, no row and no answer, unless it is wanted.

Broken once: with a field of rows that is not marked, with the texts of a rule's sentence kept, with
ranges of a page's controls that are those of held-out rows.
"""

import random
import re
from pathlib import Path

import pytest
from msgspec.structs import fields
from typer.testing import CliRunner

from bilens.cli.app import app
from bilens.records.view import records_in, views
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder
from bilens_explorer.walk import KINDS
from explorer_folder import run, unpacked

CITIES = ("Kyoto", "Osaka", "Nara")
# Records that are one row, cell or answer each: who holds them says what is there without them.
ROWS = "Answer|CellConversion|Explanation|InputExplanation|RowReading|TrainingExample|Continuation"


def write_table(path: Path, rows: int, *, marked: bool) -> list[str]:
    """Write a table; if `marked`, with cells that stand nowhere else, and return these."""
    draw, lines, cells = random.Random(3), ["age,income,city,grade,score"], list[str]()
    for at in range(rows):
        age, income, city = draw.uniform(20, 80), draw.uniform(1000, 9000), draw.choice(CITIES)
        score = age * 50 + income + (1500 if city == "Kyoto" else 0)
        if marked:
            age, income = round(age) + 0.7321951, 40_000.918273 + 37.25 * at
            city = f"CANARY{at}" if at % 3 == 0 else city
            cells += [f"{age:.7f}", f"{income:.6f}", f"{income:.0f}", f"{score:.4f}"]
            cells += [city] if "CANARY" in city else []
        grade = "yes" if score > 7500 else "no"
        lines.append(f"{age:.7f},{income:.6f},{city},{grade},{score:.4f}")
    path.write_text("\n".join(lines) + "\n")
    return cells


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Models of tables with all that is said of them, and the cells of their test rows."""
    root = tmp_path_factory.mktemp("marked") / "runs"
    root.mkdir()
    table, data = root.parent / "train.csv", root.parent / "data.csv"
    write_table(table, 200, marked=False)
    turned = root.parent / "turned.csv"  # what is taught otherwise answers otherwise
    swapped = {"yes": "no", "no": "yes"}
    turned.write_text(re.sub("yes|no", lambda found: swapped[found[0]], table.read_text()))
    cells = write_table(data, 40, marked=True)
    for name, given, target, other in (
        ("one", table, "grade", "score"),
        ("two", turned, "grade", "score"),
        ("number", table, "score", "grade"),
    ):
        out = root / name
        run("train", "table", given, "--target", target, "--drop", other, "--out", out)
        (out / "test.csv").write_text(data.read_text())
    for name, more in (("one", ()), ("two", ("--baseline", root / "one")), ("number", ())):
        run("audit", root / name, "--data", data, "--history", root, *more)
    for job in ("certify", "attack"):
        found = CliRunner().invoke(app, [job, str(root / "one"), "--data", str(data), "--json"])
        assert found.exit_code == 0, found.output
        (root / f"{job}.json").write_text(found.stdout, "utf-8")
    return root, cells


def exported(root: Path, *, with_data: bool = False) -> str:
    made = export(ServedFolder(root, exporting=True, with_data=with_data), "en")
    return unpacked(made.html).replace("\\u2192", "→").replace("\\u201c", "“")


def test_no_cell_is_in_a_file_that_says_so(marked: tuple[Path, list[str]]) -> None:
    root, cells = marked
    text = exported(root)
    assert "No row of test data is in it" in text
    words = {*re.findall(r"[\w.]+", text)}  # a hash may have the digits of a cell
    assert [cell for cell in cells if cell in words] == []
    assert re.findall(r"row \d+ \(|\d+ \((?:yes|no) → ", text) == []
    whole = exported(root, with_data=True)
    assert "CANARY0" in whole
    assert re.search(r"\d+ \((?:yes|no) → ", whole)


def test_what_holds_rows_says_what_stands_in_their_place() -> None:
    """Each field of a report whose values are rows, cells or answers is marked at its place."""
    known = {record for kind in KINDS.values() for record in records_in(kind.type)}
    lacking = [
        f"{record.__name__}.{field.name}"
        for record in known
        for field in fields(record)
        if re.search(rf"\b({ROWS})\b", str(field.type)) and views(record)[field.name].instead is ...
    ]
    assert lacking == []
