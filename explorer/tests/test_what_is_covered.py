"""What an audit covers is what the register looks at, in a server that runs as in a new one.

Seen red: parts in hidden folders that modules.json names, a loop of links, a baseline taken for the
base of an adapter, files behind links and in each other's place, papers held against what was seen
long ago, models below a folder with some config.json, paths of the machine in an export.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import bilens as bl
import tiny
from bilens.api.provenance import files_read
from bilens.api.watch import watch_folder
from bilens.io.load import load
from bilens_explorer import folder as folders, register
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder
from bilens_explorer.pages import model_page, overview_page
from bilens_explorer.records.models import id_of
from commands import model_folder
from report_documents import audit_of


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "FRESH", -1.0)  # each look walks
    root = tmp_path / "runs"
    model_folder(root / "m", tiny.classifier())
    return root


def audited(root: Path, name: str = "m", line: str = "") -> None:
    model = load(root / name)
    kept = {"weights_sha256": model.weights_sha256, "files": files_read(model)}
    record = audit_of(root / name).record
    command = f"bilens audit {name} --history . {line}"
    run = replace(record.reproduce, command=command.strip())
    bl.History(root).add(replace(record, source=replace(record.source, **kept), reproduce=run))


def states(served: ServedFolder) -> dict[str, str]:
    return {row.name: row.state for row in served.overview().models}


def look(root: Path, served: ServedFolder) -> set[str]:
    """What is said of m by this server, by a new one, and by the watch, which audits it again."""
    told = {states(served)["m"], states(ServedFolder(root))["m"]}
    return told | {one.state for one in watch_folder(root).models if one.model == "m"}


def test_a_part_in_a_folder_that_tools_hide_is_a_part(root: Path) -> None:
    model_folder(root / "m" / ".cache", tiny.classifier())
    (root / "m" / "modules.json").write_text('[{"path": ""}, {"path": ".cache"}]')
    audited(root)
    served = ServedFolder(root)
    assert look(root, served) == {"audited"}
    shutil.rmtree(root / "m" / ".cache")
    model_folder(root / "m" / ".cache", tiny.classifier(7))
    assert look(root, served) == {"changed"}


def test_a_link_to_itself_breaks_no_other_model(root: Path) -> None:
    model_folder(root / "n", tiny.classifier())
    for name in ("m", "n"):
        audited(root, name)
    (root / "m" / "loop").symlink_to("loop")
    assert states(ServedFolder(root))["n"] == "audited"
    assert {one.model: one.state for one in watch_folder(root).models}["n"] == "audited"
    assert load(root / "m").layers


def test_a_model_that_cannot_be_looked_at_keeps_nobody_waiting(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(root / "n", tiny.classifier())
    for name in ("m", "n"):
        audited(root, name)
    served = ServedFolder(root)
    compare = served._register.compare

    def fails(one: Any, **how: Any) -> Any:
        if one.path.name == "m":
            raise RuntimeError("of a kind that nobody expects")
        return compare(one, **how)

    monkeypatch.setattr(served._register, "compare", fails)
    assert states(served) == {"m": "unread", "n": "audited"}


def test_a_baseline_is_no_base_of_a_model_that_is_no_adapter(root: Path) -> None:
    model_folder(root / "base", tiny.classifier(7))
    model_folder(root / "the model below it", tiny.classifier(7))
    audited(root, line="--baseline base")
    assert look(root, ServedFolder(root)) == {"audited"}


def test_files_behind_a_link_are_seen_as_they_come(root: Path) -> None:
    (root / "shared" / "dense").mkdir(parents=True)
    (root / "shared" / "dense" / "a.bin").write_bytes(b"1")
    (root / "m" / "dense").symlink_to("../shared/dense")
    audited(root)
    served = ServedFolder(root)
    assert look(root, served) == {"audited"}
    (root / "shared" / "dense" / "model.py").write_text("x = 1")
    assert look(root, served) == {"changed"}


def test_no_link_out_of_the_folder_is_gone_through(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red: a link to the root had the whole disk walked through."""
    audited(root)
    away = root.parent / "away"
    (away / "deep").mkdir(parents=True)
    (root / "m" / "disk").symlink_to(away)
    walked: list[str] = []
    walk = register.os.walk

    def walks(*place: Any, **how: Any) -> Any:
        for one in walk(*place, **how):
            walked.append(str(one[0]))
            yield one

    monkeypatch.setattr(register.os, "walk", walks)
    assert states(ServedFolder(root))["m"] != "audited"
    assert not [one for one in walked if one.endswith("deep")]


def test_what_was_audited_is_not_said_to_lie_where_it_does_not(root: Path) -> None:
    """Names count, not bytes alone; nor is the model itself another place."""
    (root / "m" / "config.new.json").write_text("{}")
    audited(root)
    served = ServedFolder(root)
    served.overview()
    one, other = (root / "m" / name for name in ("config.json", "config.new.json"))
    texts = one.read_bytes(), other.read_bytes()
    one.write_bytes(texts[1])
    other.write_bytes(texts[0])
    assert states(served) == {"m": "changed"}
    assert served.model(id_of("m")).before == ""


def test_a_report_elsewhere_is_held_against_all_files_as_they_are_now(root: Path) -> None:
    audited(root)
    (root / "reports").mkdir()
    (root / "reports" / "r.json").write_text(json.dumps(bl.History(root).document(1)))
    served = ServedFolder(root)
    served.overview()
    key = id_of("reports/r.json")
    assert served.paper(key).state == "audit"
    config = root / "m" / "config.json"
    config.write_text(config.read_text().replace("{", '{"more": 1,', 1))
    assert served.paper(key).state != "audit"


def test_a_folder_of_settings_hides_no_model(root: Path) -> None:
    model_folder(root / "exp" / "seed0", tiny.classifier())
    (root / "exp" / "config.json").write_text('{"lr": 0.1}')
    assert states(ServedFolder(root)) == {"m": "never", "exp/seed0": "never"}
    assert {one.model for one in watch_folder(root).models} == {"m", "exp/seed0"}


def test_no_export_tells_where_a_model_outside_lies(root: Path) -> None:
    shutil.copytree(root / "m", root.parent / "adas-own" / "m")
    history = bl.History(root)
    for path in (root.parent / "adas-own" / "m", root / "m"):
        history.add(audit_of(path).record)
    history.say("note", str(root.parent / "adas-own" / "m"), "model", "seen", "Ada")
    told = export(ServedFolder(root, exporting=True), "en").html
    assert "adas-own" not in told


@pytest.mark.parametrize(("lang", "said"), [("en", "were not recorded"), ("ja", "記録されてい")])
def test_an_audit_without_files_is_of_nothing_that_is_known(
    root: Path, lang: str, said: str
) -> None:
    """Seen red: audited, whatever function the configuration beside the weights names."""
    record = audit_of(root / "m").record
    known = {"weights_sha256": load(root / "m").read_sha256, "files": {}}
    bl.History(root).add(replace(record, source=replace(record.source, **known)))
    served = ServedFolder(root)
    assert states(served) == {"m": "unread"}
    assert said in overview_page(served.overview(), lang, "")
    assert said in model_page(served.model(id_of("m")), lang, "")
