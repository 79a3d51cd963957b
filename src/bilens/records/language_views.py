"""What the explorer shows of a language model: the circuits of a trace, and a text that is read."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bilens.records.base import Document, Record
from bilens.records.trace import Trace


class TracePage(Document, frozen=True, kw_only=True):
    """A trace that lies in the folder, with the model that it belongs to."""

    kind: Literal["trace page"] = "trace page"
    report: str  # its id
    name: str  # its path from the folder
    model: str | None  # id of the model of those weights; null where the folder has none
    trace: Trace


class CircuitGraph(Record, frozen=True):
    """A circuit in the layout of circuit-tracer, with the labels that people gave."""

    metadata: dict[str, Any]
    parameters: dict[str, Any] = msgspec.field(name="qParams")
    nodes: tuple[dict[str, Any], ...]
    links: tuple[dict[str, Any], ...]
