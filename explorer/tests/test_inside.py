"""Nothing out of the folder is read or told, whatever links lie in it and whatever changes.

Broken once: with the first files of a model looked at alone, with no second look after a model or
rows were read, with one lock for all models, with links inside a data folder followed, with
messages as commands wrote them, with an adapter's base not looked at, with `file:` let through,
with a quoted path ended by its first space, with a path ended by any of `,=(;`, with the words of a
command cut as one text, with every text of a document cut, with the command of an audit told by the
overview, with "" and "." as the base of an adapter.
"""

import json
import os
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import bilens as bl
import tiny
from bilens.api import RefusedError
from bilens.base.errors import FileError
from bilens.io.loaded_model import LoadedModel
from bilens.records.attention_edges import AttentionEdges
from bilens.records.base import Record
from bilens.records.common import Finding
from bilens.records.inventory import CardField, TensorGroup
from bilens.records.layer_readings import AlignmentNote, BaselineSource, Difference
from bilens.records.tensor_changes import TensorChange, WholeDifference
from bilens.report.reports import AuditReport
from bilens_explorer import open_models, playground
from bilens_explorer.audit_runs import check_file
from bilens_explorer.folder import ServedFolder, id_of
from bilens_explorer.inside import command_told, cut_paths, files_of, state_of, without_paths
from commands import model_folder
from report_documents import make_document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for name in ("a", "b"):
        model_folder(folder / name, tiny.classifier())
    (tmp_path / "secret.csv").write_text("a")
    return folder


def test_a_link_is_found_behind_many_files_and_in_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = folder / "a" / "1_Dense" / "deep"
    below.mkdir(parents=True)
    before = state_of(folder, folder / "a")
    (below / "x").write_text("x")
    assert state_of(folder, folder / "a") != before
    (below / "round").symlink_to(folder / "a")  # inside, and a loop
    assert state_of(folder, folder / "a")
    (below / "out").symlink_to(folder.parent / "secret.csv")
    with pytest.raises(FileError, match="out is a link out of the folder"):
        state_of(folder, folder / "a")
    (below / "out").unlink()
    monkeypatch.setattr(files_of, "__defaults__", (5,))
    for number in range(6):
        (folder / "a" / f"{number}.txt").touch()
    with pytest.raises(FileError, match="holds more than 5 files"):
        state_of(folder, folder / "a")


def test_of_the_served_folder_other_models_are_no_part(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "b" / "out").symlink_to(folder.parent / "secret.csv")
    names = [path.name for path in files_of(folder, folder)]
    assert "config.json" in names
    assert "out" not in names


def test_what_changes_while_it_is_read_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, load, file = ServedFolder(folder), open_models.load, folder / "a" / "config.json"

    def swap(path: Path) -> LoadedModel:
        found = load(path)
        if file.stat().st_mtime_ns != 1:  # once: the time of the change is another each time
            os.utime(file, ns=(1, 1))
        return found

    monkeypatch.setattr(open_models, "load", swap)
    with pytest.raises(FileError, match="changed while it was read"):
        served.opened(id_of("a"))
    assert served.opened(id_of("a")) is not None  # as it is now


def test_rows_of_elsewhere_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ServedFolder(folder).opened(id_of("a"))
    model, rows, file = opened.model, object(), folder / "a" / "test.csv"
    file.write_text("a")
    monkeypatch.setattr(playground, "interface_of", lambda _model: None)
    monkeypatch.setattr(playground, "read_labelled", lambda *_: rows)
    assert playground.held_out_rows(folder, model) is rows
    monkeypatch.setattr(playground, "read_labelled", lambda *_: os.utime(file, ns=(1, 1)) or rows)
    assert playground.held_out_rows(folder, model) is None
    file.unlink()
    file.symlink_to(folder.parent / "secret.csv")
    monkeypatch.setattr(playground, "read_labelled", lambda *_: rows)
    assert playground.held_out_rows(folder, replace(model, source=str(folder / "a"))) is None


def test_one_model_waits_for_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served, load, go, both = ServedFolder(folder), open_models.load, threading.Event(), []

    def slow(path: Path) -> LoadedModel:
        if path.name == "a":
            assert go.wait(20), "b waits for a"
        return load(path)

    monkeypatch.setattr(open_models, "load", slow)
    first = threading.Thread(target=lambda: both.append(served.opened(id_of("a"))))
    first.start()
    second = threading.Thread(target=lambda: both.append(served.opened(id_of("b"))))
    second.start()
    second.join(10)
    assert [one.name for one in both if one] == ["b"]
    go.set()
    first.join(20)
    assert len(both) == 2


