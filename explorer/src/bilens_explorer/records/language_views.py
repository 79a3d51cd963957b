"""A trace of a language model in the explorer: its circuits, and each of them as a graph."""

from typing import Annotated, Any, Literal

from bilens.records import Document, Record, Trace


class TracePage(Document, frozen=True, kw_only=True):
    """A trace that lies in the folder, with the model that it belongs to."""

    kind: Annotated[Literal["trace page"], "of the document"] = "trace page"
    report: Annotated[str, "its id"]
    name: Annotated[str, "its path from the folder"]
    model: Annotated[str | None, "id of the model of those weights; null where the folder has none"]
    trace: Annotated[Trace, "the document itself"]


class CircuitGraph(Record, frozen=True, rename={"parameters": "qParams"}):
    """A circuit in the layout of circuit-tracer, with the labels that people gave."""

    metadata: Annotated[dict[str, Any], "what the graph is of"]
    parameters: Annotated[dict[str, Any], "what is shown of it at first"]
    nodes: Annotated[tuple[dict[str, Any], ...], "latents, with the labels that people gave"]
    links: Annotated[tuple[dict[str, Any], ...], "what one adds to another"]
