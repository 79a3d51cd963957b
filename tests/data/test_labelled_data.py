"""One's own data: every kind of file gives the same rows; what does not fit is one sentence."""

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bilens.base.errors import BilensError, DataError, MemoryLimitError, ShapeError, UsageError
from bilens.data.labelled_data import read_labelled
from bilens.data.model_interface import ModelInterface

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 2, 1, 1])
MODEL = ModelInterface(3, 3, "classification")
NAMED = replace(MODEL, input_names=("a", "b", "c"), output_names=("cat", "dog", "owl"))
NUMBER = ModelInterface(3, 1, "regression")
WORDS = np.array(["cat", "owl", "dog", "dog"])


def model(base: ModelInterface = MODEL, **changes: Any) -> ModelInterface:
    """A model of its own: its notes are written into."""
    return replace(base, notes=[], **changes)


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def csv(path: Path, labels: Any = Y, names: str = "a,b,c,y") -> Path:
    rows = [",".join(map(str, [*x, y])) for x, y in zip(X.tolist(), labels, strict=True)]
    return table(path, "\n".join([names, *rows]))


def saved(path: Path, *arrays: Any, **named: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, *arrays, allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, **named)
    else:
        save_file({name: torch.tensor(part) for name, part in named.items()}, path)
    return path


def with_file(folder: Path) -> Path:
    saved(folder / "labels.npy", Y)
    return saved(folder / "inputs.npy", X)


