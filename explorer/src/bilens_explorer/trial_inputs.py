"""First inputs of the playground: images of the last audit and data set, rows of a table."""

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from bilens.api.given_data import interface_of
from bilens.api.provenance import reading_of
from bilens.base.errors import BilensError
from bilens.data.images import test_images_at_hand
from bilens.data.labelled_data import read_labelled
from bilens.data.model_interface import LabelledData
from bilens.data.table_columns import MISSING
from bilens.io.loaded_model import LoadedModel
from bilens.records.column_readings import TableColumn
from bilens.train.randomness import drawn_rows
from bilens.train.run_folder import TEST_NAME
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import state_of
from bilens_explorer.records.playground import PlayColumn, TrialImage

OF_CLASS = 2  # images of each class, drawn
ROWS, LARGEST = 200, 1 << 24  # rows to begin with, drawn; bytes of a table that is read for them
REACH = 3.0  # deviations, where nothing else says how far values go


def trial_images(
    served: ServedFolder, model: LoadedModel, shape: tuple[int, int], last: int | None
) -> tuple[TrialImage, ...]:
    """Return the images that the last audit explains, and some of the data set's test images."""
    found: list[TrialImage] = []
    classes = None if last is None else served.audit(last).record.classes
    if classes is not None:
        found += [
            TrialImage("audit", one.index, one.label, one.image)
            for one in classes.explanations
            if len(one.image) == shape[0] * shape[1]
        ]
    name = model.provenance.get("data_name", "")
    with suppress(BilensError):
        images, labels = test_images_at_hand(name, model.provenance.get("data_sha256"))
        if images.shape[1] == shape[0] * shape[1]:
            for label in sorted({*labels.tolist()}):
                at = (labels == label).nonzero()[:, 0]
                for index in at[drawn_rows(len(at), OF_CLASS)].tolist():
                    pixels = tuple(round(value, 5) for value in images[index].tolist())
                    found.append(TrialImage("data", index, label, pixels))
    return tuple(found)


def held_out_rows(folder: Path, model: LoadedModel) -> LabelledData | None:
    """Return rows that were held out when the model was trained; None where they are not there."""
    path = Path(model.source) / TEST_NAME
    with suppress(BilensError, OSError):
        before = state_of(folder, path)
        if path.stat().st_size <= LARGEST:
            rows = read_labelled(path, None, interface_of(model))
            return rows if state_of(folder, path) == before else None  # swapped meanwhile
    return None


def columns_of(
    model: LoadedModel, mean: Tensor, scale: Tensor, rows: LabelledData | None
) -> tuple[PlayColumn, ...]:
    """Return the columns of a table with their ranges: of the rows, else of the deviations."""
    reading, names = reading_of(model), model.input_names or ()
    plain = tuple(TableColumn(name, "number", (name,)) for name in names)
    kinds = plain if reading is None else reading.columns
    places = {name: at for at, name in enumerate(names)}
    found = []
    for one in (column for column in kinds if column.inputs):
        at = tuple(places[name] for name in one.inputs)
        parts = tuple(part_of(one, name) for name in one.inputs)
        low, high, whole = 0.0, 0.0, False
        measured = [i for i, part in zip(at, parts, strict=True) if part in ("value", "days")]
        for place in measured[:1]:
            low = float(mean[place] - REACH * scale[place])
            high = float(mean[place] + REACH * scale[place])
            if rows is not None:
                values = rows.inputs[:, place]
                low, high = float(values.min()), float(values.max())
                # a missing value is the mean of all, and not whole
                whole = bool(((values == values.round()) | (values == mean[place])).all())
        found.append(
            PlayColumn(one.name, one.kind, at, parts, one.unit, one.first, low, high, whole)
        )
    return tuple(found)


def part_of(column: TableColumn, name: str) -> str:
    """Return the part of its column that an input holds, such as a category."""
    if name == column.name:
        return "value"
    rest = name.removeprefix(column.name)
    if rest == f"={MISSING}":
        return MISSING
    if column.kind == "category":
        return rest.removeprefix("=")
    return "days" if rest.startswith(": days since") else rest.removeprefix(": ")
