"""The manifest of a sweep: a row for each layer, written before anything else and never changed."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import msgspec

from bilens.api.alignment import align_models
from bilens.api.comparison import compare_files
from bilens.api.provenance import describe_source, files_beside
from bilens.api.wiring import compare_wiring
from bilens.base.errors import BilensError, FileError, UsageError
from bilens.base.files import shortened
from bilens.io.load import LayerView, LoadedModel, load, load_layers
from bilens.records.base import json_text, read_document
from bilens.records.layer_readings import AlignmentNote, around_of
from bilens.records.sweep import Cost, Manifest, ManifestRow, SweepOptions
from bilens.sweep.output import SweepOutput
from bilens.sweep.tasks import TASKS, WHOLE, check_tasks
from bilens.version import VERSION

NAME = "manifest.jsonl"
JOB_SECONDS = 60.0  # of work that goes into one job
JOBS_EACH = 4  # for a worker, where there is less, so that all end at about the same time
MOST_ROWS = 500  # in one job


@dataclass(frozen=True, eq=False)
class Job:
    """Rows that one worker does one after another, all tasks of each."""

    rows: tuple[int, ...]
    seconds: float
    num_bytes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A manifest with its rows."""

    head: Manifest
    rows: tuple[ManifestRow, ...]

    @cached_property
    def text(self) -> bytes:
        return "".join(f"{json_text(one)}\n" for one in (self.head, *self.rows)).encode()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    def jobs(self, wanted: Sequence[int], workers: int = 1) -> list[Job]:
        """Return rows packed, in order, into jobs of about a minute, or some for each worker."""
        packs: list[list[int]] = []
        whole, seconds = sum(self.cost(index).seconds for index in wanted), 0.0
        most = min(JOB_SECONDS, whole / (JOBS_EACH * workers))
        for index in wanted:
            cost = self.cost(index).seconds
            if not packs or seconds + cost > most or len(packs[-1]) >= MOST_ROWS:
                packs.append([])
                seconds = 0.0
            packs[-1].append(index)
            seconds += cost
        return [*map(self.job, packs)]

    def job(self, rows: Sequence[int]) -> Job:
        costs = [self.cost(row) for row in rows]
        seconds, num_bytes = sum(c.seconds for c in costs), max(c.num_bytes for c in costs)
        return Job(tuple(rows), seconds, num_bytes)

    def cost(self, index: int) -> Cost:
        """Return seconds and memory of all tasks of a row, one after another."""
        costs = self.rows[index].costs.values()
        return Cost(sum(c.seconds for c in costs), max(c.num_bytes for c in costs))


def make_plan(path: str, options: SweepOptions) -> Plan:
    """List the layers, tasks and costs of a sweep, from the headers of a model."""
    check_tasks(options)
    found = model, base = open_models(path, options, lambda _: True)
    if not model.layers:
        raise UsageError(f"{path} has no MLP that can be read: see docs/loading.md.")
    if lost := sorted({} if base is None else base.layers.keys() - model.layers.keys()):
        raise UsageError(
            f"{path} lacks layers of {options.baseline} ({shortened(lost)}), which no row would "
            "name: compare the two with `bilens audit --baseline`."
        )
    rows = tuple(
        row_of(index, name, view, options)
        for index, (name, view) in enumerate(model.layers.items())
    )
    models = {one.source: dict(known_of(one)) for one in found if one is not None}
    notes: tuple[AlignmentNote, ...] = ()
    if base is not None:
        notes = compare_wiring(align_models(model, base), compare_files(model, base))
    if options.activations is not None:
        models[options.activations] = seen_of(options.activations, rows)
    head = Manifest(
        path=path,
        source=describe_source(model),
        models=models,
        options=options,
        release=VERSION,
        num_rows=len(rows),
        around=around_of(notes),
    )
    return Plan(head, rows)


def seen_of(folder: str, rows: Sequence[ManifestRow]) -> dict[str, str]:
    """Return size and time of what layers see, where that is there."""
    paths = {row.name: Path(folder) / f"{row.name}.safetensors" for row in rows}
    states = {name: path.stat() for name, path in paths.items() if path.is_file()}
    return {name: f"{one.st_size} bytes of {one.st_mtime_ns} ns" for name, one in states.items()}


