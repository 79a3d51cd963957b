"""What a model reads and answers, and right answers as its classes or numbers."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import DataError, UsageError
from bilens.data.arrays import Array
from bilens.data.cells import plain_number
from bilens.records.common import DataOrigin, Value
from bilens.records.performance import DataNote
from bilens.records.table_audit import Conversion, TableReading

Task = Literal["classification", "regression", "unknown"]


@dataclass(frozen=True)
class ModelInterface:
    """What a model reads and answers, as far as data have to fit it; and what was done for that."""

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
    positions: bool = False  # whether labels may be positions of classes that have names
    # the activation that the one output comes out of, where it is no logit: of a sigmoid it is the
    # probability of the second class, of others nothing that a class could be read from
    ends: str = ""
    notes: list[DataNote] = field(default_factory=list)  # on the data that are read for it
    numbers: list[int] = field(default_factory=list)  # of their rows, as a spreadsheet shows them
    done: list[Conversion] = field(default_factory=list)  # to a table

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; a single output is about the second of two."""
        count, names = max(self.d_output, 2), self.output_names or ()
        return names if len(names) == count else tuple(map(str, range(count)))

    def row(self, index: int) -> int:
        """Return how a row is called: as a spreadsheet numbers it, or from 0."""
        return self.numbers[index] if self.numbers else index

    def note(self, kind: str, **values: Value) -> None:
        self.notes.append(DataNote(kind, values))


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Inputs of a model with their right answers."""

    inputs: Tensor  # (rows, in)
    targets: Tensor | None  # (rows,): int64 classes, or float64 numbers; None where not known
    origin: DataOrigin
    names: tuple[str, ...] = ()  # of the files, one for each row, if they are files
    shape: tuple[int, ...] | None = None  # of an image, where an input is one
    notes: tuple[DataNote, ...] = ()  # what was done to them, or taken for granted
    numbers: tuple[int, ...] = ()  # of rows, as a spreadsheet shows them; empty where from 0
    done: tuple[Conversion, ...] = ()  # to a table

    def places(self, rows: Sequence[int]) -> tuple[int, ...]:
        """Return where rows stand that a spreadsheet shows under some numbers, or from 0."""
        known = self.numbers or tuple(range(len(self.inputs)))
        absent = [row for row in rows if row not in known]
        if absent:
            raise UsageError(
                f"{self.origin.source}: there is no row {absent[0]}: there are {len(known)}, "
                f"numbered from {known[0]} to {known[-1]}."
            )
        return tuple(map(known.index, rows))


def targets_of(where: str, array: Array, model: ModelInterface) -> Tensor:
    """Return right answers: int64 classes, or float64 numbers; of one output they decide which."""
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "fiubU":
        raise DataError(
            f"{where}: right answers are {array.dtype} of shape {array.shape}; expected (rows,) "
            "numbers or texts; of one-hot labels take argmax(axis=1)."
        )
    texts = [str(value).strip() for value in array.tolist()]
    numbers = [plain_number(text) for text in texts]
    single = model.task == "unknown" and model.d_output == 1
    if {*numbers} <= {0.0, 1.0, None} if single else model.task != "regression":
        return classes_of(where, texts, model)
    if None in numbers:
        row = numbers.index(None)
        raise DataError(
            f"{where}: row {model.row(row)} has {texts[row]!r:.40}; expected a finite number."
        )
    if len({*numbers}) == 1:
        raise DataError(
            f"{where}: the target is {texts[0]} in every row, so that nothing can be measured: "
            "pass rows with different targets, or another column (--labels)."
        )
    return torch.tensor(numbers, dtype=torch.float64)


def classes_of(where: str, texts: list[str], model: ModelInterface) -> Tensor:
    """Return labels as classes of a model: by name, or by position."""
    if model.d_output == 1 and model.ends not in ("", "sigmoid"):
        raise DataError(
            f"{where}: the labels are classes, and the model's one output comes out of "
            f"{model.ends}, so that it is neither a logit nor the probability of one: let the "
            "model end in a sigmoid, or without it, or pass the numbers that it is to give."
        )
    known = {name: index for index, name in enumerate(model.classes)}
    texts = [text if text in known else text.removesuffix(".0") for text in texts]
    places = {str(index): index for index in known.values()} | {"False": 0, "True": 1}
    if not {*texts} <= {*known} and {*texts} <= {*places}:
        if not model.positions and any(places.get(name) != at for name, at in known.items()):
            raise DataError(
                f"{where}: the labels are {', '.join(sorted({*texts})[:4])}, and the model's "
                f"classes are called {', '.join([*known][:8])}: which label is which class is not "
                "known. Write these names as the labels."
            )
        known = places
        model.note("positions")
    bad = next((row for row, text in enumerate(texts) if text not in known), None)
    if bad is not None:
        raise DataError(
            f"{where}: row {model.row(bad)} has the label {texts[bad]!r:.40}, which is no class of "
            f"the model ({', '.join([*known][:8])}{', …' if len(known) > 8 else ''}): remove such "
            "rows, or rename the labels."
        )
    if model.d_output == 1:
        model.note("one_probability" if model.ends else "one_logit", name=[*known][1])
    if len({*texts}) == 1:
        model.note("one_class", name=texts[0])
    return torch.tensor([known[text] for text in texts])


ROWS_KEY = "training_rows"  # in the provenance of a model: the fingerprints of its training rows


def row_fingerprints(inputs: Tensor, targets: Tensor) -> str:
    """Return 32 bits of each row with its right answer, so that the same rows are known again."""
    rows = torch.cat([inputs.double(), targets[:, None].double()], dim=1).float().cpu().numpy()
    hashes = (hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in rows + 0.0)
    return b64encode(b"".join(hashes)).decode()


def known_rows(text: str, inputs: Tensor, targets: Tensor) -> tuple[int, float]:
    """Return how many rows are among those of fingerprints, and the share of twins among these."""
    texts = (text, row_fingerprints(inputs, targets))
    known, rows = (np.frombuffer(b64decode(found), "<u4") for found in texts)
    counts = np.unique(known, return_counts=True)[1]
    return int(np.isin(rows, known).sum()), float(counts[counts > 1].sum() / max(len(known), 1))
