"""One's own data: a table, arrays or a folder of images, as what a model reads and answers."""

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from msgspec import structs
from torch import Tensor

from bilens.base.errors import DataError, ShapeError, UsageError
from bilens.base.files import check_regular_file, file_sha256
from bilens.base.option_rules import refuse_idle
from bilens.data.arrays import KINDS, Array, read_arrays
from bilens.data.cells import plain_number
from bilens.data.column_numbers import follow_curves
from bilens.data.model_interface import ClassIndex, ClassName, Label, LabelledData, ModelInterface
from bilens.data.own_images import read_images
from bilens.data.table_columns import Cells, curves_of, read_by_curve, spelling_key
from bilens.data.table_file import RawTable, read_table
from bilens.data.table_rows import columns_of, plain_column, with_target
from bilens.records.common import DataOrigin

INPUT_KEYS = ("x_test", "X_test", "x", "X", "images", "data", "inputs", "features")
LABEL_KEYS = ("y_test", "Y_test", "y", "Y", "labels", "label", "targets", "target")
# what columns of right answers are called
ANSWERS = ["label", "labels", "class", "classes", "target", "targets", "answer", "answers", "y"]
ANSWERS += ["ラベル", "クラス", "正解", "正解ラベル", "目的変数"]
Answers: TypeAlias = Array | Tensor | Cells | list[Label] | None
Read: TypeAlias = tuple[Array, Answers]


def read_labelled(path: Path, labels: str | None, model: ModelInterface) -> LabelledData:
    """Return the data at a path: a table, arrays, or a folder with images of each class.

    `labels` is the column or the key of the right answers, or a file that holds them.
    """
    names: tuple[str, ...] = ()
    model = replace(model, notes=[], numbers=[], done=[], empty={})
    if path.is_dir() or path.suffix in KINDS:
        refuse_idle("data", {"encoding": model.encoding})
    if path.is_dir():
        if labels is not None:
            raise UsageError(f"{path}: subfolders of images name the classes: leave --labels out.")
        files, x = read_images(path, model)
        kind, names = "images", tuple(str(file.relative_to(path)) for file in files)
        there = {one.name for one in path.iterdir() if one.is_dir() and one.name[0] != "."}
        named = [file.parent.name for file in files]
        y: Answers = label_folders(model, f"{path}", named, {*there, *named})
        sha256 = hashlib.sha256(x.tobytes() + "\n".join(named).encode()).hexdigest()
    else:
        check_regular_file(path, "expected a table, arrays, or a folder of images", DataError)
        kind, sha256 = "arrays" if path.suffix in KINDS else "table", file_sha256(path)
        if labels is not None and Path(labels).is_file():  # what is right belongs to the data
            both = f"{sha256} {file_sha256(Path(labels))}"
            sha256 = hashlib.sha256(both.encode()).hexdigest()
        x, y = (from_arrays if kind == "arrays" else from_table)(path, labels, model)
    origin = DataOrigin(path.name, str(path), kind, len(x), sha256)
    return labelled(x, y, origin, model, names)


def label_folders(
    model: ModelInterface, where: str, given: Sequence[str], folders: Iterable[str]
) -> list[Label]:
    """Return the labels of folders: names of classes, else their places in the order of texts.

    That is the order in which torchvision and Keras number the folders of a training.
    """
    if model.is_named or model.task == "regression" or not model.answers:
        return [*map(ClassName, given)]
    order, count = sorted(folders), len(model.classes)
    if all(one.isdecimal() for one in order) and order != sorted(order, key=int):
        raise DataError(
            f"{where}: the subfolders are called by numbers ({', '.join(order[:4])}, …), which "
            "torchvision and Keras count in the order of texts and others by their value, and "
            "the model's classes have no names: write all numbers with as many digits (00, "
            "01, …), or name the classes, bl.load(…, output_names=[…]) or --classes."
        )
    if len(order) != count:
        raise DataError(
            f"{where}: has {len(order)} subfolders, and the model {count} classes without "
            "names, so that which is which is not known: make an empty subfolder for each "
            "other class, or name the classes, bl.load(…, output_names=[…]) or --classes."
        )
    model.note("folders", names=f"{', '.join(order[:12])}{', …' if count > 12 else ''}")
    return [ClassIndex(order.index(one)) for one in given]


