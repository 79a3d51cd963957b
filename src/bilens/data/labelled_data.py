"""One's own data: a table, arrays or a folder of images, as what a model reads and answers."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import DataError, ShapeError, UsageError
from bilens.base.files import check_regular_file, file_sha256
from bilens.base.memory import check_memory
from bilens.base.option_rules import refuse_idle
from bilens.data.arrays import KINDS, Array, read_arrays
from bilens.data.image_folder import read_images
from bilens.data.model_interface import LabelledData, ModelInterface, targets_of
from bilens.data.table_columns import Cells
from bilens.data.table_file import read_table
from bilens.data.tables import answers_of, columns_of, with_target
from bilens.records.common import DataOrigin

INPUT_KEYS = ("x_test", "X_test", "x", "X", "images", "data", "inputs", "features")
LABEL_KEYS = ("y_test", "Y_test", "y", "Y", "labels", "label", "targets", "target")
Answers: TypeAlias = Array | Sequence[str] | None
Read: TypeAlias = tuple[Array, Answers]


def read_labelled(path: Path, labels: str | None, model: ModelInterface) -> LabelledData:
    """Return the data at a path: a table, arrays, or a folder with images of each class.

    `labels` is the column or the key of the right answers, or a file that holds them.
    """
    names: tuple[str, ...] = ()
    model = replace(model, notes=[], numbers=[], done=[])
    if path.is_dir() or path.suffix in KINDS:
        refuse_idle("data", {"encoding": model.encoding})
    if path.is_dir():
        if labels is not None:
            raise UsageError(f"{path}: subfolders of images name the classes: leave --labels out.")
        files, x = read_images(path, model)
        kind, names = "images", tuple(str(file.relative_to(path)) for file in files)
        y: Answers = [file.parent.name for file in files]
        sha256 = hashlib.sha256(x.tobytes()).hexdigest()
    else:
        check_regular_file(path, "expected a table, arrays, or a folder of images", DataError)
        kind, sha256 = "arrays" if path.suffix in KINDS else "table", file_sha256(path)
        x, y = (from_arrays if kind == "arrays" else from_table)(path, labels, model)
    origin = DataOrigin(path.name, str(path), kind, len(x), sha256)
    return labelled(x, y, origin, model, names)


def labelled(
    x: Array, y: Answers, origin: DataOrigin, model: ModelInterface, names: tuple[str, ...] = ()
) -> LabelledData:
    inputs, targets, where = inputs_of(origin.source, x, model), None, origin.source
    if y is None:
        model.note("no_labels")
    elif np.shape(y)[:1] != (len(inputs),):
        raise ShapeError(
            f"{where}: {len(inputs)} rows have right answers {np.shape(y)}; expected one each."
        )
    elif model.answers:
        targets = targets_of(where, np.asarray(y), model)
    shape = tuple(x.shape[1:]) if x.ndim > 2 else None
    notes, numbers, done = tuple(model.notes), tuple(model.numbers), tuple(model.done)
    return LabelledData(inputs, targets, origin, names, shape, notes, numbers, done)


def from_table(path: Path, labels: str | None, model: ModelInterface) -> Read:
    """Return rows by the names of the model's inputs, or in the order of the table's columns."""
    table, wanted = read_table(path, model.encoding), model.input_names
    target = model.target if labels is None else labels
    if model.reading is not None and model.answers:
        table = with_target(table, target, model.classes)
    header = table.names
    if labels is not None and labels not in header and not Path(labels).is_file():
        raise DataError(
            f"{path}: has no column {labels!r}, and no file of that name is there; --labels names "
            f"a column, of {', '.join(header[:8])}{', …' if len(header) > 8 else ''}, or a file."
        )
    target = target if target in header else None
    if wanted is None:
        wanted = tuple(name for name in header if name != target)
        if len(wanted) - model.d_input not in ((0, 1) if target is None else (0,)):
            raise DataError(
                f"{path}: has {len(header)} columns; expected {model.d_input}, in the model's "
                "order, and right answers behind them or named (--labels)."
            )
        wanted = wanted[: model.d_input]
        model.note("by_position", count=len(wanted), first=wanted[0], last=wanted[-1])
    found = columns_of(table, wanted, model.reading, model.fill)
    rows, used = found.values.numpy(), dict.fromkeys(found.columns)
    model.numbers.extend(table.numbers)
    model.done.extend(found.done)
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
    cells = Cells(table, target, is_target=True)
    answers = answers_of(cells, model.classes)
    model.done.extend(cells.done)
    return rows, answers


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
        found = [[*column] for column in zip(*read_table(path).rows, strict=True)]
    if len(found) != 1:
        raise DataError(f"{path}: expected one column, or one array, of right answers.")
    return found[0]


def inputs_of(where: str, array: Array, model: ModelInterface) -> Tensor:
    """Return an array as rows of a model's inputs; bytes of images become 0 to 1."""
    shape, expected = array.shape[1:], model.input_shape or (model.d_input,)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: holds {array.dtype}; expected real numbers for inputs.")
    sides = [[side for side in sizes if side > 1] for sizes in (shape, expected)]
    other = min(len(shape), len(expected)) > 1 and sides[0] != sides[1]
    if array.ndim < 2 or len(array) == 0 or math.prod(shape) != model.d_input or other:
        raise ShapeError(
            f"{where}: the inputs have shape {array.shape}; the model reads {model.d_input} "
            f"inputs: expected (rows, {', '.join(map(str, expected))})."
        )
    check_memory(16 * array.size, where, "pass fewer rows")
    rows = torch.from_numpy(array.reshape(len(array), -1).astype(np.float64))
    if array.dtype == np.uint8:
        is_image = max(len(shape), len(expected)) > 1
        rows /= 255 if is_image else 1
        model.note("bytes" if is_image else "unscaled")
    bad = (~rows.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise DataError(f"{where}: row {bad[0]} and {len(bad) - 1} more hold NaN or infinity.")
    return rows
