"""What the page of a trace is drawn from: the trace, its model, and its circuits as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePath

import msgspec

from bilens.base.errors import BilensError
from bilens.findings.rules.judgements import labels
from bilens.records.base import displayable
from bilens.records.language_views import CircuitGraph, TracePage
from bilens.records.trace import Trace
from bilens.report.circuit_graph import circuit_graph
from bilens.report.reports import TraceReport
from bilens.report.text import MARKS
from bilens.serve.endpoint import Asked, Endpoint
from bilens.serve.folder import ServedFolder

MOST_ALIKE = 3  # models of one name that are opened to compare their weights


def trace_of(served: ServedFolder, key: str) -> Trace | None:
    """Return a trace of the folder; None where the id is that of no trace."""
    found = served.report(key)
    return found.record if isinstance(found, TraceReport) else None


def trace_page(served: ServedFolder, key: str) -> TracePage | None:
    trace = trace_of(served, key)
    if trace is None:
        return None
    return TracePage(
        report=key,
        name=served.name_of(served.found().reports[key][0]),
        model=find_weights(served, trace.source.path, trace.source.weights_sha256),
        trace=displayable(trace, MARKS),
    )


def find_weights(served: ServedFolder, path: str, sha256: str) -> str | None:
    """Return the id of the model of the folder that has these weights and the name of this path.

    No path of a document is opened: it only says which of the models that were found are compared.
    """
    ends = PurePath(path).parts[::-1]

    def alike(there: PurePath) -> int:
        same = [one == other for one, other in zip(there.parts[::-1], ends, strict=False)]
        return [*same, False].index(False)

    models = served.found().models
    order = sorted(models, key=lambda key: -alike(models[key]))
    for key in order[:MOST_ALIKE]:
        if alike(models[key]) == 0:
            return None
        with suppress(BilensError):
            opened = served.opened(key)
            if opened is not None and opened.model.weights_sha256 == sha256:
                return key
    return None


def graph(served: ServedFolder, asked: Asked) -> CircuitGraph | None:
    page, place = trace_page(served, asked.path["key"]), asked.path["number"]
    if page is None or not 1 <= place <= len(page.trace.circuits):
        return None
    model = None if page.model is None else served.model(page.model)
    given = {} if model is None else labels(model.entries)
    named = {subject: entry.text for subject, entry in given.items()}
    found = circuit_graph(page.trace, page.trace.circuits[place - 1], named)
    return msgspec.convert(found, CircuitGraph)


def traces(served: ServedFolder) -> Iterator[str]:
    for key, (_, kind) in served.found().reports.items():
        if kind == "trace":
            yield key


def graphs_held(served: ServedFolder) -> Iterator[Asked]:
    for key in traces(served):
        with suppress(BilensError):
            trace = trace_of(served, key)
            for place in range(0 if trace is None else len(trace.circuits)):
                yield Asked({"key": key, "number": place + 1})


ENDPOINTS = (
    Endpoint(
        "/reports/{key}/circuits",
        "A trace that lies in the folder, and the model that it belongs to.",
        (TracePage,),
        lambda served, asked: trace_page(served, asked.path["key"]),
        held=lambda served: (Asked({"key": key}) for key in traces(served)),
    ),
    Endpoint(
        "/reports/{key}/circuits/{number}",
        "A circuit of a trace in the layout of circuit-tracer, with the labels that people gave.",
        (CircuitGraph,),
        graph,
        held=graphs_held,
    ),
)
