"""A language model in the explorer: the circuits of a trace, and a text that is read."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from bilens.records import Count, Document, Numbers, Record, TokenEnds, Trace
from bilens_explorer.records.models import Key

Position = Annotated[int, Meta(ge=0, le=1 << 20)]


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


class TextTrace(Record, frozen=True):
    """A trace of a model, by which a text can be read."""

    report: Annotated[str, "its id"]
    name: Annotated[str, "its path from the folder"]
    layer: Annotated[str, "which MLP it is of"]
    readable: Annotated[bool, "whether both autoencoders lie in the folder; without any: false"]


class TextSetting(Document, frozen=True, kw_only=True):
    """How a text is read by a language model."""

    kind: Annotated[Literal["text setting"], "of the document"] = "text setting"
    most: Annotated[Count, "tokens that are read"]
    traces: Annotated[tuple[TextTrace, ...], "of the model, by which a text can be read"]


class TextAsked(Record, frozen=True, forbid_unknown_fields=True):
    """A text that is to be read."""

    text: Annotated[str, Meta(min_length=1, max_length=4000), "what is read"]
    position: Annotated[Position | None, "of a token; null: the last"] = None
    trace: Annotated[Key | None, "id of its report; null: latents are not read"] = None


class ReadToken(Record, frozen=True):
    """One token of a text."""

    id: Annotated[Count, "in the vocabulary"]
    text: Annotated[str, "of the token"]
    probability: Annotated[float | None, "after those before it; null for the first"]


class NextToken(Record, frozen=True):
    """A token that may follow a text, with its logit and probability."""

    id: Annotated[Count, "in the vocabulary"]
    text: Annotated[str, "of the token"]
    logit: Annotated[float, "of the model, before softmax"]
    probability: Annotated[float, "after the token that was chosen"]


class LayerEffect(Record, frozen=True):
    """The logits that the MLP of a block adds most to at a token, through the unembedding."""

    name: Annotated[str, "of the block's MLP"]
    tokens: Annotated[TokenEnds, "logits over the mean of all, without the final norm"]


class FiredLatent(Record, frozen=True):
    """A latent that is active somewhere in a text."""

    latent: Annotated[Count, "its number in the autoencoder"]
    name: Annotated[str, "as the trace calls it"]
    activations: Annotated[Numbers, "at each token but the first, which attends to itself alone"]


class FiredLatents(Record, frozen=True):
    """The latents of one autoencoder that are active somewhere in a text."""

    subject: Annotated[str, "with the number of a latent behind it: of what people say"]
    count: Annotated[Count, "latents that are active anywhere in the text"]
    latents: Annotated[tuple[FiredLatent, ...], "the strongest ones"]


class CircuitValues(Record, frozen=True):
    """A circuit of the trace on a text, at each token but the first."""

    latent: Annotated[Count, "number of its output latent"]
    name: Annotated[str, "of the output latent, as the trace calls it"]
    activations: Annotated[Numbers, "of the output latent"]
    values: Annotated[Numbers, "of the circuit: its polynomial in few input latents"]


class TextLatents(Record, frozen=True):
    """The latents and circuits of a trace that are active in a text."""

    inputs: Annotated[FiredLatents, "of the autoencoder before the layer"]
    outputs: Annotated[FiredLatents, "of the one behind it"]
    circuits: Annotated[tuple[CircuitValues, ...], "every one of the trace"]


class TextReading(Document, frozen=True, kw_only=True):
    """A text as a language model reads it."""

    kind: Annotated[Literal["text reading"], "of the document"] = "text reading"
    tokens: Annotated[tuple[ReadToken, ...], "of the text"]
    left_out: Annotated[Count, "tokens that had no room"]
    position: Annotated[Count, "of the token that `next` follows and `layers` are read at"]
    next: Annotated[tuple[NextToken, ...], "the most probable first"]
    layers: Annotated[tuple[LayerEffect, ...], "of every block"]
    latents: Annotated[TextLatents | None, "null where no trace was named"]
