"""What something can be said of: subjects that a page of the model speaks of, within its sizes."""

import re
from collections.abc import Iterator
from contextlib import suppress

from bilens.api.provenance import reading_of
from bilens.base.errors import BilensError, UsageError
from bilens.findings.rules.judgements import RULE
from bilens.records.explorer import ModelPage
from bilens.records.history import Action
from bilens.serve.folder import ServedFolder
from bilens.serve.traces import trace_of, traces

# The same kinds have names in reports.
SIDE = r"(?:positive|negative):(\d{1,6})"
CLASS = re.compile(rf"class:(\d{{1,6}}):{SIDE}", re.ASCII)
LAYER = re.compile(rf"layer:(.+):(\d{{1,9}}):{SIDE}", re.ASCII)
LATENT = re.compile(r"(latent:.+:)(\d{1,18})", re.ASCII)
OTHER = re.compile(r"model|rule:[a-z_0-9]+|(latent|circuit|column|direction):.+", re.ASCII)
KNOWN = (
    "model, rule:…, class:3:positive:0, layer:NAME:3:positive:0, latent:…, circuit:…, column:… or "
    "direction:…"
)


def check_subject(served: ServedFolder, page: ModelPage, action: Action, subject: str) -> None:
    """Refuse what no page speaks of; Python's `History` takes any subject."""
    if not any(form.fullmatch(subject) for form in (CLASS, LAYER, OTHER)):
        raise UsageError(f"subject is {subject!r:.80}; expected {KNOWN}.")
    for why in beyond(served, page.model.id, subject):
        raise UsageError(f"subject is {subject!r:.80}; {why}.")
    judged = {one.rule for one in page.findings if one.outcome in ("fail", "warn")}
    judged |= {one.rule for one in page.conditions}
    if action in ("accept", "reject") and subject.removeprefix(RULE) not in judged:
        raise UsageError(
            f"{subject}: the last audit found nothing to accept or reject there: neither a failure "
            "nor a caution."
        )


def beyond(served: ServedFolder, key: str, subject: str) -> Iterator[str]:
    """Yield why a model has nothing of this name or number, as far as it can be read."""
    if found := LATENT.fullmatch(subject):
        for count in latents(served, found[1]):
            yield from outside("latents", found[2], count)
        return
    try:
        opened = served.opened(key)
        layers = opened.model.layers
    except BilensError:  # it cannot be read, or is an autoencoder: no page draws it
        return
    if (found := CLASS.fullmatch(subject)) and layers:
        sizes = [*layers.values()][-1].sizes
        yield from outside("classes", found[1], sizes.d_out)
        yield from outside("inputs, so eigenvectors", found[2], sizes.d_in)
    elif (found := LAYER.fullmatch(subject)) and layers:
        if found[1] not in layers:
            yield "the model has no layer of this name"
        else:
            sizes = layers[found[1]].sizes
            yield from outside("outputs", found[2], sizes.d_out)
            yield from outside("inputs, so eigenvectors", found[3], sizes.d_in)
    elif subject.startswith("column:") and opened.model.input_names:
        read = reading_of(opened.model)
        names = {one.name for one in read.columns} if read else {*opened.model.input_names}
        if subject.removeprefix("column:") not in names:
            yield "the model has no column of this name"


def outside(what: str, number: str, count: int) -> Iterator[str]:
    if int(number) >= count:
        yield f"there are {count} {what}, from 0"


def latents(served: ServedFolder, start: str) -> Iterator[int]:
    """Yield how many latents the autoencoder of a subject has, where a trace names it."""
    for key in traces(served):
        with suppress(BilensError):
            for sae in trace_of(served, key).saes:
                if f"latent:{sae.hook}:{sae.weights_sha256[:8]}:" == start:
                    yield sae.num_latents
