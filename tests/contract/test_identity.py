"""Guards against what was kept, accepted or shown of one model and read as if it were another's."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bilens as bl
import tiny
from bilens.api.network_conversion import RECIPE
from bilens.base.errors import FileError, UsageError
from bilens.findings.rules.judgements import is_worse
from bilens.report.text import load_catalogue
from bilens.sweep.manifest import checked_models
from bilens_explorer.export import export
from bilens_explorer.folder import ServedFolder
from bilens_explorer.records.models import id_of
from commands import USAGE, Shell, model_folder
from contract.table import cell
from explorer_server import client_of
from report_documents import audit_of, make_document
from sweep_runs import made
from trace_documents import make_trace

INPUTS, HIDDEN, CLASSES, ROWS = 5, 7, 3, 120
Line = list[Any]


def write_mlp(path: Path, seed: int = 0) -> Path:
    """An MLP whose file says neither its activation nor which of two matrices is the gate."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"a": (HIDDEN, INPUTS), "b": (HIDDEN, INPUTS), "c": (CLASSES, HIDDEN)}
    save_file({name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}, path)
    return path


def write_rows(path: Path) -> Path:
    """Rows with labels of which the model knows nothing."""
    draw = np.random.default_rng(0)
    x, labels = draw.normal(size=(ROWS, INPUTS)), draw.integers(0, CLASSES, ROWS)
    lines = [",".join([*(f"x{index}" for index in range(INPUTS)), "label"])]
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        lines.append(",".join([*map(repr, row), str(label)]))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Line]:
    """The command of an audit by its parts; each may be replaced by another one."""
    write_mlp(tmp_path / "m.safetensors")
    write_mlp(tmp_path / "base.safetensors", seed=1)
    write_rows(tmp_path / "d.csv")
    return {
        "model": ["audit", tmp_path / "m.safetensors"],
        "map": ["--map", "gate=a", "--map", "up=b", "--map", "down=c"],
        "activation": ["--activation", "relu"],
        "data": ["--data", tmp_path / "d.csv"],
        "baseline": ["--baseline", tmp_path / "base.safetensors"],
        "options": ["--null-samples", "3"],
        "asked": ["--fail-on", "accuracy<0.99", "--history", tmp_path],
    }


def others(folder: Path) -> dict[str, dict[str, Line]]:
    """What a run may be of instead: by the part of the identity that is another then."""
    write_mlp(folder / "base2.safetensors", seed=2)
    lines = (folder / "d.csv").read_text().splitlines()
    (folder / "fewer.csv").write_text("\n".join(lines[:-9]))
    moved = [row.rpartition(",")[0] + "," + str((int(row[-1]) + 1) % 3) for row in lines[1:]]
    (folder / "labels.csv").write_text("\n".join([lines[0], *moved]))
    return {
        "activation": {"activation": ["--activation", "tanh"]},
        "map": {"map": ["--map", "gate=b", "--map", "up=a", "--map", "down=c"]},
        "rows": {"data": ["--data", folder / "fewer.csv"]},
        "labels": {"data": ["--data", folder / "labels.csv"]},
        "baseline": {"baseline": ["--baseline", folder / "base2.safetensors"]},
        "no baseline": {"baseline": []},
        "options": {"options": ["--null-samples", "4"]},
        "seed": {"options": ["--null-samples", "3", "--seed", "1"]},
    }


def run(bilens: Shell, line: dict[str, Line]) -> Any:
    return bilens(*[word for part in line.values() for word in part])


def accept_everything(folder: Path) -> None:
    history = bl.History(folder)
    last = history.audits()[0]
    for rule in last.failed:
        history.say("accept", last.model, f"rule:{rule}", "known", "Ada")


@cell("audit", "other function", "saved")
def test_an_acceptance_is_of_one_identity(
    bilens: Shell, tmp_path: Path, line: dict[str, Line]
) -> None:
    assert run(bilens, line).code == 1
    accept_everything(tmp_path)
    assert run(bilens, line).code == 0, "the same audit again"
    for part, change in others(tmp_path).items():
        ended = run(bilens, line | change)
        assert ended.code == 1, part
        assert "that does not count here" in ended.err, part
    assert run(bilens, line).code == 0, "and the same once more"
    write_mlp(tmp_path / "base.safetensors", seed=6)
    assert run(bilens, line).code == 1, "another baseline at the same path"
    write_mlp(tmp_path / "base.safetensors", seed=1)
    assert run(bilens, line).code == 0
    write_mlp(tmp_path / "m.safetensors", seed=5)
    assert run(bilens, line).code == 1, "weights"