def test_an_audit_reads_no_link_inside_a_data_folder(folder: Path) -> None:
    raw = folder / "lk" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").touch()
    check_file(folder, "lk/raw")
    (raw / "t10k-images-idx3-ubyte.gz").symlink_to(folder.parent / "secret.csv")
    with pytest.raises(RefusedError, match="leads out of the folder"):
        check_file(folder, "lk/raw")


def test_no_place_of_the_machine_is_told(folder: Path) -> None:
    for text, wanted in (
        (f"error: {folder}/a: no.", "error: runs/a: no."),
        ("it is a link to /tmp/x/model.safetensors", "it is a link to model.safetensors"),
        ("'/srv/my private data/rows v2.csv' is", "'rows v2.csv' is"),
        ("\"/home/ada's x/y z\" or '/a'", "\"y z\" or '/a'"),
        ("/home/me/a cannot be read and/or written", "a cannot be read and/or written"),
        ("/mnt/data=1/client-acme/x.csv", "x.csv"),
        ("/home/a,b/c;d/e(1)/f's/x.csv: no", "x.csv: no"),
        ("price (/kg), 3 / 6", "price (/kg), 3 / 6"),
        ("runs/a (1)/b/c: no", "runs/a (1)/b/c: no"),
        (f"{folder}2/x", "x"),
        ("at file:///home/ada/m%20n/m.pt: no", "at m.pt: no"),
        ("FILE:/srv/a/b, file://localhost/srv/c, sqlite:///srv/d", "b, c, d"),
        (f"file://{folder}/a/m.pt", "runs/a/m.pt"),
        ("at:/srv/private/a", "at:a"),
        ("1/2 of a/b, ./c/d, text/plain", "1/2 of a/b, ./c/d, text/plain"),
        ("(/home/ada/m.pt)", "(m.pt)"),
        ("Layer 1: 3/9, see https://x.example/a/b", "Layer 1: 3/9, see https://x.example/a/b"),
    ):
        assert without_paths(text, folder) == wanted


def test_a_command_is_cut_word_by_word(folder: Path) -> None:
    for command, wanted in (
        (
            "bilens audit runs/a --data /srv/x/t.csv --history runs --html out/a.html",
            "bilens audit runs/a --data .../t.csv --history runs --html out/a.html",
        ),
        (
            "bilens audit /home/me/a --data b/c.csv --seed 3",
            "bilens audit .../a --data b/c.csv --seed 3",
        ),
        ("bilens audit --data='/home/Ada L/x y/z' 'a b'", "bilens audit --data=.../z 'a b'"),
        (f"bilens audit '{folder}/a b'", "bilens audit '.../runs/a b'"),
        ("Estimator.report()", "Estimator.report()"),
        ("bilens 'open /srv/a/b", "bilens 'open .../b"),
    ):
        assert command_told(command, folder) == wanted


class Holder(Record, frozen=True):
    """A record that holds a place in a field whose name says nothing."""

    edges: AttentionEdges


def test_of_a_document_places_are_cut_and_no_facts(folder: Path) -> None:
    document = make_document()
    document["reproduce"]["command"] = "bilens audit a --data-dir /srv/private/x --json b/c"
    document["source"]["path"] = f"{folder}/a"
    document["source"]["provenance"] = {
        "data_source": "read from the folder /home/Ada L/idx",
        "target": "price (/kg)",
        "command": "bilens train /srv/private/t.csv --out b/c",
    }
    bl.History(folder).add(AuditReport(document).record)
    (folder / "a" / "report.json").write_text(json.dumps(document))
    served = ServedFolder(folder)
    page, said = served.model(id_of("a")), "bilens audit a --data-dir .../x --json b/c"
    assert [one.command for one in page.audits] == [said]
    assert page.model.last is not None
    assert page.model.last.command == said
    for report in (served.audit(1), served.report(id_of("a/report.json"))):
        record = report.record
        assert record.reproduce.command == said
        assert record.source.path == "runs/a"
        assert [*record.source.provenance.values()] == [
            "read from the folder idx",
            "price (/kg)",
            "bilens train .../t.csv --out b/c",
        ]
    changed = TensorChange("/mlp/left/weight", "up", None, "float32", "float32", "changed")
    whole = WholeDifference(1, (changed,), model_alone=("/a/b",))
    found = cut_paths(Difference(BaselineSource("/srv/Ada L/base", ""), (), whole), folder)
    assert (found.baseline.path, found.whole) == ("base", whole)
    edges = AttentionEdges("mlp.in", "/acme/Ada L/sae", "", 4, 1, 1, (), (), 9, 0.05, "")
    assert cut_paths(edges, folder).path == "sae"
    assert cut_paths(Holder(edges), folder).edges.path == "sae"  # seen red: wherever it stands


