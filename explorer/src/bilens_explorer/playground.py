"""The playground: a model as numbers, inputs to begin with, spectra of pairs, exact radii."""

import math
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta, structs
from torch import Tensor

from bilens import (
    EigenDecomposition,
    QuadraticMap,
    centred_directions,
    contrast_direction,
    eigendecompose_all,
    raw_directions,
)
from bilens.api import interface_of, reading_of
from bilens.base.errors import BilensError, UsageError
from bilens.certify import enclose_spectrum, l2_radius, prepare, projected_margin
from bilens.data import MISSING, LabelledData, read_labelled, test_images_at_hand
from bilens.findings import finite, image_shape, in_float64
from bilens.io import LoadedModel, is_of_numbers
from bilens.nn import BilinearClassifier, in_standard_units
from bilens.records import Record, TableColumn
from bilens.train import TEST_NAME, drawn_rows
from bilens_explorer.endpoint import Arguments, Endpoint, every_model
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import state_of
from bilens_explorer.open_models import OpenModel
from bilens_explorer.records.models import Key
from bilens_explorer.records.playground import (
    DType,
    LeadingPairs,
    NoPlayground,
    Packed,
    PackedMap,
    PairSpectrum,
    PlayColumn,
    Playground,
    Radius,
    TrialImage,
    Unfit,
)

MOST = 1 << 21  # numbers that a page is sent: 8 MB
LEADING, OF_SIGN = 12, 4  # eigenpairs by size, and at least of each sign
HELD = 1 << 17  # numbers of the pairs of a model in a one-file export: half a megabyte
FARTHEST = 1e9  # numbers of an input
OF_CLASS = 2  # images of each class, drawn
ROWS = 200  # to begin with, drawn
LARGEST_TABLE = 1 << 24  # bytes of a table that is read for them
REACH = 3.0  # deviations, where nothing else says how far values go
OutputNumber = Annotated[int, Meta(ge=0, le=100_000, description="of an output, from 0")]


class Point(Record, frozen=True, forbid_unknown_fields=True):
    """An input of the map that the playground is sent."""

    inputs: Annotated[tuple[float, ...], Meta(min_length=1, max_length=MOST), "its numbers"]


def playground(served: ServedFolder, key: Key) -> Playground | NoPlayground:
    """A model that is one quadratic map as numbers, and inputs to try; or why it is not."""
    opened = served.opened(key)
    if (why := unfit(opened.model)) is not None:
        layers = len(opened.model.network)
        return NoPlayground(why=why, layers=layers, numbers=numbers_of(opened.model), most=MOST)
    f = exact_map(opened)
    if opened.model.input_names is not None:
        return opened.once("playground", lambda: of_table(served, opened.model, f))
    last = next(iter(served.model(key).audits), None)
    number = None if last is None else last.number
    return opened.once(("playground", last), lambda: of_images(served, opened.model, f, number))


def numbers_of(model: LoadedModel) -> int:
    """Return how many numbers a page needs, nearly: left and right, and of images eigenvectors."""
    outputs, hidden, width = model.network[-1].sizes if model.network else (0, 0, 0)
    return (2 * hidden + (LEADING * outputs if model.input_names is None else 0)) * width


def unfit(model: LoadedModel) -> Unfit | None:
    """Return why a page cannot compute a model, None where it can."""
    views, report = model.network, model.load_report
    if not views or (report is not None and report.left_out):
        return "parts"
    if is_of_numbers(model, views[-1].sizes.d_out):
        return "parts"
    if not all(view.exact for view in views):
        return "activation"
    if len(views) > 1:
        return "layers"
    return "large" if numbers_of(model) > MOST else None


def exact_map(opened: OpenModel) -> QuadraticMap:
    """Return the map of a whole model in float64; of a table, as a function of standard units."""
    model = opened.model
    if (why := unfit(model)) is not None:
        raise UsageError(f"{opened.name}: this needs a model that is one quadratic map ({why}).")

    def make_map() -> QuadraticMap:
        with torch.no_grad():
            ours = model.module if isinstance(model.module, BilinearClassifier) else None
            mean, scale = standard_units(model)
            if ours is not None and model.input_names is not None:  # rounds less
                return in_standard_units(ours, mean, scale).quadratic_map().detach()
            f = model.network[0].quadratic_map if ours is None else in_float64(ours).quadratic_map()
            f = f.detach().to(torch.float64)
            return f if model.input_names is None else f.compose_input(torch.diag(scale), mean)

    return opened.once("map", make_map)