def labelled(
    x: Array, y: Answers, origin: DataOrigin, model: ModelInterface, names: tuple[str, ...] = ()
) -> LabelledData:
    """Return rows and right answers as a model reads them; their kind says what they are."""
    where, targets = origin.source, None
    inputs = model.encode_rows(where, x)
    if model.reading is not None and origin.source_kind != "table":  # cells are read already
        inputs = follow_curves(inputs, [*curves_of(model.reading.columns).values()])
    answers: Any = y.table.numbers if isinstance(y, Cells) else y
    given = tuple(np.shape(answers))
    if y is None:
        if model.answers:
            model.note("no_labels")
    elif given[:1] != (len(inputs),):
        raise ShapeError(
            f"{where}: {len(inputs)} rows have right answers {given}; expected one each."
        )
    elif model.answers:
        targets = model.encode_labels(where, labels_in(where, y, model))
    shape = tuple(x.shape[1:]) if x.ndim > 2 else None
    origin = structs.replace(origin, notes=tuple(model.notes))
    numbers, done = tuple(model.numbers), tuple(model.done)
    boxes = {"bytes": (0.0, 1.0), "own_scale": (0.0, 255.0)}
    box = next((boxes[note.kind] for note in origin.notes if note.kind in boxes), model.box)
    inside = box is not None and box[0] <= float(inputs.min()) and float(inputs.max()) <= box[1]
    box = box if inside else None
    return LabelledData(inputs, targets, origin, names, shape, numbers, done, box, model.empty)


def labels_in(
    where: str, y: Array | Tensor | Cells | list[Label], model: ModelInterface
) -> list[Label]:
    """Read right answers as labels of a model, from cells, an array or a tensor."""
    if isinstance(y, list):
        return y
    if isinstance(y, Cells):
        found = model.labels_of_cells(y)
        model.done.extend(y.done)
        return found
    return model.labels_of_array(where, as_array(y), isinstance(y, Tensor))


def as_array(part: Any) -> Array:
    """Return an array of a tensor, an array, or what becomes one."""
    if isinstance(part, Tensor):
        part = part.detach().cpu().to_dense()
        part = part.double() if part.is_floating_point() else part
    return np.asarray(part)


def from_table(path: Path, labels: str | None, model: ModelInterface) -> Read:
    """Return rows by the names of the model's inputs, or in the order of the table's columns."""
    table, wanted = read_table(path, model.encoding), model.input_names
    reading = model.reading
    header, target = table.names, model.target if labels is None else labels
    if labels is not None and labels not in header and not Path(labels).is_file():
        if not (labels.isdecimal() and 0 < int(labels) <= len(header)):
            raise DataError(
                f"{path}: has no column {labels!r}, and no file of that name is there; --labels "
                "names a column, or gives its number from 1, of "
                f"{', '.join(header[:8])}{', …' if len(header) > 8 else ''}, or a file."
            )
        target = header[int(labels) - 1]
    if model.reading is not None and model.answers:
        table = with_target(table, target, model.classes)
    target = target if target in header else None
    if wanted is None:
        one_more = target is None and labels is None and len(header) == model.d_input + 1
        answers = column_of_answers(table, model) if one_more else target
        wanted = tuple(name for name in header if name != answers)
        if len(wanted) != model.d_input:
            raise DataError(
                f"{path}: has {len(header)} columns; expected {model.d_input} in the model's "
                "order, and one of right answers (--labels), if there is any."
            )
        model.note("by_position", count=len(wanted), first=wanted[0], last=wanted[-1])
        if target is None and (called := called_answers(wanted)):
            model.note("label_as_input", name=", ".join(called))
        if reading is not None:  # of columns that were numbered
            pairs = zip(wanted, reading.columns, strict=True)
            columns = [read_by_curve(plain_column(name), one.curve) for name, one in pairs]
            reading = structs.replace(reading, columns=tuple(columns))
            wanted = tuple(name for one in reading.columns for name in one.inputs)
    found = columns_of(table, wanted, reading, model.fill)
    rows, used = found.values.numpy(), dict.fromkeys(found.columns)
    model.numbers.extend(table.numbers)
    model.done.extend(found.done)
    model.empty.update(found.empty)
    if [*used] != [name for name in header if name in used]:
        model.note("reordered")
    left = [name for name in header if name not in used]
    if target is None and labels is not None:
        return rows, read_labels(Path(labels))
    if target is None and len(left) == 1 and model.target is None:
        target = left[0]
        model.note("target", column=target)
    if target is None:
        return rows, None
    return rows, Cells(table, target, is_target=True)


