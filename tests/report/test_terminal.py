"""What commands print: every record has its tables and lines; no text drives a terminal."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

import tiny
from attack_documents import make_attack
from bilens.api.classifier import explain_predictions
from bilens.report.reports import AttackReport, AuditReport, CertificateReport, TraceReport
from bilens.report.sections.layers import LAYERS, layer_rows
from bilens.report.terminal import (
    attack_lines,
    attack_tables,
    audit_table,
    certificate_lines,
    truncation_table,
    verdict_lines,
)
from bilens.report.terminal_readings import (
    attribution_tables,
    decomposition_lines,
    decomposition_table,
    explanation_tables,
    fit_lines,
    fit_table,
    plan_lines,
    plan_table,
    trace_tables,
)
from bilens.report.text import load_catalogue
from certificate_documents import make_certificate
from decomposition_documents import FITS, HOSTILE, LAYER, PLAN
from layer_audit_documents import make_layer_audit
from report_documents import make_document, variants
from table_documents import make_table
from trace_documents import make_trace, make_weights_only

EIGENVALUE = "field.LeadingPair.eigenvalue"  # which a page has in cards


def printed(document: dict[str, Any], lang: str = "en", width: int = 120) -> str:
    console = Console(width=width, no_color=True, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(audit_table(AuditReport(document).record, lang))
    return capture.get()


def test_one_row_for_each_class_with_both_ends_of_its_spectrum() -> None:
    text = printed(make_document())
    (row,) = (line for line in text.splitlines() if line.strip("│┃ ").startswith("1 "))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["1", "6.5", "9.0 (8.5–9.5)", "7.8", "2 / 1", "+0.900", "−0.800"]
    assert "do not compare it between models" in " ".join(text.split())


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("name", variants())
def test_every_document_has_a_table_and_lines(name: str, lang: str) -> None:
    document = AuditReport(variants()[name]).record
    assert len(audit_table(document, lang).rows) == len(document.classes.readings)
    assert all(line.strip() for line in verdict_lines(document, lang))


def test_one_description_is_drawn_in_a_terminal_in_markdown_and_on_a_page() -> None:
    """The numbers of a layer are the same everywhere; headings are in the language asked for."""
    report = AuditReport(make_layer_audit())
    for lang in ("en", "ja"):
        t, table = load_catalogue(lang), audit_table(report.record, lang)
        heads, _, rows = LAYERS.as_texts(t, layer_rows(t, report.record.layers))
        assert [str(column.header) for column in table.columns] == heads
        cells = [[str(cell) for cell in column.cells] for column in table.columns]
        assert list(map(list, zip(*cells, strict=True))) == rows
        page, markdown = report.to_html(lang=lang), report.to_markdown(lang=lang)
        assert f"| {' | '.join(heads)} |" in markdown
        assert all(f">{head}</th>" in page for head in heads if head != t(EIGENVALUE))
        assert all(f">{cell}</" in page for row in rows for cell in row[2:7] if row[2])
    assert heads[0] == "層"


def test_it_fits_into_eighty_columns() -> None:
    assert max(len(line) for line in printed(make_document(), width=80).splitlines()) <= 80


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=file:///x]y[/link]", ":boom:"])
def test_a_name_is_never_read_as_markup(name: str) -> None:
    assert name in printed(make_document(names=[name, "b"]), width=200)


def test_a_name_cannot_drive_the_terminal() -> None:
    document = make_document(names=["\x1b[2Ja\x07\x9b31m", "b\u202ec"])
    document["verdict"][5] = {
        "rule": "beyond_null",
        "outcome": "warn",
        "values": {"median": 0, "least": 0, "most": 0, "none": "\x1b]0;title\x07"},
    }
    text = printed(document) + "".join(verdict_lines(AuditReport(document).record))
    assert not [character for character in text if ord(character) < 32 and character != "\n"]
    assert not {"\x9b", "\u202e", "\x7f"} & set(text)


def test_the_lines_end_with_the_verdict() -> None:
    *findings, verdict = verdict_lines(AuditReport(make_document()).record)
    assert verdict.startswith("Not yet: conditions are open: ")
    joined = "\n".join(findings)
    for words in ("2.7\u00a0×\u00a010⁻⁷", "90.0% of 10", "55.5% to 99.8%"):
        assert words in joined


def test_a_failure_is_said_in_words() -> None:
    lines = verdict_lines(AuditReport(variants()["failed"]).record)
    assert lines[0].startswith("Is the reading right? ✗ Reading wrong")
    assert lines[1].startswith("  ✗ Problem: Formula and model disagree")
    assert lines[-1].startswith("Cannot be judged from this: ")


def test_without_data_the_lines_say_so() -> None:
    lines = verdict_lines(AuditReport(make_document(data=False)).record)
    assert any("Accuracy is not known" in line for line in lines)


def all_printed() -> dict[str, Callable[[], list[Table | str]]]:
    """What each command prints, of records that hold what a hostile file would."""
    layers = make_layer_audit()
    layers["layers"]["readings"][0]["name"] = HOSTILE
    table = make_table()
    table["model"]["input_names"][0] = table["columns"]["outputs"][0]["name"] = HOSTILE
    trace, weights_only = make_trace(), make_weights_only()
    trace["saes"][0]["hook"] = HOSTILE
    weights_only["readings"][0]["output"]["high"][0]["text"] = HOSTILE
    explained = explain_predictions(tiny.loaded(tiny.trained()), tiny.images(), [0], command="here")
    model = replace(explained.model, output_names=3 * (HOSTILE,))
    explained = replace(explained, model=model)
    certified, attacked = CertificateReport(make_certificate()), AttackReport(make_attack())
    return {
        "layers": lambda: both(audit_table, verdict_lines, AuditReport(layers).record),
        "table": lambda: both(audit_table, verdict_lines, AuditReport(table).record),
        "certificate": lambda: both(truncation_table, certificate_lines, certified.record),
        "attack": lambda: [*attack_tables(attacked.record), *attack_lines(attacked.record)],
        "trace": lambda: [*trace_tables(TraceReport(trace).record)],
        "weights": lambda: [*trace_tables(TraceReport(weights_only).record)],
        "decomposition": lambda: both(decomposition_table, decomposition_lines, LAYER),
        "plan": lambda: [plan_table([PLAN]), *plan_lines([PLAN])],
        "fits": lambda: both(fit_table, fit_lines, FITS),
        "explanation": lambda: [*explanation_tables(explained), *attribution_tables(explained)],
    }


def both(
    table: Callable[[Any], Table], lines: Callable[[Any], list[str]], record: object
) -> list[Table | str]:
    return [table(record), *lines(record)]


@pytest.mark.parametrize("name", all_printed())
def test_nothing_in_a_file_drives_the_terminal(name: str) -> None:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        for part in all_printed()[name]():
            console.print(part, markup=not isinstance(part, str), highlight=False)
    text = capture.get()
    assert len(text.splitlines()) > 2
    assert not [character for character in text if ord(character) < 32 and character != "\n"]
    assert "\u202e" not in text
    if name not in ("certificate", "attack"):
        assert "[red]" in text


def test_the_table_of_a_layer_says_what_is_proven_and_what_failed() -> None:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(decomposition_table(LAYER))
    rows = [[cell.strip() for cell in line.split("│")] for line in capture.get().splitlines()]
    first = next(row for row in rows if "1*" in row)
    assert first[1:] == ["1.80", "2.2", "1*", "+2", "80.0%", "1.0e-09", "yes", "yes"]
    second = next(row for row in rows if "-1" in row)
    assert second[1:] == ["1.00–3.00", "", "2", "-1", "20.0%", "1.0e-09", "NO", ""]
    assert any("did not converge" in row for row in rows)
    assert decomposition_lines(LAYER)[0].startswith(
        "[red]\ufffd[2Ja\ufffd\ufffd: R² = 0.500 ± 0.010"
    )


def test_a_map_that_explains_too_little_makes_no_claim() -> None:
    assert fit_lines(FITS)[-1].endswith("it explains less than 0.9.")
    assert fit_lines(FITS)[0].endswith("normal, closed form; R² on 9 rows.")
    assert fit_lines(FITS)[1].endswith(": not fitted: neurons: 9 rows")
    assert not any("no real one" in line for line in fit_lines(FITS))
    assert any("no real one" in line for line in fit_lines(replace(FITS, num_rows=None)))


def test_names_have_room_in_a_narrow_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(audit_table(AuditReport(make_document(names=["zero", "one", "two"])).record))
    text = console.export_text()
    assert all(name in text for name in ("zero", "one", "two"))


def test_an_explanation_names_places_and_pixels() -> None:
    """An eigenvector has the part of the image where it is met; a pixel has row and column."""
    record = explain_predictions(tiny.loaded(tiny.trained()), tiny.images(), [0])
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        for table in (*explanation_tables(record), *attribution_tables(record)):
            console.print(table)
    text = capture.get()
    parts = "upper left|top|upper right|left|centre|right|lower left|bottom|lower right|whole image"
    assert re.search(rf"no\. 1, ({parts}) ", text)
    assert re.search(r"│ +\([0-5], [0-5]\) │ [+-]", text)