def row_of(index: int, name: str, view: LayerView, options: SweepOptions) -> ManifestRow:
    parts = view.stored()
    return ManifestRow(
        index=index,
        name=name,
        kind="gated" if view.gated else "plain",
        activation=str(view.activation),
        **view.sizes._asdict(),
        parts=parts,
        num_bytes=sum(span.stop - span.start for part in parts for span in part.spans),
        costs={
            task: Cost(TASKS[task].seconds(view.sizes, options), TASKS[task].num_bytes(view.sizes))
            for task in options.tasks
        },
    )


def kept_plan(output: SweepOutput) -> Plan | None:
    """Return the plan that an output holds; None where it holds none."""
    data = output.read_bytes(NAME)
    return None if data is None else parsed(data, output.place)


def parsed(data: bytes, where: str) -> Plan:
    try:
        first, *rest = data.decode().splitlines()
        head = read_document(Manifest, json.loads(first))
        rows = tuple(msgspec.json.decode(line, type=ManifestRow) for line in rest)
    except (ValueError, msgspec.DecodeError, BilensError) as error:
        raise FileError(f"{where}: {NAME} is damaged or of another release ({error}).") from None
    plan = Plan(head, rows)
    if plan.text != data or head.num_rows != len(rows):
        raise FileError(f"{where}: {NAME} was changed or cut: start in another folder.")
    return plan


@lru_cache(1)
def plan_at(place: str, sha256: str) -> Plan:
    """Return the plan of an output, read once by a worker."""
    plan = kept_plan(SweepOutput(place))
    if plan is None or plan.sha256 != sha256:
        raise FileError(f"{place} holds no {NAME} that this job is of: was it replaced?")
    check_release(plan, place)
    return plan


def check_release(plan: Plan, place: str) -> None:
    if plan.head.release != VERSION:
        raise UsageError(
            f"{place} holds a sweep by bilens {plan.head.release}, and this is {VERSION}: go on "
            "with that release, or choose another folder."
        )


@lru_cache(2)
def models_of(plan: Plan, portion: int) -> tuple[LoadedModel, LoadedModel | None]:
    """Return the model of a plan and its baseline, open for some rows in turn.

    Raises: FileError if one is not the same any more.
    """
    options, rows = plan.head.options, plan.rows[portion * MOST_ROWS : (portion + 1) * MOST_ROWS]
    found = open_models(plan.head.path, options, {row.name for row in rows}.__contains__)
    views = found[0].layers
    # the same bytes are other layers beside another config.json
    planned = all(
        row.name in views and row_of(row.index, row.name, views[row.name], options) == row
        for row in rows
    )
    for model in found:
        known = {} if model is None else plan.head.models[model.source]
        same = model is None or known.items() >= known_of(model).items()
        if model is not None and not (same and planned):
            raise FileError(
                f"{model.source} is not the model that the manifest is of: sweep it into another "
                "folder."
            )
    if options.activations is not None:
        known = plan.head.models.get(options.activations, {})
        seen = seen_of(options.activations, rows).items()
        if any(known.get(name, state) != state for name, state in seen):
            raise FileError(
                f"{options.activations} holds other activations than the manifest is of: sweep "
                "with them into another folder."
            )
    return found


def checked_models(
    plan: Plan, row: int, anew: bool = False
) -> tuple[LoadedModel, LoadedModel | None]:
    if anew:
        models_of.cache_clear()
    return models_of(plan, row // MOST_ROWS)


def open_models(
    path: str, options: SweepOptions, wanted: Callable[[str], bool]
) -> tuple[LoadedModel, LoadedModel | None]:
    """Open the layers that are wanted; the model as a whole where a task runs it."""
    model = load(path) if WHOLE & {*options.tasks} else load_layers(path, wanted)
    return model, None if options.baseline is None else load_layers(options.baseline, wanted)


def known_of(model: LoadedModel) -> Mapping[str, str]:
    """Return the hash of each file that was opened, or of the weights as a whole."""
    return {**(model.headers or {"": model.weights_sha256}), **files_beside(model)}