@cell("audit", "other function")
def test_an_accepted_number_that_may_be_better_on_either_side_may_not_move() -> None:
    ends = [("warn", value) for value in (2.0, 3.0)]
    assert all(is_worse("classes", "beyond_null", then, now) for then, now in permutations(ends))
    assert not any(is_worse("classes", "beyond_null", end, end) for end in ends)
    assert is_worse("classes", "accuracy", ("warn", 0.8), ("warn", 0.7))
    assert not is_worse("classes", "accuracy", ("warn", 0.7), ("warn", 0.8))


def audited_folder(bilens: Shell, root: Path) -> Path:
    """Two models, one of them audited on data under a condition, with a history beside them."""
    root.mkdir()
    for name, seed in (("first", 0), ("second", 1)):
        model_folder(root / name, tiny.classifier(seed), input_shape=(tiny.SIDE, tiny.SIDE))
    data = tiny.images()
    np.savez(root / "rows.npz", x=data.test_images, y=data.test_labels)
    line = ["audit", root / "first", "--data", root / "rows.npz", "--null-samples", tiny.ROTATIONS]
    assert bilens(*line, "--fail-on", "accuracy<0.95", "--history", root).code == 1
    return root


def replace_weights(folder: Path) -> None:
    model_folder(folder.with_name("new"), tiny.classifier(7), input_shape=(tiny.SIDE, tiny.SIDE))
    (folder.with_name("new") / "model.safetensors").replace(folder / "model.safetensors")
    shutil.rmtree(folder.with_name("new"))


def replace_configuration(folder: Path) -> None:
    """The same weights with other words beside them."""
    path = folder / "config.json"
    path.write_text(path.read_text().rstrip()[:-1] + ', "note": "another"}')


@cell("explore", "other function", "same function")
@pytest.mark.parametrize("change", [replace_weights, replace_configuration])
def test_a_model_that_changed_since_its_audit_has_no_badge(
    bilens: Shell, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = audited_folder(bilens, tmp_path / "runs")
    key, words = id_of("first"), load_catalogue("en")
    answer, changed = words("decision.do_not_use"), words("explorer.state_of.changed")
    with client_of(root) as client:
        summary = f"/models/{key}/summary"
        assert all(answer in client.get(at).text for at in ("/", f"/models/{key}", summary))
        change(root / "first")
        for at in ("/", f"/models/{key}"):
            page = re.sub("<(select|table)[^>]*>.*?</(select|table)>", "", client.get(at).text)
            row = client.get(at).text.partition(f'value="{key}"')[2].partition("</tr>")[0]
            assert changed in (row if at == "/" else page)
            assert 'class="badge' not in (row if at == "/" else page.partition("<h2")[0])
        paper = client.get(summary).text
        assert "model.safetensors" in paper or "config.json" in paper
        assert answer not in paper
        (one,) = (
            row for row in client.get("/api/v1/overview").json()["models"] if row["id"] == key
        )
        assert one["state"] == "changed"
        assert one["approvals"] == []


@cell("explore", "saved", "other function")
def test_what_is_offered_is_the_audit_that_was_run(
    bilens: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = audited_folder(bilens, tmp_path / "runs")
    with client_of(root) as client:
        page = client.get(f"/models/{id_of('first')}").text
        other = client.get(f"/models/{id_of('second')}").text
    offered = unescape(re.search("<pre><code>(bilens audit .*?)</code>", page)[1])
    for part in ("--data", "rows.npz", "accuracy<0.95", f"--null-samples={tiny.ROTATIONS}"):
        assert part in offered
    monkeypatch.chdir(root)  # as the page says
    assert bilens(*shlex.split(offered)[1:]).code == 1, "and it ends as it ended"
    assert "bilens audit --history . second" in other


@cell("explore", "saved")
@pytest.mark.parametrize("recorded", [False, True])
def test_a_report_that_only_lies_there_earns_no_badge(tmp_path: Path, *, recorded: bool) -> None:
    model_folder(tmp_path / "m", tiny.classifier())
    report = audit_of(tmp_path / "m")
    report.to_json(tmp_path / "m" / "report.json")
    if recorded:
        bl.History(tmp_path).add(report.record)
    with client_of(tmp_path) as client:
        home, page = client.get("/").text, client.get(f"/models/{id_of('m')}").text
    assert ('class="badge' in home) is recorded
    assert ('class="badge' in page) is recorded
    assert "m/report.json" in page


@cell("explore", "same function")
def test_both_edges_of_chance_are_as_far_from_zero(tmp_path: Path) -> None:
    """With a rotation also its negative is one: chance gives both signs alike."""
    model_folder(tmp_path / "m", tiny.classifier(), input_shape=(tiny.SIDE, tiny.SIDE))
    with client_of(tmp_path) as client:
        asked = f"/api/v1/models/{id_of('m')}/null?layer=layers.0&output=1"
        band = client.get(asked).json()
    assert band["lower"] == -band["upper"] < 0


DEEP = b'{"kind": "audit", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


def later_word(document: dict[str, Any], *path: Any) -> bytes:
    """A document with a word in it that only a later release knows."""
    inner = document
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = "a later word"
    return json.dumps(document).encode()


DAMAGED = {
    "later word": lambda: later_word(make_document(), "coverage", "groups", 0, "reason"),
    "later word of a trace": lambda: later_word(make_trace(), "saes", 0, "sign"),
    "no kind": lambda: json.dumps({**make_document(), "kind": None}).encode(),
    "kind of a part": lambda: b'{"model": {"kind": "audit"}}',
    "deep": lambda: DEEP,
    "bytes": lambda: json.dumps(make_document()).encode()[:2000] + b"\xff\xfe",
}


@cell("explore", "saved")
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_document_that_cannot_be_shown_ends_nothing_else(tmp_path: Path, damage: str) -> None:
    for name in "ab":
        model_folder(tmp_path / name, tiny.classifier())
    written = DAMAGED[damage]()
    sha256 = hashlib.sha256((tmp_path / "a" / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "a" / "report.json").write_bytes(written.replace(b"a" * 64, sha256.encode()))
    with client_of(tmp_path) as client:
        for at in ("/", f"/models/{id_of('a')}", f"/models/{id_of('b')}", "/api/v1/overview"):
            assert client.get(at).status_code == 200
        answer = client.get(f"/reports/{id_of('a/report.json')}")
    assert answer.status_code in (404, 503), "it says so itself"
    html = export(ServedFolder(tmp_path, exporting=True), "en").html
    assert all(id_of(name) in html for name in "ab")


def layers_line(folder: Path, **changes: Line) -> Line:
    parts = {
        "map": ["--map", "up=a", "--map", "down=c"],
        "activation": ["--activation", "relu"],
        "options": ["--top", "2", "--null-samples", "0"],
    }
    model = ["decompose", folder / "m.safetensors", "--out", folder / "out"]
    return [*model, *(word for part in (parts | changes).values() for word in part)]


@cell("decompose", "resumed", "saved", "same function", "other function")
def test_a_folder_of_decompositions_is_of_one_identity(bilens: Shell, tmp_path: Path) -> None:
    write_mlp(tmp_path / "m.safetensors")
    assert bilens(*layers_line(tmp_path)).code == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert bilens(*layers_line(tmp_path)).code == 0
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    changes: dict[str, Line] = {
        "map": ["--map", "up=b", "--map", "down=c"],
        "activation": ["--activation", "tanh"],
        "options": ["--top", "3", "--null-samples", "0"],
    }
    for part, change in changes.items():
        result = bilens(*layers_line(tmp_path, **{part: change}))
        assert (result.code, "another model" in result.err) == (USAGE, True), part
    write_mlp(tmp_path / "m.safetensors", seed=9)
    assert bilens(*layers_line(tmp_path)).code == USAGE


@cell("decompose", "other names")
def test_a_folder_of_decompositions_is_of_the_names_that_stand_in_it(
    bilens: Shell, tmp_path: Path
) -> None:
    model = model_folder(tmp_path / "m", tiny.classifier(), output_names=("a", "b", "c"))
    line = ["decompose", model, "--top", "2", "--null-samples", "0", "--out", tmp_path / "out"]
    assert bilens(*line).code == 0
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"output_names": ["a", "c", "b"]}))
    assert bilens(*line).code == USAGE, "numbers of one class under the name of another"