FILES: dict[str, tuple[Callable[[Path], Path], str | None]] = {
    "csv": (lambda at: csv(at / "t.csv"), None),
    "csv, column named": (lambda at: csv(at / "t.csv", names="a,b,c,z"), "z"),
    "npy, file": (with_file, "labels.npy"),
    "npz": (lambda at: saved(at / "t.npz", x=X, y=Y), None),
    "npz of Keras": (lambda at: saved(at / "t.npz", x_train=X[:2], x_test=X, y_test=Y), None),
    "npz, key named": (lambda at: saved(at / "t.npz", data=X, y=Y[::-1], grade=Y), "grade"),
    "safetensors": (lambda at: saved(at / "t.safetensors", X=X, labels=Y), None),
    "one-column labels": (lambda at: saved(at / "t.npz", x=X, y=Y[:, None]), None),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    write, labels = FILES[name]
    path = write(tmp_path)
    if labels is not None and "." in labels:
        labels = str(tmp_path / labels)
    found = read_labelled(path, labels, model())
    assert found.inputs.tolist() == X.tolist()
    assert found.targets is not None
    assert (found.targets.dtype, found.targets.tolist()) == (torch.int64, Y.tolist())
    assert (found.origin.num_images, len(found.origin.sha256)) == (4, 64)
    assert "no_labels" not in [one.kind for one in found.notes]


def test_tensors_keep_the_digits_that_they_have(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        given = (torch.from_numpy(X) / 3).to(dtype)
        save_file({"X": given}, tmp_path / "t.safetensors")
        found = read_labelled(tmp_path / "t.safetensors", None, model())
        assert torch.equal(found.inputs, given.double())


def kinds(path: Path, interface: ModelInterface, labels: str | None = None) -> list[str]:
    return [one.kind for one in read_labelled(path, labels, interface).notes]


LABELS: dict[str, tuple[Any, dict[str, Any], list[int], list[str]]] = {
    "names": (WORDS, {"output_names": ("cat", "dog", "owl")}, [0, 2, 1, 1], []),
    "positions": (
        Y,
        {"output_names": ("cat", "dog", "owl"), "positions": True},
        [0, 2, 1, 1],
        ["positions"],
    ),
    "numbers for names": (Y + 7, {"output_names": ("7", "8", "9")}, [0, 2, 1, 1], []),
    "whole floats": (Y.astype(float), {}, [0, 2, 1, 1], []),
    "true and false": (Y > 0, {"d_output": 2}, [0, 1, 1, 1], ["positions"]),
    "one logit": (Y > 0, {"d_output": 1, "task": "unknown"}, [0, 1, 1, 1], ["one_logit"]),
    "one class": (0 * Y, {}, [0, 0, 0, 0], ["one_class"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_become_classes_and_what_is_taken_for_granted_is_said(
    name: str, tmp_path: Path
) -> None:
    labels, changes, expected, notes = LABELS[name]
    found = read_labelled(saved(tmp_path / "t.npz", x=X, y=labels), None, model(**changes))
    assert found.targets is not None
    assert found.targets.tolist() == expected
    said = [one.kind for one in found.notes]
    assert [kind for kind in notes if kind not in said] == []
    assert notes or said == ["keys"]


def test_columns_are_taken_by_name_whatever_their_order(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "y,c,id,a,b\ndog,3,9,1,2\ncat,6,8,4,5\n")
    found = read_labelled(path, "y", model(NAMED))
    assert found.inputs.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert found.targets is not None
    assert found.targets.tolist() == [1, 0]
    assert [one.kind for one in found.notes] == ["reordered"]
    assert kinds(path, model(NAMED)) == ["reordered", "no_labels"]  # y or id: nothing says which
    assert kinds(path, model(NAMED, target="y")) == ["reordered"]
    one_left = table(tmp_path / "u.csv", "a,b,c,kind\n1,2,3,dog\n4,5,6,cat\n")
    assert kinds(one_left, model(NAMED)) == ["target"]
    assert read_labelled(one_left, None, model(NAMED, answers=False)).targets is None


def test_the_column_of_right_answers_is_no_input_wherever_it_stands(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "y,a,b,c\n1,1,2,3\n0,4,5,6\n")
    found = read_labelled(path, "y", model())
    assert found.inputs.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert found.targets is not None
    assert found.targets.tolist() == [1, 0]
    assert [one.kind for one in found.notes] == ["by_position"]


def test_labels_that_are_no_column_and_no_file_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", WORDS)
    with pytest.raises(DataError, match=r"no column 'nosuch'.* of a, b, c, y, or a file"):
        read_labelled(path, "nosuch", model(NAMED, target="y"))
    other = saved(tmp_path / "labels.npy", WORDS[::-1])
    found = read_labelled(path, str(other), model(NAMED, target="y"))
    assert found.targets is not None
    assert found.targets.tolist() == [1, 1, 2, 0]


def test_numbers_are_targets_of_a_regression(tmp_path: Path) -> None:
    found = read_labelled(csv(tmp_path / "t.csv", [0.5, 1, -2, 3]), None, model(NUMBER))
    assert found.targets is not None
    assert (found.targets.dtype, found.targets.tolist()) == (torch.float64, [0.5, 1, -2, 3])
    unknown = replace(NUMBER, task="unknown", notes=[])
    found = read_labelled(saved(tmp_path / "t.npz", x=X, y=Y), None, unknown)
    assert found.targets is not None
    assert found.targets.dtype == torch.float64


def test_bytes_of_images_are_scaled_and_colours_moved(tmp_path: Path) -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    path = saved(tmp_path / "t.npz", images=pixels, labels=np.array([0, 1]))
    plain = read_labelled(path, None, ModelInterface(60, 2))
    assert torch.equal(plain.inputs, torch.tensor(pixels).flatten(1).double() / 255)
    assert plain.shape == (4, 5, 3)
    with pytest.raises(ShapeError, match=r"shape \(2, 4, 5, 3\).* expected \(rows, 3, 4, 5\)"):
        read_labelled(path, None, ModelInterface(60, 2, input_shape=(3, 4, 5)))
    counts = saved(tmp_path / "u.npz", x=X.astype(np.uint8), y=Y)
    assert read_labelled(counts, None, model()).inputs.tolist() == X.tolist()  # no image: as it is


def pictures(folder: Path, mode: str = "L", size: tuple[int, int] = (5, 4)) -> Path:
    generator = np.random.default_rng(0)
    for name in ("owl", "cat"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = generator.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")
    return folder


def pixels_of(folder: Path, mode: str) -> np.ndarray:
    files = sorted(folder.glob("*/*.png"))
    return np.stack([np.asarray(Image.open(file).convert(mode)) for file in files]) / 255


def test_a_folder_of_images_is_read_as_the_model_reads_images(tmp_path: Path) -> None:
    grey = pictures(tmp_path / "grey")
    (grey / "owl" / "notes.txt").write_text("no image, and left out")
    names = ("owl", "cat")
    wanted = ModelInterface(20, 2, input_shape=(4, 5), output_names=names, notes=[])
    found = read_labelled(grey, None, wanted)
    assert torch.equal(found.inputs, torch.tensor(pixels_of(grey, "L")).flatten(1))
    assert found.targets is not None
    assert found.targets.tolist() == [1, 1, 0, 0]
    assert found.names[0] == "cat/0.png"
    assert [one.kind for one in found.notes] == ["bytes"]
    rgb = pictures(tmp_path / "rgb", "RGBA")
    planes = torch.tensor(pixels_of(rgb, "RGB"))
    first = ModelInterface(60, 2, input_shape=(3, 4, 5), output_names=names, notes=[])
    assert torch.equal(read_labelled(rgb, None, first).inputs, planes.movedim(3, 1).flatten(1))
    last = replace(first, input_shape=(4, 5, 3), notes=[])
    assert torch.equal(read_labelled(rgb, None, last).inputs, planes.flatten(1))
    assert kinds(rgb, replace(wanted, notes=[])) == ["grey", "bytes"]
    assert kinds(rgb, replace(first, notes=[])) == ["rgb", "bytes"]
    assumed = read_labelled(rgb, None, replace(first, input_shape=None, notes=[]))
    assert assumed.shape == (3, 4, 5)
    assert assumed.notes[0].kind == "assumed_image"


def raw(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def cut(write: Callable[[Path], Path], bytes_left: float) -> Callable[[Path], Path]:
    def prepare(path: Path) -> Path:
        content = write(path).read_bytes()
        path.write_bytes(content[: int(bytes_left * len(content))])
        return path

    return prepare


def header(shape: tuple[int, ...]) -> bytes:
    """An .npy file that declares a shape and holds 64 bytes."""
    file = io.BytesIO()
    content = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, content)
    return file.getvalue() + bytes(64)


def bomb(path: Path) -> Path:
    """An archive of a few kB that unpacks to 512 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((2**16, 2**10))[:-64] + bytes(2**29))
    return path


def in_folder(**files: str | bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        for name, content in files.items():
            file = path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.mkdir(exist_ok=True)
        return path

    return write


def deep_picture(path: Path) -> Path:
    (path / "cat").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(path / "cat" / "a.png")
    return path


NAN = np.where(X == 4, np.nan, X)
IMAGES = ModelInterface(20, 2, input_shape=(4, 5), output_names=("owl", "cat"))
Case = tuple[str, Callable[[Path], Path], ModelInterface, type[BilensError], str]
BAD: dict[str, Case] = {
    "missing": ("t.csv", lambda path: path, MODEL, DataError, "no such file; expected a table"),
    "empty": ("t.csv", raw(b""), MODEL, DataError, "is empty"),
    "header alone": ("t.csv", raw(b"a,b,c,y\n"), MODEL, DataError, "holds no rows"),
    "renamed": ("t.csv", raw(b"a,B,c,y\n1,2,3,cat\n"), NAMED, DataError, "of the name 'b'; the mo"),
    "column missing": ("t.csv", raw(b"a,c,y\n1,3,cat\n"), NAMED, DataError, "of the name 'b'"),
    "of another type": ("t.csv", raw(b"a,b,c\n1,x,3\n"), NAMED, DataError, "row 2 has 'x' in col"),
    "too many columns": (
        "t.csv",
        raw(b"a,b,c,d,e\n1,2,3,4,5\n"),
        MODEL,
        DataError,
        "has 5 columns; expected 3",
    ),
    "no names": (
        "t.csv",
        raw(b"1,2,3,0,9\n4,5,6,1,9\n"),
        MODEL,
        DataError,
        "has 5 columns; expected 3",
    ),
    "never seen": (
        "t.csv",
        raw(b"a,b,c,y\n1,2,3,cat\n4,5,6,bee\n"),
        NAMED,
        DataError,
        r"row 3 has the label 'bee', which is no class of the model \(cat, dog, owl\)",
    ),
    "names of no class": (
        "t.npz",
        lambda path: saved(path, x=X, y=WORDS),
        MODEL,
        DataError,
        r"row 0 has the label 'cat', which is no class of the model \(0, 1, 2\)",
    ),
    "names of none of nine classes": (
        "t.npz",
        lambda path: saved(path, x=X, y=WORDS),
        replace(MODEL, d_output=9),
        DataError,
        r"no class of the model \(0, 1, 2, 3, 4, 5, 6, 7, …\)",
    ),
    "numbers for classes with names": (
        "t.npz",
        lambda path: saved(path, x=X, y=Y),
        NAMED,
        DataError,
        "the labels are 0, 1, 2, .* are called cat, dog, owl: .* Write these names as the labels",
    ),
    "truth for classes with names": (
        "t.npz",
        lambda path: saved(path, x=X, y=Y > 0),
        replace(MODEL, d_output=2, output_names=("yes", "no")),
        DataError,
        "the labels are False, True, .* are called yes, no",
    ),
    "beyond the classes": (
        "t.npz",
        lambda path: saved(path, x=X, y=np.arange(4)),
        MODEL,
        DataError,
        "row 3 has the label '3'",
    ),
    "constant": ("t.csv", raw(b"a,b,c,y\n1,2,3,7\n4,5,6,7\n"), NUMBER, DataError, "is 7 in every"),
    "text target": ("t.npz", lambda p: saved(p, x=X, y=WORDS), NUMBER, DataError, "0 has 'cat'"),
    "NaN target": (
        "t.npz",
        lambda p: saved(p, x=X, y=NAN[:, 1]),
        NUMBER,
        DataError,
        "row 1 has 'nan'",
    ),
    "NaN": ("t.npy", lambda p: saved(p, NAN), MODEL, DataError, "row 1 and 0 more hold NaN"),
    "wrong width": (
        "t.npy",
        lambda p: saved(p, X[:, :2]),
        MODEL,
        ShapeError,
        r"expected \(rows, 3\)",
    ),
    "no rows": ("t.npy", lambda p: saved(p, X[:0]), MODEL, ShapeError, r"shape \(0, 3\)"),
    "wrong shape": (
        "t.npz",
        lambda p: saved(p, x=np.zeros((2, 5, 4)), y=Y[:2]),
        IMAGES,
        ShapeError,
        r"shape \(2, 5, 4\).* expected \(rows, 4, 5\)",
    ),
    "complex": ("t.npy", lambda p: saved(p, X * 1j), MODEL, DataError, "expected real numbers"),
    "one-hot": ("t.npz", lambda p: saved(p, x=X, y=np.eye(3)[Y]), MODEL, DataError, "take argmax"),
    "fewer labels": (
        "t.npz",
        lambda p: saved(p, x=X, y=Y[:3]),
        MODEL,
        ShapeError,
        "4 rows have right answers .3,",
    ),
    "no inputs": (
        "t.npz",
        lambda p: saved(p, foo=X, bar=X),
        MODEL,
        DataError,
        "holds 'foo', 'bar'",
    ),
    "objects": (
        "t.npy",
        lambda p: saved(p, np.array([{}, 1], object)),
        MODEL,
        DataError,
        "pickled objects, which can run code",
    ),
    "objects in an archive": (
        "t.npz",
        lambda p: saved(p, x=np.array([{}], object)),
        MODEL,
        DataError,
        "x.npy: holds pickled objects",
    ),
    "a pickle": ("t.npy", raw(pickle.dumps(X)), MODEL, DataError, "is not a file of arrays"),
    "truncated npy": (
        "t.npy",
        cut(lambda p: saved(p, X), 0.8),
        MODEL,
        DataError,
        "is damaged, save",
    ),
    "truncated npz": (
        "t.npz",
        cut(lambda p: saved(p, x=X), 0.5),
        MODEL,
        DataError,
        "or is damaged",
    ),
    "truncated safetensors": (
        "t.safetensors",
        cut(lambda p: saved(p, x=X), 0.8),
        MODEL,
        DataError,
        "is not a file of arrays",
    ),
    "a huge header": ("t.npy", raw(header((10**9, 3))), MODEL, DataError, "declares the shape"),
    "a negative header": ("t.npy", raw(header((-1, 3))), MODEL, DataError, "declares the shape"),
    "a zip bomb": ("t.npz", bomb, MODEL, MemoryLimitError, "unpacked, needs 1.50 GiB"),
    "an empty folder": ("t", in_folder(), MODEL, DataError, "holds no data; expected a subfold"),
    "no image": ("t", in_folder(cat__a_png=b""), IMAGES, DataError, "holds no data"),
    "a damaged image": (
        "t",
        in_folder(**{"cat/a.png": b"\x89PNG\r\n\x1a\n"}),
        IMAGES,
        DataError,
        "is no image, or is damaged",
    ),
    "another size": (
        "t",
        lambda path: pictures(path, size=(6, 4)),
        IMAGES,
        DataError,
        r"is 4 × 6 pixels; the model reads \(4, 5\): scale it",
    ),
    "another class": (
        "t",
        pictures,
        replace(IMAGES, output_names=("owl", "dog")),
        DataError,
        "has the label 'cat'",
    ),
    "16 bits": ("t", deep_picture, IMAGES, DataError, "expected 8 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write, interface, error, words = BAD[name]
    if error is MemoryLimitError:
        monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1G")
    path = write(tmp_path / file)
    with pytest.raises(error, match=words) as caught:
        read_labelled(path, None, replace(interface, notes=[]))
    assert "\n" not in str(caught.value)


def test_labels_that_are_nowhere_and_labels_of_images_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.npy", X)
    with pytest.raises(DataError, match="--labels names a column or key of the data, or a file"):
        read_labelled(path, "grade", model())
    with pytest.raises(UsageError, match="name the classes: leave --labels out"):
        read_labelled(pictures(tmp_path / "images"), "grade", replace(IMAGES, notes=[]))