def called_answers(names: Sequence[str]) -> list[str]:
    """Return the columns that are called as right answers are; y beside an x is a coordinate."""
    keys = [*map(spelling_key, names)]
    known = {*ANSWERS} - ({"y"} if "x" in keys else set())
    return [name for name, key in zip(names, keys, strict=True) if key in known]


def column_of_answers(table: RawTable, model: ModelInterface) -> str:
    """Return the one column that is no input: by its name, or the last, if only one can be it."""
    called, last = called_answers(table.names), table.names[-1]
    if called == [last]:
        return last
    numbers = model.task == "regression" or (model.task == "unknown" and model.d_output == 1)
    can_last = varies(table, last) and (numbers or are_classes(table, last, model))
    if len(called) == 1:
        can_named = numbers or are_classes(table, called[0], model)
        if can_named and can_last:
            raise DataError(
                f"{table.path}: has one column more than the model has inputs, and both "
                f"{called[0]!r} (by its name) and {last!r} (the last) may be the right answers: "
                f"say --labels {shlex.quote(called[0])} or --labels {shlex.quote(last)}."
            )
        if can_named or can_last:
            return called[0] if can_named else last
    elif not called and varies(table, last):
        if model.d_output == 1 or not model.answers:
            return last
        first = table.names[0]
        if can_last and not (varies(table, first) and are_classes(table, first, model)):
            return last
    raise DataError(
        f"{table.path}: has a column more than the model has inputs, and which one holds the "
        "right answers is not clear from names and cells: name it with --labels, by its name "
        "or its number from 1."
    )


def varies(table: RawTable, name: str) -> bool:
    return len(table.rows) == 1 or len({*table.column(name)}) > 1


def are_classes(table: RawTable, name: str, model: ModelInterface) -> bool:
    """Tell whether each cell of a column is a class of a model, by its name or position."""
    cells = {*table.column(name)}
    places, known = model.places_of(cells), range(len(model.classes) if model.positions else 0)
    numbers = map(plain_number, cells)
    return all(at is not None or n in known for at, n in zip(places, numbers, strict=True))


def from_arrays(path: Path, labels: str | None, model: ModelInterface) -> Read:
    arrays, named = read_arrays(path), None
    part = {"x": ("x_train", "X_train"), "y": ("y_train", "Y_train")} if model.training else {}
    inputs, answers = (*part.get("x", ()), *INPUT_KEYS), (*part.get("y", ()), *LABEL_KEYS)
    key = next((key for key in (*inputs, *arrays) if key in arrays), None)
    if key is None or (len(arrays) > 1 and key not in inputs):
        raise DataError(
            f"{path}: holds {', '.join(map(repr, [*arrays][:8])) or 'no array'}; expected the "
            f"inputs under one of the names {', '.join(inputs)}."
        )
    if len(arrays) > 1:
        named = next((k for k in (labels, *answers) if k in arrays), None)
        model.note("keys", inputs=key, labels=named or "—")
    rows = arrays[key]
    if labels is not None and labels != named:
        return rows, read_labels(Path(labels))
    return rows, None if named is None else arrays[named]


def read_labels(path: Path) -> Answers:
    """Return the right answers in a file: an array, or a table of one column."""
    check_regular_file(path, "--labels names a column or key of the data, or a file", DataError)
    if path.suffix in KINDS:
        found: list[Answers] = [*read_arrays(path).values()]
    else:
        table = read_table(path)
        found = [Cells(table, name, is_target=True) for name in table.names]
    if len(found) != 1:
        raise DataError(f"{path}: expected one column, or one array, of right answers.")
    return found[0]
