"""A language model in the explorer: the circuits of a trace, and a text that is read."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bilens.records import Count, Document, Numbers, Record, TokenEnds, Trace


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


class TextTrace(Record, frozen=True):
    """A trace of a model, by which a text can be read."""

    report: str  # its id
    name: str  # its path from the folder
    layer: str
    readable: bool  # whether both autoencoders lie in the folder; without any: false


class TextSetting(Document, frozen=True, kw_only=True):
    """How a text is read by a language model."""

    kind: Literal["text setting"] = "text setting"
    most: Count  # tokens that are read
    traces: tuple[TextTrace, ...]


class TextAsked(Record, frozen=True, forbid_unknown_fields=True):
    """A text that is to be read."""

    text: Annotated[str, Meta(min_length=1, max_length=4000)]
    position: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None  # of a token; null: the last
    trace: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")] | None = None  # id of a report


class ReadToken(Record, frozen=True):
    """One token of a text."""

    id: Count
    text: str
    probability: float | None  # after those before it; null for the first


class NextToken(Record, frozen=True):
    """A token that may follow a text, with its logit and probability."""

    id: Count
    text: str
    logit: float
    probability: float


class LayerEffect(Record, frozen=True):
    """The logits that the MLP of a block adds most to at a token, through the unembedding."""

    name: str
    tokens: TokenEnds  # over the mean of all tokens, without the final norm


class FiredLatent(Record, frozen=True):
    """A latent that is active somewhere in a text."""

    latent: Count
    name: str  # as the trace calls it
    activations: Numbers  # at each token but the first, which attends to itself alone


class FiredLatents(Record, frozen=True):
    """The latents of one autoencoder that are active somewhere in a text."""

    subject: str  # with the number of a latent behind it: of what people say
    count: Count
    latents: tuple[FiredLatent, ...]  # the strongest ones


class CircuitValues(Record, frozen=True):
    """A circuit of the trace on a text, at each token but the first."""

    latent: Count  # its output
    name: str
    activations: Numbers  # of the output latent
    values: Numbers  # of the circuit: its polynomial in few input latents


class TextLatents(Record, frozen=True):
    """The latents and circuits of a trace that are active in a text."""

    inputs: FiredLatents
    outputs: FiredLatents
    circuits: tuple[CircuitValues, ...]


class TextReading(Document, frozen=True, kw_only=True):
    """A text as a language model reads it."""

    kind: Literal["text reading"] = "text reading"
    tokens: tuple[ReadToken, ...]
    left_out: Count  # tokens that had no room
    position: Count  # of the token that `next` follows and `layers` are read at
    next: tuple[NextToken, ...]  # the most probable first
    layers: tuple[LayerEffect, ...]
    latents: TextLatents | None  # null where no trace was named
