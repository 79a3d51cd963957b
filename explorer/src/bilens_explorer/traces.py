"""The page of a trace: the trace, its model, and its circuits as graphs."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath

import msgspec
from msgspec import structs

from bilens import TraceReport
from bilens.base.errors import BilensError
from bilens.findings import labels
from bilens.records import Trace, displayable
from bilens.report import MARKS, build_circuit_graph
from bilens_explorer.documents import without_rows
from bilens_explorer.endpoint import Arguments, Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import cut_paths, require_found
from bilens_explorer.records.models import CircuitGraph, Key, Number, TracePage

MOST_ALIKE = 3  # models of one name that are opened to compare their weights


def trace_of(served: ServedFolder, key: str) -> Trace:
    """Return a trace with the places that it names, which are not told."""
    found = served.read_report(key)
    return require_found(found.record if isinstance(found, TraceReport) else None)


def trace_page(served: ServedFolder, key: Key) -> TracePage:
    """A trace that lies in the folder, and the model that it belongs to."""
    trace = trace_of(served, key)
    source = trace.source
    files = {name: one for name, one in source.files.items() if PurePath(name).name == name}
    told = cut_paths(trace, served.folder)
    paper = served.paper(key)
    model = find_weights(served, source.path, source.weights_sha256, files)
    if model is not None and paper.state in ("others", "unread"):  # its model was opened for that
        paper = structs.replace(paper, state="these" if files else "weights")
    return TracePage(
        report=key,
        name=paper.name,
        paper=paper,
        model=model,
        trace=displayable(told if served.shows_rows else without_rows(told), MARKS),
    )


def find_weights(
    served: ServedFolder, path: str, sha256: str, files: Mapping[str, str]
) -> str | None:
    """Return the id of the model of the folder that is what was read at this path.

    No path of a document is opened: it only says which of the models that were found are compared.
    """
    ends = PurePath(path).parts[::-1]

    def alike(there: PurePath) -> int:
        same = [one == other for one, other in zip(there.parts[::-1], ends, strict=False)]
        return [*same, False].index(False)

    models = served.last_walk().models
    order = sorted(models, key=lambda key: -alike(models[key]))
    for key in order[:MOST_ALIKE]:
        if alike(models[key]) == 0:
            return None
        if served.is_open_as(key, sha256, files):
            return key
    return None


def graph(served: ServedFolder, key: Key, number: Number) -> CircuitGraph:
    """A circuit of a trace in the layout of circuit-tracer, with the labels that people gave."""
    page = trace_page(served, key)
    circuit = require_found(dict(enumerate(page.trace.circuits, 1)).get(number))
    given = {} if page.model is None else labels(served.model(page.model).entries)
    named = {subject: entry.text for subject, entry in given.items()}
    found = build_circuit_graph(page.trace, circuit, named)
    return msgspec.convert(found, CircuitGraph)


def traces(served: ServedFolder) -> Iterator[str]:
    reports = served.last_walk().reports.items()
    yield from (key for key, (_, kind) in reports if kind == "trace")


def graphs_held(served: ServedFolder) -> Iterator[Arguments]:
    for key in traces(served):
        with suppress(BilensError):
            for place, _ in enumerate(trace_of(served, key).circuits, 1):
                yield {"key": key, "number": place}


ENDPOINTS = (
    Endpoint(
        "/reports/{key}/circuits",
        trace_page,
        held=lambda served: ({"key": key} for key in traces(served)),
    ),
    Endpoint("/reports/{key}/circuits/{number}", graph, held=graphs_held),
)