NAMES = (
    *("/mlp/left/weight", "/model/layers.0/mlp/MatMul_output_0", "encoder/tmp/x:0", "text/plain"),
    *("meta-llama/Llama-2-7b", "https://x.example/home/a/b", "s3://home/a/b", "hf://datasets/a/b"),
    *("and/or ~3/4", "price (/kg)", "<root>a</root>", "model.home/x", r"\s\p{L}+", "Q: a/b"),
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/alice/client-x/run7", "run7"),
        ("/mnt/Ada L/secret client/m.pt", "m.pt"),
        ("trained in /home/Ada L/the client/x.csv, in 3/4 h", "trained in x.csv, in 3/4 h"),
        ("t.py --data=/scratch2/a/b.csv --out runs/c", "t.py --data=b.csv --out runs/c"),
        ("{'d': '/data2/acme/x', 'e': 'q/r'}", "{'d': 'x', 'e': 'q/r'}"),
        (r"C:\Users\Ada L\x\m.pt", "m.pt"),
        ("D:/client/y.bin", "y.bin"),
        (r"\\srv\share\a b\c.bin", "c.bin"),
        (r"C:\\a\\b", "b"),
        (r"\/home\/ada\/m.pt", "m.pt"),
        ("~/client/x.pt or ~ada/client/y.pt", "x.pt or y.pt"),
        ("file:///home/ada/m.pt", "m.pt"),
        *((name, name) for name in NAMES),
    ],
)
def test_of_what_a_model_says_no_place_of_any_machine_is_told(
    folder: Path, text: str, told: str
) -> None:
    """Seen red: metadata of a model told the folders of whoever trained it to everybody."""
    if text not in NAMES[:2]:  # which of a file's words would be places
        assert cut_paths(CardField("x", text, ""), folder).value == told
    assert cut_paths(CardField("x", "/any/where/y", ""), folder).value == "y"


@pytest.mark.parametrize(
    "name", [*NAMES, "/content/news", "/shared/up", "~/x/y", r"\\PC1\CPU(0)\%"]
)
def test_no_name_is_cut_to_that_of_another(folder: Path, name: str) -> None:
    """Seen red: a layer showed the numbers of another, and two categories had one name."""
    group = TensorGroup(name, 1, "", 1, "float32", 4)
    finding = Finding("changed_layers", "fail", {"layers": name})
    notes = (AlignmentNote("outputs_alone", (name,)),)
    assert cut_paths(group, folder) == group
    assert cut_paths(finding, folder) == finding
    assert cut_paths(notes[0], folder) == notes[0]


@pytest.mark.parametrize("named", ["{out}", "../../base", "../base", "link", "\0", "a/model"])
def test_a_base_of_elsewhere_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (folder.parent / "base").mkdir()
    (folder.parent / "base" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "adapter").mkdir()
    (folder / "adapter" / "link").symlink_to(folder.parent / "base")
    if named != "link":
        (folder / "adapter" / "link").unlink()
    content = {"base_model_name_or_path": named.format(out=folder.parent / "base")}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(content))
    (folder / "adapter" / "adapter_model.safetensors").touch()
    monkeypatch.setattr(open_models, "load", lambda _path: pytest.fail("read"))
    monkeypatch.chdir(folder)
    served = ServedFolder(folder)
    if named in ("\0", "a/model"):  # nothing lies there: its reader says so
        assert len(state_of(folder, folder / "adapter")) == 3
        return
    for file in ("adapter", "adapter/adapter_model.safetensors"):
        with pytest.raises(FileError, match="out of the folder"):
            state_of(folder, folder / file)
        with pytest.raises(RefusedError, match="leads out of the folder"):
            check_file(folder, file)
    with pytest.raises(FileError, match="out of the folder"):
        served.opened(id_of("adapter"))


@pytest.mark.parametrize("named", [None, "", ".", "./", "/"])
def test_an_adapter_that_names_no_model_is_refused_by_its_reader(
    folder: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    (folder / "adapter").mkdir()
    content = {"base_model_name_or_path": named}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(content))
    (folder / "adapter" / "adapter_model.safetensors").touch()
    for here in (folder.parent, folder):
        monkeypatch.chdir(here)
        files = {Path(name).parent.name for name, *_ in state_of(folder, folder / "adapter")}
        assert files == {"adapter", "runs"}  # of the folder, itself alone
    (folder.parent / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.chdir(folder.parent)
    refused = pytest.raises(FileError, match="out of the folder")
    with refused if named in (".", "./") else nullcontext():  # a model lies there, to be read
        state_of(folder, folder / "adapter")


def test_a_base_of_the_folder_is_a_part_of_its_adapter(folder: Path) -> None:
    (folder / "adapter").mkdir()
    content = {"base_model_name_or_path": "../a"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(content))
    (folder / "a" / "config.json").write_text('{"model_type": "llama"}')
    before = state_of(folder, folder / "adapter")
    os.utime(folder / "a" / "model.safetensors", ns=(1, 1))
    assert state_of(folder, folder / "adapter") != before
