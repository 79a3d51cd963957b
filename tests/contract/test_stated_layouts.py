"""Guards against inputs that are laid out or scaled otherwise than the file says, or never run.

Each was seen to fail: of files of Keras and ONNX that read rows, columns and colours, pictures came
colour by colour (accuracy 1.0 told as 0.5), bytes that the file divides by 255 were divided twice,
and a file that reads whole numbers was never run, and was called compared.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bilens as bl
import keras_files
from bilens.base.errors import DataError, NumericalError
from bilens.io.loaded_model import LoadedModel
from bilens.report.sections.decision_page import looked_lines
from bilens.report.text import load_catalogue
from contract.table import cell

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
Image = pytest.importorskip("PIL.Image")
SIDES, COUNT = (6, 5, 3), 60  # rows, columns and colours of a picture
Pictures = np.ndarray[Any, Any]
Predict = Callable[[Pictures], Pictures]


def pictures() -> Pictures:
    """Bytes, each colour of its own brightness, so that no order is like another."""
    drawn = np.random.default_rng(0).integers(0, 100, (COUNT, *SIDES))
    return (drawn + np.array([0, 60, 150])).astype(np.uint8)


def weights() -> tuple[Pictures, ...]:
    """Maps 90 → 8 → 2 of which each of two answers is given to half of all pictures."""
    draw = np.random.default_rng(1)
    first, second = draw.normal(size=(90, 8)), draw.normal(size=(8, 2))
    x = pictures().reshape(COUNT, -1) / 255
    middle = np.median(np.maximum(x @ first - (x @ first).mean(0), 0) @ second, axis=0)
    return first, -(x @ first).mean(0), second, -middle


def in_keras(folder: Path, *before: str) -> tuple[Path, Predict]:
    """A file of Keras with layers before its dense ones, and what Keras itself gives."""
    keras = keras_files.library()
    kinds = {
        "rescaled": lambda: keras.layers.Rescaling(1 / 255),
        "centred": lambda: keras.layers.Rescaling(1 / 127.5, offset=-1.0),
    }
    first = [kinds[one]() for one in before]
    dense = [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input(SIDES), *first, keras.layers.Flatten(), *dense])
    model.set_weights([one.astype("f4") for one in weights()])
    model.save(folder / "model.keras")
    return folder / "model.keras", lambda x: model.predict(x.astype("f4"), verbose=0)


def in_onnx(
    path: Path, kind: str, sides: tuple[int, ...], *before: tuple[Any, ...]
) -> tuple[Path, Predict]:
    """A graph that flattens its input, and what onnx's own evaluator gives."""
    helper, types = onnx.helper, onnx.TensorProto
    steps = [
        *before,
        ("Flatten", "x" if not before else "scaled", "flat"),
        ("Gemm", "flat w b", "h"),
        ("Relu", "h", "r"),
        ("Gemm", "r v c", "y"),
    ]
    nodes = [helper.make_node(n, i.split(), o.split(), **dict(*more)) for n, i, o, *more in steps]
    held = dict(zip("wbvc", (one.astype("f4") for one in weights()), strict=True))
    held["most"] = np.array(255, "f4")
    tensors = [onnx.numpy_helper.from_array(one, name) for name, one in held.items()]
    given = helper.make_tensor_value_info("x", getattr(types, kind), [None, *sides])
    made = helper.make_tensor_value_info("y", types.FLOAT, [None, 2])
    graph = helper.make_graph(nodes, "g", [given], [made], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    runs = reference.ReferenceEvaluator(onnx.load(path))
    dtype = {"UINT8": np.uint8, "FLOAT": np.float32, "INT8": np.int8}[kind]
    return path, lambda x: runs.run(None, {"x": x.astype(dtype)})[0]


CAST = ("Cast", "x", "number", {"to": 1})
SCALED = (CAST, ("Div", "number most", "scaled"))


def file_of(folder: Path, kind: str) -> tuple[Path, Predict, Pictures]:
    """A file, what runs it, and the pictures as it reads them."""
    x, path = pictures(), folder / "model.onnx"
    if kind == "keras":
        return *in_keras(folder), x / 255
    if kind.startswith("keras"):
        return *in_keras(folder, kind.split()[1]), x
    if kind == "onnx":
        return *in_onnx(path, "FLOAT", SIDES), x / 255
    if kind == "onnx colours first":
        return *in_onnx(path, "FLOAT", SIDES[2:] + SIDES[:2]), x.transpose(0, 3, 1, 2) / 255
    if kind == "onnx scaled":
        return *in_onnx(path, "FLOAT", SIDES, ("Div", "x most", "scaled")), x
    return *in_onnx(path, "UINT8", SIDES, *SCALED), x


def accuracy(model: LoadedModel, data: Any) -> tuple[float, set[str]]:
    found = bl.audit(model, data).record.performance
    assert found is not None
    assert found.classification is not None
    return found.classification.accuracy.value, {one.kind for one in found.notes}


KINDS = {
    "keras": "bytes",
    "keras rescaled": "own_scale",
    "keras centred": "own_scale",
    "onnx": "bytes",
    "onnx colours first": "bytes",
    "onnx scaled": "own_scale",
    "onnx bytes": "own_scale",
}


@pytest.mark.parametrize("kind", KINDS)
@cell("audit", "own object")
def test_pictures_come_as_the_file_reads_them(kind: str, tmp_path: Path) -> None:
    path, runs, x = file_of(tmp_path, kind)
    right = runs(x).argmax(axis=1)
    assert 0.1 < right.mean() < 0.9
    for row, (picture, label) in enumerate(zip(pictures(), right, strict=True)):
        (tmp_path / "pictures" / f"{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{label}" / f"{row}.png")
    model = bl.load(path)
    assert model.load_report is not None
    assert model.load_report.verified
    assert accuracy(model, tmp_path / "pictures") == (1.0, {KINDS[kind], "folders"})
    given = pictures() if x.shape[1:] == SIDES else pictures().transpose(0, 3, 1, 2)
    assert accuracy(model, (given, right)) == (1.0, {KINDS[kind]})
    if KINDS[kind] == "own_scale":
        with pytest.raises(DataError, match="scales pixels from 0 to 255 itself"):
            bl.audit(model, (given / 255, right))


BEGINNINGS = {
    "keras rescaled": "x / 255",
    "keras centred": "(x − 127.5) / 127.5",
    "onnx scaled": "x / 255",
    "onnx bytes": "uint8",
}


@pytest.mark.parametrize("kind", BEGINNINGS)
@cell("audit", "own object")
def test_the_scale_of_inputs_that_was_inferred_is_said_on_page_one(
    kind: str, tmp_path: Path
) -> None:
    path, runs, x = file_of(tmp_path, kind)
    model = bl.load(path)
    assert model.provenance["pixels"] == BEGINNINGS[kind]
    report = bl.audit(model, (x, runs(x).argmax(axis=1)))
    note = load_catalogue("en")("performance.note.own_scale", how=BEGINNINGS[kind])
    assert BEGINNINGS[kind] in note
    assert note in page_one(report)


@cell("audit", "own object")
def test_the_order_of_colours_that_was_assumed_is_said_on_page_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(90, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    ).eval()
    for row, picture in enumerate(pictures()):
        (tmp_path / f"{row % 2}").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"{row % 2}" / f"{row}.png")
    said = page_one(bl.audit(bl.from_module(module), tmp_path))
    assert "3 × 6 × 5 was assumed, row by row (and colour by colour)" in said