@cell("sweep", "resumed", "other function")
def test_a_sweep_goes_on_beside_the_same_configuration_alone(tmp_path: Path) -> None:
    swept = made(tmp_path)
    plan = swept.plan()
    checked_models(plan, 0, anew=True)
    path = swept.model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.5}))
    with pytest.raises(FileError, match="is not the model"):
        checked_models(plan, 0, anew=True)


def network(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(4, 6), activation, nn.Linear(6, 5), activation, nn.Linear(5, 3))
    ).eval()


@cell("audit", "other function")
def test_inputs_of_layers_are_of_one_reading() -> None:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    seen = bl.layer_inputs(network(nn.ReLU()), x)
    bl.audit(bl.from_module(network(nn.ReLU())), inputs=seen, null_samples=3)
    with pytest.raises(UsageError, match="record them of this reading"):
        bl.audit(bl.from_module(network(nn.Tanh())), inputs=seen, null_samples=3)


@cell("convert", "resumed", "other function")
def test_a_conversion_goes_on_with_the_same_network_alone(tmp_path: Path) -> None:
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(1))
    recipe = replace(RECIPE, layer_steps=0, batch_size=32, skip=("distillation",))
    first, other = (bl.from_module(network(one)) for one in (nn.ReLU(), nn.Tanh()))
    bl.convert_network(first, x, tmp_path / "out", recipe)
    bl.convert_network(first, x, tmp_path / "out", recipe, resume=True)
    with pytest.raises(UsageError, match=r"was started with .*activations"):
        bl.convert_network(other, x, tmp_path / "out", recipe, resume=True)
