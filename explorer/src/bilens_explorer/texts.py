"""A text as a language model reads it: next tokens, layers, latents and circuits of a trace."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from bilens.api import token_ends
from bilens.base.errors import BilensError, UsageError
from bilens.data import Tokenizer
from bilens.interp import output_tokens
from bilens.io import Vocabulary, sae_for_hook
from bilens.nn import BilinearTransformer, TopKSAE
from bilens.records import Circuit, Trace, displayable
from bilens.report import MARKS, latent_name, latent_subject, token_name
from bilens.train import language_model, tokenizer_of
from bilens_explorer.endpoint import Endpoint
from bilens_explorer.folder import ServedFolder
from bilens_explorer.open_models import OpenModel
from bilens_explorer.records.language_views import (
    CircuitValues,
    FiredLatent,
    FiredLatents,
    LayerEffect,
    NextToken,
    ReadToken,
    TextAsked,
    TextLatents,
    TextReading,
    TextSetting,
    TextTrace,
)
from bilens_explorer.records.models import Key
from bilens_explorer.traces import find_weights, read_of, trace_of, traces

MOST_TOKENS, MOST_TRACES = 256, 20
NEXT, ENDS, FIRED = 10, 5, 40  # tokens that may follow; at each end of a layer; latents of a side
LARGEST_SAE = 1 << 28  # bytes of its matrices in float64
ONE_AT_A_TIME = Lock()


def setting(served: ServedFolder, key: Key) -> TextSetting:
    """How a language model reads texts: the most tokens, and the traces of it in the folder."""
    opened = served.opened(key)
    module, _ = reader_of(opened)
    found = islice(traces_of(served, key), MOST_TRACES)
    return TextSetting(most=min(module.config.n_ctx, MOST_TOKENS), traces=tuple(found))


def reader_of(opened: OpenModel) -> tuple[BilinearTransformer, Tokenizer]:
    """Return a language model and its tokenizer; UsageError where it is none."""
    module = language_model(opened.model, "reading a text")
    return module, opened.once("tokenizer", lambda: tokenizer_of(opened.model, module))


def traces_of(served: ServedFolder, model: str) -> Iterator[TextTrace]:
    """Yield the traces in the folder of a model as it is now."""
    for key in traces(served):
        path = served.last_walk().reports[key][0]
        with suppress(BilensError, OSError):  # damaged, or gone since
            state = key, path.stat().st_mtime_ns
            if state not in served.briefs:
                served.briefs[state] = brief(served, key)
            read, layer, saes = served.briefs[state]
            if served.is_open_as(model, *read):
                there = [find_weights(served, *one) is not None for one in saes]
                name = served.name_of(path)
                yield TextTrace(key, displayable(name), layer, readable=bool(there) and all(there))


def brief(served: ServedFolder, key: str) -> tuple[Any, str, list[tuple[str, str]]]:
    """Return source, layer name and autoencoders of a trace, which itself may be large."""
    trace = trace_of(served, key)
    saes = [(sae.path, sae.weights_sha256) for sae in trace.saes]
    return read_of(trace), displayable(trace.layer.name), saes


@torch.no_grad()
def read_text(served: ServedFolder, key: Key, body: TextAsked) -> TextReading:
    """Read a text: next tokens, what each layer adds, and latents and circuits of a trace."""
    opened = served.opened(key)
    module, tokenizer = reader_of(opened)
    trace = None if body.trace is None else trace_of(served, body.trace)
    ids = tokenizer.encode(body.text)
    read = ids[: min(module.config.n_ctx, MOST_TOKENS)]
    if not read:
        raise UsageError("the text has no token that the model knows: type a word.")
    position = len(read) - 1 if body.position is None else body.position
    if position >= len(read):
        raise UsageError(f"position is {position}; the text has {len(read)} tokens.")
    places = [f"blocks.{index}.mlp_out" for index in range(module.config.n_layer)]
    hooks = [] if trace is None else [trace.layer.input, trace.layer.output]
    with ONE_AT_A_TIME:
        logits, found = module.run(torch.tensor([read]), capture={*places, *hooks})
        latents = None
        if trace is not None:
            saes = saes_of(served, key, trace)
            latents = latents_of(trace, saes, [found[hook][0, 1:].double() for hook in hooks])
        unembed = Vocabulary.of_ours(module).unembedding
        layers = [
            layer_effect(place, found[place][0, position], unembed, tokenizer) for place in places
        ]
    log_p = logits[0].double().log_softmax(dim=-1)
    likely = log_p[position].topk(min(NEXT, log_p.shape[-1]))
    chances = log_p[:-1].gather(1, torch.tensor(read[1:])[:, None]).exp()[:, 0].tolist()
    name = tokenizer.token
    pairs = zip(likely.indices.tolist(), likely.values.exp().tolist(), strict=True)
    said = TextReading(
        tokens=tuple(
            ReadToken(number, name(number), chance)
            for number, chance in zip(read, [None, *chances], strict=True)
        ),
        left_out=len(ids) - len(read),
        position=position,
        next=tuple(
            NextToken(number, name(number), float(logits[0, position, number]), chance)
            for number, chance in pairs
        ),
        layers=tuple(layers),
        latents=latents,
    )
    return displayable(said, MARKS)


def layer_effect(place: str, written: Tensor, unembed: Tensor, tokenizer: Tokenizer) -> LayerEffect:
    ends = token_ends(output_tokens(written, unembed, ENDS), tokenizer.token)
    return LayerEffect(place.removesuffix("_out"), ends)


def saes_of(served: ServedFolder, model: str, trace: Trace) -> list[TopKSAE]:
    """Return the autoencoders of a trace in float64, if they lie in the folder and fit."""
    if not served.is_open_as(model, *read_of(trace)):
        raise UsageError("the trace is of other weights or files: choose a trace of this model.")
    if not trace.saes:
        raise UsageError("the trace was made without autoencoders: it knows no latents.")
    found = []
    for sae, hook in zip(trace.saes, (trace.layer.input, trace.layer.output), strict=True):
        key = find_weights(served, sae.path, sae.weights_sha256)
        if key is None:
            raise UsageError(
                f"the autoencoder at {hook} of this trace is not in the folder: put it there."
            )
        made = sae_for_hook(served.opened(key).model, served.opened(model).model, hook)
        if 16 * made.d_in * made.num_latents > LARGEST_SAE:
            raise UsageError(f"the autoencoder at {hook} is too large to be read in a page.")
        found.append(made.double().eval())
    return found


def latents_of(trace: Trace, saes: list[TopKSAE], inputs: list[Tensor]) -> TextLatents:
    """Return which latents and circuits are active, as in the trace itself."""
    before, behind = (sae.encode(x) for sae, x in zip(saes, inputs, strict=True))
    for one in trace.circuits:
        if max(one.features) >= before.shape[1] or one.latent >= behind.shape[1]:
            raise UsageError(f"the circuit of latent {one.latent} does not fit the autoencoders.")
    described = {one.latent: latent_name(one) for one in trace.input_latents}
    circuits = {one.latent: latent_name(one.output) for one in trace.circuits}
    peaks = {one.latent: one.peak for one in trace.ranking if one.peak is not None}
    peaked = {latent: f"{latent} {token_name(text)}" for latent, text in peaks.items()}
    return TextLatents(
        inputs=fired(trace, before, described, output=False),
        outputs=fired(trace, behind, {**peaked, **circuits}, output=True),
        circuits=tuple(
            CircuitValues(
                one.latent,
                circuits[one.latent],
                activations=tuple(behind[:, one.latent].tolist()),
                values=tuple(circuit_values(one, before).tolist()),
            )
            for one in trace.circuits
        ),
    )


def fired(trace: Trace, z: Tensor, names: Mapping[int, str], *, output: bool) -> FiredLatents:
    largest = z.abs().amax(dim=0) if len(z) else z.new_zeros(z.shape[1])
    order = largest.argsort(descending=True, stable=True)[:FIRED].tolist()
    return FiredLatents(
        subject=latent_subject(trace, 0, output=output)[:-1],
        count=int((largest > 0).sum()),
        latents=tuple(
            FiredLatent(latent, names.get(latent, str(latent)), tuple(z[:, latent].tolist()))
            for latent in order
            if float(largest[latent]) > 0
        ),
    )


def circuit_values(circuit: Circuit, z: Tensor) -> Tensor:
    """Return constant + linear·z + zᵀSz of the input latents of a circuit, (tokens,)."""
    chosen = z[:, list(circuit.features)]
    matrix, linear = z.new_tensor(circuit.matrix), z.new_tensor(circuit.linear)
    return circuit.constant + chosen @ linear + ((chosen @ matrix) * chosen).sum(dim=1)


ENDPOINTS = (
    Endpoint("/models/{key}/text", setting, slow="view"),
    Endpoint("/models/{key}/text", read_text, slow="view"),
)
