"""Reports in a model's own folder are listed as papers: only the history says how it ended.

Seen red: with the folder of a model not looked into, with numbers of labels taken as they come.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.base.errors import UsageError
from bilens.base.files import file_sha256
from bilens.report.reports import TraceReport
from bilens.report.text import load_catalogue
from bilens_explorer import walk as walks
from bilens_explorer.folder import ServedFolder
from bilens_explorer.pages import model_page, overview_page
from bilens_explorer.people import NewEntry, add_entry
from bilens_explorer.records.models import id_of
from commands import model_folder
from report_documents import audit_of, failed
from trace_documents import LAYER, make_trace

LATENT = f"latent:{LAYER.input}:11111111:"


def lay(root: Path, name: str, **source: Any) -> None:
    model_folder(root / name, tiny.classifier())
    found = failed()
    weights = file_sha256(root / name / "model.safetensors")
    found |= {"source": found["source"] | {"weights_sha256": weights} | source}
    (root / name / "report.json").write_text(json.dumps(found), "utf-8")
    (root / name / "other.json").write_text('{"kind": "nothing of bilens"}', "utf-8")


def test_a_report_in_the_folder_of_a_model_is_found(tmp_path: Path) -> None:
    lay(tmp_path, "demo")
    lay(tmp_path, "moved", weights_sha256="c" * 64)
    served = ServedFolder(tmp_path)
    overview = served.overview()
    assert [row.name for row in overview.reports] == ["demo/report.json", "moved/report.json"]
    assert [row.last for row in overview.models] == [None, None]
    assert bl.History(tmp_path).audits() == []
    found = served.model(id_of("demo"))
    assert [row.name for row in found.reports] == ["demo/report.json"]
    for lang in ("en", "ja"):
        t = load_catalogue(lang)
        page = model_page(found, lang, "")
        for text in (overview_page(overview, lang, ""), page):
            assert t("explorer.state_of.never") in text
            assert 'class="badge' not in text, "a report that only lies there earns none"
        assert f"/reports/{id_of('demo/report.json')}?lang={lang}" in page


def test_one_file_that_is_closed_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "demo")
    (tmp_path / "demo" / "a.json").write_text("{}")
    kind_at = walks.kind_at

    def closed(folder: Path, path: Path) -> str:
        if path.name == "a.json":
            raise PermissionError(path)
        return kind_at(folder, path)

    monkeypatch.setattr(walks, "kind_at", closed)
    found = ServedFolder(tmp_path).overview()
    assert [row.name for row in found.reports] == ["demo/report.json"]


def test_an_audit_of_the_history_counts_before_it(tmp_path: Path) -> None:
    lay(tmp_path, "demo")
    served = ServedFolder(tmp_path)
    served.history.add(audit_of(tmp_path / "demo", failed()).record)
    (row,) = served.overview().models
    assert row.last is not None
    assert row.state == "audited"


@pytest.mark.parametrize(
    ("action", "subject", "told"),
    [
        ("label", "class:1:positive:0", ""),
        ("label", "class:99:positive:0", "classes, from 0"),
        ("label", "class:1:positive:999", "eigenvectors, from 0"),
        ("label", "layer:layers.0:1:negative:0", ""),
        ("label", "layer:layers.99:1:negative:0", "no layer of this name"),
        ("label", "layer:layers.0:99:negative:0", "outputs, from 0"),
        ("label", "layer:layers.0:1:negative:999", "eigenvectors, from 0"),
        ("label", f"{LATENT}7", ""),
        ("label", f"{LATENT}99", "latents, from 0"),
        ("label", "column:age", ""),
        ("label", "column:sage", "no column of this name"),
        ("label", "class:1:sideways:0", "expected model"),
        ("label", "nonsense <b>", "expected model"),
        ("note", "direction:unembed:the", ""),
        ("accept", "rule:complete", ""),
        ("accept", "rule:coverage", "nothing to accept"),
        ("reject", "rule:coverage", "nothing to accept"),
        ("withdraw", "rule:coverage", ""),
    ],
)
def test_something_is_said_only_of_what_is_there(
    tmp_path: Path, action: Any, subject: str, told: str
) -> None:
    names = ("age", *(f"c{number}" for number in range(1, tiny.classifier().embed.in_features)))
    model_folder(tmp_path / "demo", tiny.classifier(), input_names=names)
    TraceReport(make_trace()).to_json(tmp_path / "trace.json")
    served = ServedFolder(tmp_path)
    last = served.history.add(audit_of(tmp_path / "demo", failed()).record)
    read = {"audit": last.number, "identity": last.identity}
    said = id_of("demo"), NewEntry(action, subject, "known", "Ada", **read)
    if told:
        with pytest.raises(UsageError, match=told):
            add_entry(served, *said)
    else:
        add_entry(served, *said)
    assert len(served.history.entries()) == (not told)
