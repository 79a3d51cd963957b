"""The spectra of a model: its layers, eigenvalues beside what chance gives, and eigenvectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta, structs

from bilens import EigenDecomposition, rotation_null
from bilens.algebra import select, solved_width
from bilens.api import (
    WHOLE_WIDTH,
    Decomposition,
    LayerJob,
    LayerOutputs,
    Request,
    layer_map,
    prepare,
    run_job,
    token_ends,
)
from bilens.base.errors import BilensError, UsageError
from bilens.certify import enclose_spectrum
from bilens.data import load_tokenizer
from bilens.findings import LEVEL, MINIMUM_SAMPLES, drawn, image_shape, null_interval
from bilens.interp import eigenvector_tokens
from bilens.io import vocabulary_of
from bilens.nn import LayerView
from bilens.records import (
    ApproximationQuality,
    FitQuality,
    LayerReading,
    PastAudit,
    TokenEnds,
    value_at,
)
from bilens_explorer.endpoint import Arguments, Endpoint, every_model
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import ToldError, require_found
from bilens_explorer.open_models import OpenModel
from bilens_explorer.records.layer_spectra import (
    LayerRow,
    LayerTable,
    NullBand,
    Spectrum,
    TruncationCurve,
    ViewedVector,
    ViewedVectors,
)
from bilens_explorer.records.models import Key

LARGEST = 1 << 24  # weights of a branch: what a page can wait for, and hold
LEADING = 64  # pairs of layers that are too wide for whole spectra
EACH_SIGN = 4  # eigenvectors that are shown at first
TOKENS = 8  # of each end
SAMPLES, WORK = 99, 6e10  # rotations, and products in all of them: some ten seconds
HELD_LAYERS, HELD_OUTPUTS = 4, 10  # of each model, in a one-file export
LayerName = Annotated[str, Meta(max_length=200, description="of `bl.load(...).layers`")]
SPELLED = "its number; `3~7` is 3 minus 7, `3~raw` is 3 not against the mean of all"
OutputText = Annotated[str, Meta(pattern="^[0-9]{1,9}(~([0-9]{1,9}|raw))?$", description=SPELLED)]
Rank = Annotated[int, Meta(ge=0, le=1 << 20, description="by falling |λ|, from 1; 0: leading")]


@dataclass(frozen=True, eq=False)
class OutputView:
    """One output of a layer of a model that is open, as a query names it."""

    opened: OpenModel
    layer: str
    text: str
    fit: FitQuality | None = None  # that the last audit read

    @classmethod
    def named(cls, served: ServedFolder, key: str, layer: str, output: str) -> OutputView:
        opened = served.opened(key)
        if layer not in opened.model.layers:
            raise UsageError(f"{layer!r:.80} is no layer of {opened.name}.")
        sizes = opened.model.layers[layer].sizes
        if sizes.d_hidden * sizes.d_in > LARGEST:
            size = {"rows": sizes.d_hidden, "columns": sizes.d_in}
            raise ToldError("too_large", layer=layer, model=opened.name, **size)
        _, readings = last_readings(served, key, opened)
        fit = None if layer not in readings else readings[layer].fit
        if fit is not None and not fit.usable:
            found = min(fit.quadratic or 0.0, fit.trimmed or 1.0)
            told = {"r2": f"{found:.3g}", "threshold": f"{fit.threshold:g}"}
            raise ToldError("not_drawn", layer=layer, **told)
        return cls(opened, layer, output, fit)

    @property
    def approximation(self) -> ApproximationQuality | None:
        """How far what is drawn stands for the layer: in the audit's numbers, if it read the same.

        Of one that it fitted on data the page tells beside it.
        """
        found, fit = self.job().layer.approximation, self.fit
        if found is None or fit is None or fit.seen or fit.quadratic is None:
            return found
        return structs.replace(found, r_squared=fit.quadratic, standard_error=fit.standard_error)

    @property
    def view(self) -> LayerView:
        return self.opened.model.layers[self.layer]

    @property
    def input_names(self) -> tuple[str, ...] | None:
        return self.opened.model.input_names if self.view.reads == "inputs" else None

    @property
    def image(self) -> tuple[int, int] | None:
        """Rows and columns of what the layer reads; None where that is no image."""
        rows, columns = image_shape(self.view.sizes.d_in, self.opened.model.input_shape)
        drawable = self.view.reads == "inputs" and self.input_names is None
        return (rows, columns) if drawable and rows > 1 else None

    def job(self) -> LayerJob:
        model, layer = self.opened.model, self.layer
        least = None if self.fit is None else self.fit.threshold
        read = partial(layer_map, model, layer, "input", threshold=least)
        mapped = self.opened.once(("map", layer, least), read)
        first, _, second = self.text.partition("~")
        contrast = (int(first), int(second)) if second.isdigit() else None
        width = mapped.f.sizes.d_in
        request = Request(
            top=width if width <= WHOLE_WIDTH else LEADING,
            outputs=(int(first),) if contrast is None else None,
            reading="raw" if second == "raw" else None,
            contrast=contrast,
            null_samples=0,
        )
        return prepare(model, request, layer, mapped=mapped)

    def decomposed(self) -> Decomposition:
        job = self.job()
        return self.opened.once(("pairs", self.layer, self.text), lambda: run_job(job))

    def pairs(self) -> EigenDecomposition:
        """Return the pairs that are not rounding, of this one output."""
        found = self.decomposed().pairs
        found.check_usable()
        several = int((found.distinct_from_zero != 0).sum())
        return select(found, max(several, 1), "magnitude")


def spectrum(
    served: ServedFolder, key: Key, layer: LayerName, output: OutputText = "0"
) -> Spectrum:
    """The eigenvalues of one output of a layer, or of a contrast of two, with proven bounds."""
    read = OutputView.named(served, key, layer, output)
    what = "spectrum", read.layer, read.text, read.fit
    return read.opened.once(what, lambda: spectrum_of(read))


def spectrum_of(output: OutputView) -> Spectrum:
    job, found, pairs = output.job(), output.decomposed(), output.pairs()
    (form,), known = found.record.outputs, enclose_spectrum(found.pairs[0])
    count = pairs.eigenvalues.shape[1]
    sizes = (known.after(k).size for k in range(count + 1))
    return Spectrum(
        layer=output.layer,
        reading=found.record.reading,
        about_input=found.record.about_input,
        approximation=output.approximation,
        d_in=job.layer.f.sizes.d_in,
        whole=found.pairs.whole,
        form=structs.replace(form, pairs=form.pairs[:count]),
        bounds=tuple(size if size < torch.inf else None for size in sizes),
    )


def null_band(
    served: ServedFolder, key: Key, layer: LayerName, output: OutputText = "0"
) -> NullBand:
    """The spectrum that chance would give an output: that of the rotation null."""
    read = OutputView.named(served, key, layer, output)
    job = read.job()
    behind, embedding = job.layer.behind, job.layer.embedding
    d_before = behind.sizes.d_in if embedding is None else embedding.shape[1]
    width, sizes = solved_width(behind.sizes, d_before), behind.sizes
    work = sizes.d_in * min(sizes.d_hidden, sizes.d_in) ** 2 + width**3
    samples = next((one for one in (SAMPLES, MINIMUM_SAMPLES) if one * work <= WORK), 0)
    if samples == 0:
        return NullBand(samples=0, level=LEVEL)

    def sample() -> NullBand:
        null = rotation_null(job.read.read_map(behind), None, 0, samples, embedding)
        null.check_usable()
        lower, upper = (float(edge) for edge in null.edges(LEVEL))
        ranks = null_interval(null.effective_rank[:, 0])
        return NullBand(
            samples=samples, level=LEVEL, lower=lower, upper=upper, effective_rank=ranks
        )

    return read.opened.once(("null", read.layer, read.text), sample, slow=True)


def layer_table(served: ServedFolder, key: Key) -> LayerTable:
    """The layers of a model, none of them read, and what the last audit of layers says."""
    opened = served.opened(key)
    said, readings = last_readings(served, key, opened)
    return LayerTable(
        weights_sha256=opened.model.read_sha256,
        audit=None if said is None else said.number,
        layers=tuple(
            layer_row(opened, name, view, readings.get(name))
            for name, view in opened.model.layers.items()
        ),
    )


def last_readings(
    served: ServedFolder, key: str, opened: OpenModel
) -> tuple[PastAudit | None, dict[str, LayerReading]]:
    """Return the last audit of layers, and how it read those that it read as they are opened."""
    audits = audits_of(served, key)
    said = next((one for one in audits if one.kind == "layers"), None)
    if said is None:
        return None, {}
    found = opened.once(("audited", said), lambda: served.audit(said.number).record.layers)
    views = opened.model.layers
    readings = () if found is None else found.readings
    known = (one for one in readings if one.name in views)
    same = {one.name: one for one in known if one.activation == views[one.name].activation.name}
    return said, same


def layer_row(opened: OpenModel, name: str, view: LayerView, said: LayerReading | None) -> LayerRow:
    names, numbers = LayerOutputs.from_model(opened.model, name).names, range(view.sizes.d_out)
    return LayerRow(
        name=name,
        reads=view.reads,
        gives=view.gives,
        activation=view.activation.name,
        gated=view.gated,
        exact=view.exact,
        **view.sizes._asdict(),
        parameters=sum(view.tensors.values()),
        outputs=None if names == tuple(map(str, numbers)) else names,
        r_squared=value_at(said, "fit.quadratic"),
        usable=value_at(said, "fit.usable"),
        seen=value_at(said, "fit.seen"),
        norm=value_at(said, "quadratic_norm"),
        rank=value_at(said, "outputs.effective_rank"),
        dead=value_at(said, "units.dead"),
        broken=value_at(said, "broken"),
    )


def audits_of(served: ServedFolder, key: str) -> list[PastAudit]:
    """Return the audits of a model with its files of now, read as in the last one, last first."""
    past = served.history.audits(served.name_of(require_found(served.last_walk().models.get(key))))
    read = {one.number: one.identity and one.identity.reading for one in past}
    past = [one for one in past if read[one.number] == read[past[0].number]]
    return [one for one in past if served.is_open_as(key, one.weights_sha256, dict(one.files))]


def eigenvectors(
    served: ServedFolder, key: Key, layer: LayerName, output: OutputText = "0", vector: Rank = 0
) -> ViewedVectors:
    """The leading eigenvectors of each sign, or the one at a position from 1."""
    read = OutputView.named(served, key, layer, output)
    pairs = read.pairs()[0]
    if vector > len(pairs.eigenvalues):
        raise UsageError(f"vector is {vector}; expected one from 1 to {len(pairs.eigenvalues)}.")
    what = "vectors", read.layer, read.text, vector
    values = pairs.eigenvalues.tolist()
    signed = ([at for at, value in enumerate(values) if sign * value > 0] for sign in (1, -1))
    chosen = [vector - 1] if vector else sorted(at for ends in signed for at in ends[:EACH_SIGN])
    return read.opened.once(what, lambda: viewed_vectors(read, pairs, chosen))


def viewed_vectors(
    output: OutputView, pairs: EigenDecomposition, chosen: list[int]
) -> ViewedVectors:
    model, view, values = output.opened.model, output.view, pairs.eigenvalues.tolist()
    vectors = pairs.eigenvectors[chosen]
    tokens: list[TokenEnds] | None = None
    if view.reads == "residual stream":
        those = replace(pairs, eigenvalues=pairs.eigenvalues[chosen], eigenvectors=vectors)
        tokens = tokens_of(output, those)
    size = float(pairs.norm) or 1.0
    return ViewedVectors(
        weights_sha256=model.read_sha256,
        shape=output.image,
        shape_assumed=model.input_shape is None,
        input_names=output.input_names,
        vectors=tuple(
            ViewedVector(
                rank=at + 1,
                eigenvalue=values[at],
                explained=(values[at] / size) ** 2,
                residual=float(pairs.residuals[at]),
                subspace_size=int(pairs.cluster_size[at]),
                vector=drawn(vectors[position]),
                tokens=None if tokens is None else tokens[position],
            )
            for position, at in enumerate(chosen)
        ),
    )


def tokens_of(output: OutputView, pairs: EigenDecomposition) -> list[TokenEnds] | None:
    """Return the tokens whose embeddings lie along eigenvectors; None where there are none."""
    model = output.opened.model
    try:
        tokenizer = load_tokenizer(Path(model.source))
    except BilensError:  # none is there, or the library that reads it is not
        return None
    vocabulary = vocabulary_of(model)
    rows = None if vocabulary is None else vocabulary.read_by(output.view, divided=False)
    if rows is None or len(rows) < tokenizer.vocab_size:
        return None
    found = eigenvector_tokens(pairs, rows[: tokenizer.vocab_size], TOKENS)
    return [token_ends(one, tokenizer.token) for one in found]


def truncation(served: ServedFolder, key: Key) -> TruncationCurve:
    """Accuracy with fewer eigenvectors, as the last audit with data measured it."""
    for said in audits_of(served, key):
        if said.kind == "classes" and said.data_sha256:
            record = served.audit(said.number).record
            classes = record.classes
            if record.data is not None and classes is not None and classes.truncation:
                return TruncationCurve(
                    audit=said.number,
                    data=record.data.name,
                    inputs=record.data.num_images,
                    points=classes.truncation,
                )
    return TruncationCurve(audit=None, data="", inputs=0, points=())


def held_outputs(served: ServedFolder) -> Iterator[Arguments]:
    """Yield the outputs that a one-file export shows: of the first layers, and the first ones."""
    for key in served.last_walk().models:
        with suppress(BilensError):
            layers = served.opened(key).model.layers
            for name, view in islice(layers.items(), HELD_LAYERS):
                for index in range(min(view.sizes.d_out, HELD_OUTPUTS)):
                    yield {"key": key, "layer": name, "output": str(index)}


ENDPOINTS = (
    Endpoint("/models/{key}/layers", layer_table, held=every_model),
    Endpoint("/models/{key}/spectrum", spectrum, held=held_outputs, slow="view"),
    Endpoint("/models/{key}/null", null_band, held=held_outputs, slow="background"),
    Endpoint("/models/{key}/eigenvectors", eigenvectors, held=held_outputs, slow="view"),
    Endpoint("/models/{key}/truncation", truncation, held=every_model),
)