def page_one(report: Any) -> str:
    """What the decision says was looked at."""
    lines = dict(looked_lines(load_catalogue("en"), report.record))
    return "\n".join(lines[load_catalogue("en")("decision.looked")])


@cell("audit", "other function")
def test_pictures_of_which_no_side_is_known_to_be_colours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p" / "0").mkdir(parents=True)
    Image.fromarray(np.zeros((10, 3), np.uint8)).save(tmp_path / "p" / "0" / "a.png")
    path, _ = in_onnx(tmp_path / "m.onnx", "FLOAT", (3, 10, 3))
    with pytest.raises(DataError, match="whether colours or columns are last"):
        bl.audit(bl.load(path), tmp_path / "p")


# ---- files that are run, or are not called compared


@cell("load file", "own object", "other dtype")
def test_a_file_of_bytes_is_run_on_bytes(tmp_path: Path) -> None:
    """Twice a byte is another byte from 128 on."""
    before = ("Add", "x x", "twice"), ("Cast", "twice", "scaled", {"to": 1})
    path, _ = in_onnx(tmp_path / "m.onnx", "UINT8", (90,), *before)
    with pytest.raises(NumericalError, match="another function than its source: output"):
        bl.load(path)


@pytest.mark.parametrize("kind", ["UINT8", "INT8", "INT64", "UINT16", "BOOL", "FLOAT16", "DOUBLE"])
@cell("load file", "own object", "other dtype")
def test_a_file_is_run_as_a_whole_in_its_type(kind: str, tmp_path: Path) -> None:
    path, _ = in_onnx(tmp_path / "m.onnx", "FLOAT", (90,), ("Cast", "x", "scaled", {"to": 1}))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    onnx.save(model, path)
    report = bl.load(path).load_report
    assert report is not None
    assert (report.verified, [*report.checks]) == (True, ["output"])
    assert "on the whole file" in report.checks["output"].source


@pytest.mark.parametrize("kind", ["BFLOAT16", "STRING"])
@cell("load file", "own object", "other dtype")
def test_a_file_that_nothing_runs_is_unverified_with_the_reason(kind: str, tmp_path: Path) -> None:
    path, _ = in_onnx(tmp_path / "m.onnx", "FLOAT", (90,), ("Cast", "x", "scaled", {"to": 1}))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    onnx.save(model, path)
    found = bl.load(path)
    assert found.load_report is not None
    assert (found.load_report.verified, found.load_report.worst) == (False, None)
    (why,) = found.load_report.unverified
    assert "no runtime here ran the whole file" in why
    coverage = bl.audit(found).record.coverage
    assert (coverage.checked_against, coverage.error) == ("", None)
