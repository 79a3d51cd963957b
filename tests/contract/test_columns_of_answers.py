"""Guards against a column of right answers that is read as an input, and the reverse.

Damage that it notices: the labels of MNIST's tables, which stand first, read as the first pixel; an
input that is called class or y taken for the right answers; a certificate, an explanation or a fit
that does not say which column was taken.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
import tiny
from bilens.api.classifier import explain_predictions
from bilens.api.given_data import given_data
from bilens.base.errors import DataError
from bilens.data.labelled_data import read_labelled
from bilens.data.model_interface import ModelInterface
from bilens.io.loaded_model import LoadedModel
from bilens.records.common import DataOrigin
from bilens.report.terminal import attack_lines, certificate_lines
from commands import Shell
from contract.table import cell

ROWS = 40
THREE = ModelInterface(3, 4, "classification")


def model() -> LoadedModel:
    return tiny.loaded(tiny.trained())


def table(path: Path, first: str | None, last: str | None) -> Path:
    """Images as whole numbers, the last pixel 0 as in most of MNIST, and labels at one end."""
    data = tiny.images()
    x = (data.test_images[:ROWS].flatten(1) * 255).round().int()
    x[:, -1] = 0
    right = data.test_labels[:ROWS].tolist()
    names = [f"pixel{at}" for at in range(x.shape[1])]
    lines = [",".join(filter(None, [first, *names, last]))]
    for row, label in zip(x.tolist(), right, strict=True):
        lines.append(",".join(map(str, [label, *row] if first else [*row, label])))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.mark.parametrize("name", ["label", "Label", "class", "TARGET", "y", "正解"])
@cell("audit", "other function")
def test_a_column_that_is_called_label_is_no_input_wherever_it_stands(
    name: str, tmp_path: Path
) -> None:
    """9 of 60 answers were told right for 48: the labels were the first pixel."""
    wanted = given_data(model(), table(tmp_path / "last.csv", None, name))
    found = given_data(model(), table(tmp_path / "first.csv", name, None))
    assert wanted is not None
    assert found is not None
    assert torch.equal(found.inputs, wanted.inputs)
    assert wanted.targets is not None
    assert found.targets is not None
    assert torch.equal(found.targets, wanted.targets)
    assert found.targets.tolist() == tiny.images().test_labels[:ROWS].tolist()


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


NOT_SAID = {
    "the last is constant": "k,a,b,c\n0,7,8,0\n3,8,9,0\n2,5,6,0\n",
    "the last are no classes": "k,a,b,c\n0,7,8,9\n3,8,9,5\n2,5,6,7\n",
    "both ends are classes": "k,a,b,c\n0,7,8,0\n3,8,9,2\n2,5,6,1\n",
    "no names": "0,7.5,8.5,0\n3,8.5,9,0\n2,5,6.5,0\n",
    "two are called so": "label,a,b,class\n0,7,8,0\n3,8,9,2\n2,5,6,1\n",
}


@pytest.mark.parametrize("name", NOT_SAID)
@cell("audit", "other function")
def test_where_nothing_says_which_column_it_is_the_column_is_asked_for(
    name: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "t.csv", NOT_SAID[name])
    with pytest.raises(DataError, match="name it with --labels, by its name or its number from 1"):
        read_labelled(path, None, replace(THREE, notes=[]))
    found = read_labelled(path, "1", replace(THREE, notes=[]))
    assert found.targets is not None
    assert found.targets.tolist() == [0, 3, 2]
    assert found.inputs.shape == (3, 3)


TWO = ModelInterface(3, 2, "classification", positions=True)
NUMBER = ModelInterface(3, 1)  # as of a module with one output
EITHER = {
    "of numbers, first": (NUMBER, "class,b,c,price\n1,7,8,0.5\n3,8,9,2.5\n", "class"),
    "of numbers, amid": (NUMBER, "a,y,c,price\n1,7,8,0.5\n3,8,9,2.5\n", "y"),
    "a name of two words": (NUMBER, "a,Class,c,net price\n1,7,8,5\n3,8,9,2\n", "Class"),
    "both are classes": (TWO, "class,b,c,survived\n1,7,8,0\n0,8,9,1\n", "class"),
    "a pixel of 0 and 1": (TWO, "label,p0,p1,p2\n1,7,8,0\n0,8,9,1\n", "label"),
    "all of one class": (TWO, "label,p0,p1,p2\n1,7,8,0\n1,8,9,1\n", "label"),
}


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("case", EITHER)
@cell("audit", "other names")
def test_between_a_name_and_the_last_place_the_column_is_asked_for(
    case: str, answers: bool, tmp_path: Path
) -> None:
    """R² −6.74 for 1.0: an input called class was the right answers, the price an input."""
    model, text, name = EITHER[case]
    path, last = written(tmp_path / "t.csv", text), text.split("\n")[0].split(",")[-1]
    with pytest.raises(DataError, match="one column more than the model has inputs") as found:
        read_labelled(path, None, replace(model, answers=answers))
    assert f"both {name!r} (by its name) and {last!r} (the last)" in f"{found.value}"
    asked = f"say --labels {shlex.quote(name)} or --labels {shlex.quote(last)}."
    assert f"{found.value}".endswith(asked)
    assert read_labelled(path, last, model).inputs.shape == (2, 3)


@cell("audit", "other names")
def test_cells_decide_between_a_name_and_the_last_place_where_only_one_can_be_it(
    tmp_path: Path,
) -> None:
    cases = (  # model, table, right answers, notes
        (TWO, "class,b,c,survived\n1,7,8,0\n3,8,9,1\n", [0, 1], ["label_as_input", "target"]),
        (TWO, "label,p0,p1,p2\n1,7,8,0\n0,8,9,170\n", [1, 0], ["target"]),
        (TWO, "label,p0,p1,p2\n1,7,8,0\n0,8,9,0\n", [1, 0], ["target"]),
        (TWO, "label,p0,p1,p2\n0,7,8,0\n0,8,9,0\n", [0, 0], ["target", "one_class"]),
        (NUMBER, "target,b,c,d\n1.5,7,8,0\n3,8,9,0\n", [1.5, 3], ["target"]),
        (NUMBER, "a,b,c,y\n1.5,7,8,0\n3,8,9,2\n", [0, 2], ["target"]),
    )
    for model, text, right, notes in cases:
        path = written(tmp_path / "t.csv", text)
        found = read_labelled(path, None, model)
        assert found.targets is not None
        assert found.targets.tolist() == right, text
        assert [one.kind for one in found.notes] == ["by_position", *notes], text
    path = written(tmp_path / "t.csv", "class,b,c,kind\n7,7,8,5\n3,8,9,6\n")  # neither
    with pytest.raises(DataError, match="name it with --labels, by its name or its number from 1"):
        read_labelled(path, None, TWO)


@cell("audit", "other names")
def test_a_column_called_label_among_as_many_as_inputs_is_said_to_be_an_input(
    tmp_path: Path,
) -> None:
    """Nothing was said of labels beside one column too few but that label is the first input."""
    path = written(tmp_path / "t.csv", "Label,b,c\n0,8,9\n1,9,9\n")
    for answers in (True, False):
        found = read_labelled(path, None, replace(TWO, answers=answers))
        assert found.targets is None
        assert [one.kind for one in found.notes][:2] == ["by_position", "label_as_input"]
        assert found.notes[1].values == {"name": "Label"}
    path = written(tmp_path / "u.csv", "x,y,c\n7,8,9\n8,9,9\n")  # coordinates
    assert "label_as_input" not in [one.kind for one in read_labelled(path, None, TWO).notes]
    path = written(tmp_path / "v.csv", "class,b,c,k\n0,8,9,0\n1,9,9,1\n")  # as the user said
    assert [one.kind for one in read_labelled(path, "k", TWO).notes] == ["by_position"]
    sentences = {"en": "“Label” was read as an input", "ja": "「Label」も入力"}
    bl.save(tiny.trained(), tmp_path / "m")
    rows = table(tmp_path / "w.csv", "Label", None).read_text().split("\n")
    short = written(tmp_path / "w.csv", "\n".join(row.rpartition(",")[0] for row in rows))
    report = bl.audit(model(), short, null_samples=39)
    for lang, sentence in sentences.items():
        report.to_html(tmp_path / f"{lang}.html", lang=lang)
        assert sentence in (tmp_path / f"{lang}.html").read_text()


def test_the_last_column_is_taken_where_nothing_speaks_against_it(tmp_path: Path) -> None:
    for text in ("a,b,c,k\n7,8.5,9,0\n8,9,9,3\n", "x,y,z,k\n7,8.5,9,0\n8,9,9,3\n"):
        found = read_labelled(written(tmp_path / "t.csv", text), None, replace(THREE, notes=[]))
        assert found.targets is not None
        assert found.targets.tolist() == [0, 3]
        assert [one.kind for one in found.notes] == ["by_position", "target"]
    path = written(tmp_path / "u.csv", "label,b,c\n7,8,9\n8,9,9\n")  # nothing is left to decide
    assert read_labelled(path, None, replace(THREE, notes=[])).targets is None


def test_right_answers_in_a_file_leave_no_column_over(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "id,a,b,c\n1,7,8,0\n2,8,9,1\n")
    np.save(tmp_path / "y.npy", np.array([1, 0]))
    with pytest.raises(DataError, match="has 4 columns; expected 3"):
        read_labelled(path, str(tmp_path / "y.npy"), replace(THREE, notes=[]))


# ---- what is said of it


def kinds(data: DataOrigin | None) -> list[str]:
    assert data is not None
    return [one.kind for one in data.notes]


@cell("certify", "own object")
@cell("attack", "own object")
@cell("explain", "own object")
def test_every_document_says_how_its_data_were_read(tmp_path: Path) -> None:
    """Only audits said which columns were inputs, and which one the right answers."""
    path, said = table(tmp_path / "t.csv", "label", None), ["by_position", "target"]
    given = given_data(model(), path)
    certificate, attack = bl.certify_model(model(), path), bl.attack_model(model(), path)
    assert kinds(bl.audit(model(), path, null_samples=39).record.data)[:2] == said
    assert kinds(certificate.record.data)[:2] == said
    assert kinds(attack.record.data)[:2] == said
    assert kinds(explain_predictions(model(), given, [2]).data)[:2] == said
    sentences = {"en": "“label” was taken", "ja": "「label」を正解の列"}
    for report in (certificate, attack):
        for lang, sentence in sentences.items():
            report.to_html(tmp_path / f"{lang}.html", lang=lang)
            assert sentence in (tmp_path / f"{lang}.html").read_text()
    assert any(sentences["en"] in line for line in certificate_lines(certificate.record))
    assert any(sentences["en"] in line for line in attack_lines(attack.record))


@cell("explain", "saved")
@cell("fit", "own object")
@cell("convert", "own object")
def test_commands_say_which_column_was_taken(tmp_path: Path, bilens: Shell) -> None:
    bl.save(tiny.trained(), tmp_path / "m")
    rows = f"{table(tmp_path / 't.csv', 'label', None)}"
    torch.manual_seed(0)
    width = tiny.trained().embed.in_features
    net = torch.nn.Sequential(
        torch.nn.Linear(width, 6), torch.nn.ReLU(), torch.nn.Linear(6, tiny.CLASSES)
    )
    plain = {
        name.replace("0.", "fc1.").replace("2.", "fc2."): p for name, p in net.state_dict().items()
    }
    save_file(plain, tmp_path / "net.safetensors")
    net_path = f"{tmp_path / 'net.safetensors'}"
    made = "--tokens", "40", "--out", tmp_path / "c", "--html", tmp_path / "c.html"
    lines = (
        ["explain", f"{tmp_path / 'm'}", "--index", "2", "--data", rows],
        ["fit", net_path, "--activation", "relu", "--data", rows],
        ["convert", net_path, "--activation", "relu", "--to", "bilinear", "--data", rows, *made],
    )
    for arguments in lines:
        found = bilens(*arguments)
        assert "“label” was taken" in " ".join(found.out.split()), found
    stored = json.loads((tmp_path / "c" / "conversion.json").read_text())
    assert [one["kind"] for one in stored["rows"]["notes"]][:2] == ["by_position", "target"]
    assert "“label” was taken" in (tmp_path / "c.html").read_text()