def standard_units(model: LoadedModel) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each input, float64; 0 and 1 where they are not known."""
    width = model.network[0].sizes.d_in
    known = model.input_mean or (0.0,) * width, model.input_scale or (1.0,) * width
    mean, scale = torch.tensor(known, dtype=torch.float64)
    return mean, scale


def of_images(
    served: ServedFolder, model: LoadedModel, f: QuadraticMap, last: int | None
) -> Playground:
    sent, outputs = f.to(torch.float32), f.sizes.d_out
    # of the numbers that are sent, so that bounds hold for what the page computes
    directions = centred_directions(outputs) if outputs > 1 else raw_directions(outputs)
    shape = image_shape(f.sizes.d_in, model.input_shape)
    return Playground(
        weights_sha256=model.read_sha256,
        map=packed_map(sent),
        output_names=names_of(model, outputs),
        baseline=(0.0,) * f.sizes.d_in,
        spectra=tuple(map(leading_pairs, decomposed(sent, directions))),
        shape=shape,
        tests=trial_images(served, model, shape, last) if served.shows_rows else (),
    )


def of_table(served: ServedFolder, model: LoadedModel, f: QuadraticMap) -> Playground:
    mean, scale = standard_units(model)
    rows = held_out_rows(served.folder, model) if served.shows_rows else None
    columns = columns_of(model, mean, scale, rows)
    found = Playground(
        weights_sha256=model.read_sha256,
        map=packed_map(f),
        output_names=names_of(model, f.sizes.d_out),
        baseline=(0.0,) * f.sizes.d_in,
        columns=columns,
        means_known=model.input_mean is not None,
        input_mean=tuple(mean.tolist()),
        input_scale=tuple(scale.tolist()),
    )
    if rows is None:
        return found
    chosen = drawn_rows(len(rows.inputs), ROWS).tolist()
    lacking = [rows.empty.get(row, ()) for row in chosen]
    return structs.replace(
        found,
        rows=packed(rows.inputs[chosen].double()),
        row_numbers=tuple(rows.numbers[at] for at in chosen if rows.numbers),
        empty=tuple(
            tuple(at for at, one in enumerate(columns) if one.name.removesuffix(RANK) in names)
            for names in lacking
        ),
    )


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
        if path.stat().st_size <= LARGEST_TABLE:
            rows = read_labelled(path, None, interface_of(model))
            return rows if state_of(folder, path) == before else None  # swapped meanwhile
    return None


RANK = " (rank)"  # behind a column whose ranks are an input


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
        # of ranks the page shows the ranks: in them alone is the output quadratic
        name, unit = (f"{one.name}{RANK}", "") if one.curve else (one.name, one.unit)
        measured = [i for i, part in zip(at, parts, strict=True) if part in ("value", "days")]
        for place in measured[:1]:
            low = float(mean[place] - REACH * scale[place])
            high = float(mean[place] + REACH * scale[place])
            if rows is not None:
                values = rows.inputs[:, place]
                low, high = float(values.min()), float(values.max())
                # a missing value is the mean of all, and not whole
                whole = bool(((values == values.round()) | (values == mean[place])).all())
        found.append(PlayColumn(name, one.kind, at, parts, unit, one.first, low, high, whole))
    return tuple(found)


def part_of(column: TableColumn, name: str) -> str:
    """Return the part of its column that an input holds, such as a category."""
    if name in (column.name, f"{column.name}{RANK}"):
        return "value"
    rest = name.removeprefix(column.name)
    if rest == f"={MISSING}":
        return MISSING
    if column.kind == "category":
        return rest.removeprefix("=")
    return "days" if rest.startswith(": days since") else rest.removeprefix(": ")


def names_of(model: LoadedModel, outputs: int) -> tuple[str, ...]:
    return model.output_names or tuple(map(str, range(outputs)))


def packed_map(f: QuadraticMap) -> PackedMap:
    return PackedMap(
        down=packed(f.tensor.down),
        left=packed(f.tensor.left),
        right=packed(f.tensor.right),
        linear=None if f.linear is None else packed(f.linear),
        constant=None if f.constant is None else packed(f.constant),
    )


def packed(array: Tensor) -> Packed:
    values = array.detach().numpy()
    little = values.astype(values.dtype.newbyteorder("<")).tobytes()
    dtype: DType = "float32" if array.dtype == torch.float32 else "float64"
    return Packed(tuple(array.shape), dtype, b64encode(little).decode())


def decomposed(f: QuadraticMap, directions: Tensor) -> Iterator[EigenDecomposition]:
    """Yield whole spectra, so that what is not sent has a proven bound; one is held at a time."""
    _, hidden, width = f.sizes
    f = f.to(torch.float64)
    for direction in directions:
        yield eigendecompose_all(f, direction[None], k=min(2 * hidden, width))[0]


def leading_pairs(eigs: EigenDecomposition) -> LeadingPairs:
    values, enclosure = eigs.eigenvalues, enclose_spectrum(eigs)
    everything = enclosure.after(0)
    leading = min(LEADING, max(int((eigs.distinct_from_zero != 0).sum()), 1))
    chosen = [*range(leading)]
    for sign in (1, -1):
        told = eigs.distinct_from_zero * sign > 0
        chosen += [at for at in told.nonzero()[:OF_SIGN, 0].tolist() if at not in chosen]
    return LeadingPairs(
        values=tuple(values[chosen].tolist()),
        vectors=packed(eigs.eigenvectors[chosen].float()),
        leading=leading,
        low=everything.low - everything.slack,
        high=everything.high + everything.slack,
    )


def pair_spectrum(
    served: ServedFolder, key: Key, first: OutputNumber = 0, second: OutputNumber = 1
) -> PairSpectrum:
    """Leading eigenpairs of one output minus another."""
    opened = served.opened(key)
    f = exact_map(opened)
    direction = contrast_direction(f.sizes.d_out, first, second)[None]

    def make_spectrum() -> PairSpectrum:
        pairs = leading_pairs(next(decomposed(f.to(torch.float32), direction)))
        return PairSpectrum(first=first, second=second, pairs=pairs)

    return opened.once(("pair", first, second), make_spectrum)


def radius(served: ServedFolder, key: Key, body: Point) -> Radius:
    """The exact distance of an input to the nearest one that is given another answer."""
    opened = served.opened(key)
    f = exact_map(opened)
    outputs, _, width = f.sizes
    x = torch.tensor([body.inputs], dtype=torch.float64)
    if outputs < 2:
        raise UsageError("the model has one output: a radius needs another answer.")
    if x.shape[1] != width:
        raise UsageError(f"the model reads {width} numbers; {x.shape[1]} came.")
    if not bool((x.abs() <= FARTHEST).all()):
        raise UsageError(f"a number that was sent is beyond {FARTHEST:g}: send smaller ones.")
    logits = f(x)[0]
    label = int(logits.argmax())
    rivals = [(label, other) for other in range(outputs) if other != label]
    spectra = opened.once(("rivals", label), lambda: prepare(f, rivals), slow=True)
    found = l2_radius(f, x, [label], spectra)
    example, rival = found.example[0], int(found.rival[0])
    there = bool(example.isfinite().all())
    return Radius(
        weights_sha256=opened.model.read_sha256,
        label=label,
        logits=tuple(logits.tolist()),
        status=found.status[0].name.lower(),
        radius=finite(found.radius),
        distance=finite(found.distance),
        rival=None if rival < 0 else rival,
        margin=finite(found.margin),
        example=tuple(example.tolist()) if there else (),
        inside=finite(projected_margin(f, found)) if there else None,
    )


def held_pairs(served: ServedFolder) -> Iterator[Arguments]:
    """Yield the pairs of outputs that a one-file export shows, of models where they are small."""
    for key in served.last_walk().models:
        with suppress(BilensError):
            opened = served.opened(key)
            if unfit(opened.model) is None and not opened.model.input_names:
                outputs, _, width = opened.model.network[-1].sizes
                if math.comb(outputs, 2) * LEADING * width <= HELD:
                    for first, second in combinations(range(outputs), 2):
                        yield {"key": key, "first": first, "second": second}


ENDPOINTS = (
    Endpoint("/models/{key}/playground", playground, held=every_model, slow="view"),
    Endpoint("/models/{key}/playground/pair", pair_spectrum, held=held_pairs, slow="view"),
    Endpoint("/models/{key}/radius", radius, slow="background", reads=True),
)
