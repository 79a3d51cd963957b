"""The interface of a model: it encodes every row and every right answer that reaches it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from msgspec import structs
from torch import Tensor

from bilens.base.errors import DataError, ShapeError, UsageError
from bilens.base.memory import check_memory
from bilens.data.arrays import Array
from bilens.data.cells import DECIMAL, parse_number, plain_number
from bilens.data.images import ImageDataset
from bilens.data.table_columns import Cells, name_finder, number_in, spelling_key, votes_of
from bilens.records.column_readings import CellConversion, TableColumn, TableReading
from bilens.records.common import DataNote, DataOrigin, Value

ONLY_0_AND_1 = (
    "the bytes of images are only 0 and 1: pass them as floats, if 1 is what the model reads, or "
    "write 255 for 1."
)
NUMBERS = {decimal: partial(parse_number, decimal=decimal) for decimal in DECIMAL.choices}
Task = Literal["classification", "regression", "unknown"]


class ClassIndex(int):
    """A label that is the position of a class among the outputs of a model, from 0."""


class ClassName(str):
    """A label that is the name of a class."""

    __slots__ = ()


Label: TypeAlias = ClassIndex | ClassName | float  # a number is the answer of a regression


@dataclass(frozen=True)
class ModelInterface:
    """The inputs and outputs of a model, as far as data have to fit them; and notes on the data."""

    d_input: int
    d_output: int
    task: Task = "unknown"
    input_shape: tuple[int, ...] | None = None  # of an image, where that is known
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    target: str | None = None  # the column that it was trained to predict
    answers: bool = True  # whether right answers are wanted
    reading: TableReading | None = None  # of the table that it was trained on
    fill: tuple[float, ...] | None = None  # in the place of inputs that are missing there
    encoding: str | None = None  # of the text of a table; None where it is to be found out
    training: bool = False  # whether the data are to be those of a training, where a file has both
    positions: bool = (
        False  # whether it was trained on positions of its classes, not on their names
    )
    # the activation that the one output comes out of, where it is no logit: of a sigmoid it is the
    # probability of the second class, of others nothing that a class could be read from
    ends: str = ""
    link: Literal["", "exp"] = ""  # what turns the one output into the mean that it stands for
    box: tuple[float, float] | None = None  # that every input lies in; None where nothing says it
    reads_bytes: str = ""  # by what it scales pixels from 0 to 255 itself; empty where it does not
    notes: list[DataNote] = field(default_factory=list)  # on the data that are read for it
    numbers: list[int] = field(default_factory=list)  # of their rows, as a spreadsheet shows them
    done: list[CellConversion] = field(default_factory=list)  # to a table
    empty: dict[int, tuple[str, ...]] = field(default_factory=dict)  # as of `LabelledData`

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; a single output is about the second of two."""
        count, names = max(self.d_output, 2), self.output_names or ()
        return names if len(names) == count else tuple(map(str, range(count)))

    @property
    def has_names(self) -> bool:
        """Whether its classes are called otherwise than by their positions."""
        return self.classes != tuple(map(str, range(len(self.classes))))

    @property
    def is_named(self) -> bool:
        """Whether somebody named its classes, be it by numbers."""
        return len(self.output_names or ()) == max(self.d_output, 2)

    def row(self, index: int) -> int:
        """Return the number of a row as its user knows it: as a spreadsheet shows it, or from 0."""
        return self.numbers[index] if self.numbers else index

    def note(self, kind: str, **values: Value) -> None:
        self.notes.append(DataNote(kind, values))

    def means(self, outputs: Tensor) -> Tensor:
        """Return the numbers that outputs stand for: some models give the logarithm of a mean."""
        return outputs.exp() if self.link == "exp" else outputs

    def logits(self, outputs: Tensor) -> Tensor:
        """Return a logit for each class, (rows, classes), from the outputs of the model."""
        if self.d_output > 1:
            return outputs
        if self.ends == "sigmoid":
            outputs = outputs.clamp(0, 1)  # a conversion may leave these bounds
            return torch.cat([1 - outputs, outputs], dim=1).log()
        return torch.cat([-outputs, outputs], dim=1) / 2

    # ---- rows

    def encode_rows(self, where: str, array: Array) -> Tensor:
        """Return an array as rows of inputs, (rows, in) float64; bytes of images become 0 to 1."""
        shape, expected = array.shape[1:], self.input_shape or (self.d_input,)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{where}: holds {array.dtype}; expected real numbers for inputs.")
        sides = [[side for side in sizes if side > 1] for sizes in (shape, expected)]
        other = min(len(shape), len(expected)) > 1 and sides[0] != sides[1]
        if array.ndim < 2 or len(array) == 0 or math.prod(shape) != self.d_input or other:
            raise ShapeError(
                f"{where}: the inputs have shape {array.shape}; the model reads {self.d_input} "
                f"inputs: expected (rows, {', '.join(map(str, expected))})."
            )
        check_memory(16 * array.size, where, "pass fewer rows")
        rows = torch.from_numpy(array.reshape(len(array), -1).astype(np.float64))
        is_image = max(len(shape), len(expected)) > 1
        if array.dtype == np.uint8:
            if is_image and float(rows.max()) == 1:
                raise DataError(f"{where}: {ONLY_0_AND_1}")
            rows /= 255 if is_image and not self.reads_bytes else 1
            if is_image and self.reads_bytes:
                self.note("own_scale", how=self.reads_bytes)
            else:
                self.note("bytes" if is_image else "unscaled")
        elif is_image and self.reads_bytes and float(rows.abs().max()) <= 1:
            raise DataError(
                f"{where}: the inputs run from {rows.min():g} to {rows.max():g}, and the file "
                "scales pixels from 0 to 255 itself: multiply them by 255, or pass them as uint8."
            )
        bad = (~rows.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise DataError(f"{where}: row {bad[0]} and {len(bad) - 1} more hold NaN or infinity.")
        if self.box == (0.0, 1.0) and float(rows.max()) > 1 and bool((rows == rows.round()).all()):
            raise DataError(
                f"{where}: the inputs are whole numbers up to {rows.max():g}, and the model was "
                "trained on pixels from 0 to 1: divide them by 255, or pass them as uint8."
            )
        return rows

    # ---- right answers: what each of them is, decided where it enters

    def check_from_0(self, where: str, texts: Sequence[str]) -> None:
        """Refuse whole numbers as classes without names, which may be counted from 1."""
        found = {plain_number(text.strip()) for text in texts}
        if not self.is_named and found <= {*range(1, len(self.classes))}:
            raise DataError(
                f"{where}: the labels are whole numbers without 0, and the model's "
                f"{len(self.classes)} classes have no names, so that they may be counted from 0 or "
                "from 1: pass positions from 0 as a file or array of whole numbers (.npy), or name "
                "the classes, bl.load(…, output_names=[…]) or --classes."
            )

    def labels_of_dataset(self, data: ImageDataset, labels: Tensor) -> list[Label]:
        """Return labels of a data set: its names, or positions if none is a class of the model."""
        if self.is_named and data.named and {*self.places_of(data.class_names)} != {None}:
            return [ClassName(data.class_names[label]) for label in labels.tolist()]
        return [*map(ClassIndex, labels.tolist())]

    def labels_of_array(self, where: str, array: Array, is_tensor: bool = False) -> list[Label]:
        """Read an array of right answers as positions, names, or numbers.

        Whole numbers are positions for a model that was trained on positions; so are those of a
        tensor, as long as no class has a number for its name.
        """
        array = plain_labels(where, array)
        texts = [str(value) for value in array.tolist()]
        numbers = [plain_number(text.strip()) for text in texts]
        if self.wants_numbers(numbers):
            return self.numbers_of(where, texts, numbers)
        if array.dtype.kind == "b" and None in self.places_of(("False", "True")):
            if self.positions or not self.has_names:
                if not is_tensor:
                    self.refuse_either(where, [*map(int, array.tolist())])
                self.note("positions")
                return [*map(ClassIndex, array.tolist())]
            if None not in self.places_of(("0", "1")):
                texts = [str(int(value)) for value in array]
        words = all(plain_number(name) is None for name in self.classes)
        by_place = self.positions or (is_tensor and words)
        if array.dtype.kind == "U":
            by_place = self.positions and words
        places = [int(one) for one in numbers if one is not None and one.is_integer()]
        if places and max(places) >= len(self.classes):  # they are no positions
            by_place = by_place and None in self.places_of(texts)
        if by_place and len(places) == len(texts):
            if not is_tensor:
                self.refuse_either(where, places)
            if not is_tensor and not self.is_named and 0 not in places:
                self.note("positions")
            return [*map(ClassIndex, places)]
        self.check_from_0(where, texts)
        return [*map(ClassName, texts)]

    def refuse_either(self, where: str, places: Sequence[int]) -> None:
        """Refuse positions of classes that are as well names of classes, of other ones."""
        called = self.places_of([*map(str, places)])
        if [*places] != called and None not in called and max(places) < len(self.classes):
            raise DataError(
                f"{where}: the labels are numbers that could be positions or names of its classes "
                f"({', '.join(self.classes[:8])}): pass the names as texts, or the "
                "positions as a tensor of torch."
            )

    def labels_of_cells(self, cells: Cells) -> list[Label]:
        """Read the cells of a column as class names, or as numbers in the unit of the training.

        They are read like the target of the training, as far as the model says how that was.
        """
        texts = cells.table.column(cells.name)
        if self.task == "classification":
            find = name_finder(self.classes, str.strip, spelling_key)
            if self.is_named and all(map(find, texts)):
                cells.refuse_several(self.classes, find)
                return [ClassName(self.classes[find(text)[0]]) for text in texts]
        read = self.reading
        column = TableColumn(cells.name, "number", (), decimal="")
        column = column if read is None or read.target is None else read.target
        decimal = cells.decimal(votes_of(cells.table), column)
        parsed = [parse_number(text, decimal) for text in texts]
        if self.task != "classification":
            units = {one[1] for one in parsed if one is not None}
            if read is not None and read.target is None and len(units) == 1:  # of before
                column = structs.replace(column, unit=units.pop())
            numbers = [number_in(column, one) for one in parsed]
            if self.wants_numbers(numbers):
                for row, one in enumerate(parsed):
                    if one is not None and numbers[row] is None:
                        unit = f"in {column.unit}" if column.unit else "without a unit"
                        wanted = f"a number {unit}, as the model was trained on"
                        raise cells.refused(cells.table.numbers[row], texts[row], wanted)
                return self.numbers_of(f"{cells.table.path}", texts, numbers)
        self.check_from_0(f"{cells.table.path}", texts)
        find = self.class_finder(str.strip, decimal)
        cells.refuse_several(self.classes, find)
        if self.positions and not any(map(find, texts)) and None not in map(plain_number, texts):
            return self.labels_of_array(f"{cells.table.path}", np.array(texts))
        return [
            ClassName(self.classes[found[0]] if (found := find(text)) else text) for text in texts
        ]

    def wants_numbers(self, numbers: Sequence[float | None]) -> bool:
        """Tell whether right answers are numbers; of one output they decide it themselves."""
        if self.task == "unknown" and self.d_output == 1:
            return not {*numbers} <= {0.0, 1.0, None}
        return self.task == "regression"

    def numbers_of(
        self, where: str, texts: Sequence[str], numbers: Sequence[float | None]
    ) -> list[Label]:
        """Return right answers that are numbers; refuse what is none."""
        found = [number for number in numbers if number is not None]
        if len(found) < len(numbers):
            row = [*numbers].index(None)
            raise DataError(
                f"{where}: row {self.row(row)} has {texts[row]!r:.40}; expected a finite number."
            )
        if self.ends == "sigmoid" and not 0 <= min(found) <= max(found) <= 1:
            raise DataError(
                f"{where}: right answers run from {min(found):g} to {max(found):g}, and the one "
                "output of the model is a probability: write 0 and 1 for the two classes."
            )
        return [*found]

    def class_finder(
        self, exact: Callable[[str], str] = str, decimal: str = "."
    ) -> Callable[[str], list[int]]:
        """Return a function: text → the classes it may mean, by the same text or number."""
        return name_finder(self.classes, exact, spelling_key, NUMBERS[decimal])

    def places_of(self, texts: Iterable[str]) -> list[int | None]:
        """Return the class that each text means; None where that is no class, or not one alone."""
        found = map(self.class_finder(), texts)
        return [one[0] if len(one) == 1 else None for one in found]

    # ---- right answers as classes or numbers

    def encode_labels(self, where: str, labels: Sequence[Label]) -> Tensor:
        """Return right answers, (rows,): int64 positions of classes, or float64 numbers."""
        if not isinstance(labels[0], ClassIndex | ClassName):
            if len({*labels}) == 1:
                raise DataError(
                    f"{where}: the target is {labels[0]:g} in every row, so that nothing can be "
                    "measured: pass rows with different targets, or another column (--labels)."
                )
            return torch.tensor(labels, dtype=torch.float64)
        if self.d_output == 1 and self.ends not in ("", "sigmoid"):
            raise DataError(
                f"{where}: the labels are classes, and the model's one output comes out of "
                f"{self.ends}, so that it is neither a logit nor the probability of one: let the "
                "model end in a sigmoid, or without it, or pass the numbers that it is to give."
            )
        places, known = self.places_of(map(str, labels)), range(len(self.classes))
        for row, label in enumerate(labels):
            if isinstance(label, ClassIndex):  # a position is never read as a text
                places[row] = int(label) if int(label) in known else None
        if None in places:
            raise self.no_class(where, places.index(None), labels)
        if isinstance(labels[0], ClassIndex) and self.has_names:
            self.note("positions")
        if self.d_output == 1:
            self.note("one_probability" if self.ends else "one_logit", name=self.classes[1])
        if len({*places}) == 1:
            self.note("one_class", name=self.classes[places[0] or 0])
        return torch.tensor(places)

    def no_class(self, where: str, row: int, labels: Sequence[Label]) -> DataError:
        """Return the error of a label that is no class of the model."""
        shown = f"{', '.join(self.classes[:8])}{', …' if len(self.classes) > 8 else ''}"
        texts = sorted({str(label) for label in labels})
        if isinstance(labels[0], ClassIndex) and self.has_names:
            shown = f"positions from 0 to {len(self.classes) - 1}"
        elif {*texts} <= {"False", "True", *map(str, range(len(self.classes)))}:
            return DataError(
                f"{where}: the labels are {', '.join(texts[:4])}, and the model's classes are "
                f"called {shown}: which label is which class is not known. Write these names as "
                "the labels."
            )
        return DataError(
            f"{where}: row {self.row(row)} has the label {str(labels[row])!r:.40}, which is no "
            f"class of the model ({shown}): remove such rows, or rename the labels."
        )


def plain_labels(where: str, array: Array) -> Array:
    """Return right answers as one array of numbers, truth values or texts, (rows,)."""
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.dtype.kind in "OT":  # as tables of pandas hold texts
        kinds = {type(value) for value in array.tolist()}
        same = (
            all(issubclass(kind, str) for kind in kinds) or kinds <= {int, float} or len(kinds) < 2
        )
        array = np.array(array.tolist()) if same else array
    if array.ndim != 1 or array.dtype.kind not in "fiubU":
        raise DataError(
            f"{where}: right answers are {array.dtype} of shape {array.shape}; expected (rows,) "
            "numbers or texts, none of them missing; of one-hot labels take argmax(axis=1)."
        )
    return array


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Inputs of a model with their right answers."""

    inputs: Tensor  # (rows, in)
    targets: Tensor | None  # (rows,): int64 classes, or float64 numbers; None where not known
    origin: DataOrigin
    names: tuple[str, ...] = ()  # of the files, one for each row, if they are files
    shape: tuple[int, ...] | None = None  # of an image, where an input is one
    numbers: tuple[int, ...] = ()  # of rows, as a spreadsheet shows them; empty where from 0
    done: tuple[CellConversion, ...] = ()  # to a table
    box: tuple[float, float] | None = None  # that every input lies in; None where nothing says it
    # columns of a table whose cell holds no value, by the place of the row, where it has one
    empty: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    # right answers by the place of the row, where `targets` is None as some rows have none
    known: Mapping[int, int | float] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[DataNote, ...]:
        """Notes on how the data were read: changes to them, and assumptions."""
        return self.origin.notes

    def answer(self, place: int) -> int | float | None:
        """Return the right answer of a row, a class as an int; None where it has none."""
        return self.known.get(place) if self.targets is None else self.targets[place].item()

    def places(self, rows: Sequence[int]) -> tuple[int, ...]:
        """Return the positions of rows given by a spreadsheet's numbers, or by numbers from 0."""
        known = self.numbers or tuple(range(len(self.inputs)))
        absent = [row for row in rows if row not in known]
        if absent:
            raise UsageError(
                f"{self.origin.source}: there is no row {absent[0]}: there are {len(known)}, "
                f"numbered from {known[0]} to {known[-1]}."
            )
        return tuple(map(known.index, rows))
