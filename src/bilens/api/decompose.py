"""Taking the outputs of a layer of a loaded model apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition, select
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.api.decomposition_request import Request
from bilens.api.input_moments import InputMoments
from bilens.api.layer_job import LayerJob, prepare
from bilens.findings.decomposition import summarise_spectra
from bilens.findings.rank_chance import rank_chances
from bilens.io.load import LoadedModel
from bilens.records.decomposition import LayerDecomposition
from bilens.records.verdict import NullInterval

Progress = Callable[[str, int, int], None]


def silent(_stage: str, _done: int, _total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What `decompose` found: the record for people, the pairs that it shows for programs."""

    record: LayerDecomposition
    pairs: EigenDecomposition


def decompose(
    model: LoadedModel,
    request: Request | None = None,
    *,
    layer: str | None = None,
    inputs: InputMoments | None = None,
    memory_limit: int | str | None = None,
    progress: Progress = silent,
) -> Decomposition:
    """Take the outputs of one layer apart.

    Args:
        model: what `bl.load` returned.
        request: what is wanted; None for the five leading pairs of every output.
        layer: its name; None where the model has one layer.
        inputs: for the basis "whitened".
        memory_limit: as in `eigendecompose_all`.
        progress: as in `run_job`.

    Raises:
        UsageError: If there is no such layer, output, basis or reading, or a reading of classes is
            asked of neurons.
        NotQuadraticError: If the layer is not quadratic and the closest map explains too little.
        MemoryLimitError: If no method, or the level of chance, fits into the memory allowed.
    """
    request = Request() if request is None else request
    job = prepare(model, request, layer, inputs, memory_limit)
    return run_job(job, memory_limit, progress)


def run_job(
    job: LayerJob, memory_limit: int | str | None = None, progress: Progress = silent
) -> Decomposition:
    """Do what was prepared for a layer.

    Args:
        job: what `prepare` returned.
        memory_limit: as it was prepared with.
        progress: called with (layer, outputs done, outputs), then, where there is a level of
            chance, with (layer and "chance", rotations done, rotations).
    """
    request, f, read = job.request, job.layer.f, job.read.of(job.layer.f)
    eigs = eigendecompose_all(
        read,
        None,
        job.num_pairs,
        request.which,
        request.method,
        precision=request.precision,
        verify=request.verify,
        memory_limit=memory_limit,
        seed=request.seed,
        progress=partial(progress, job.outputs.layer),
    )
    ranks, chances = None, None
    if job.whole:
        finite = eigs.eigenvalues.isfinite()
        ranks = effective_rank(torch.where(finite, eigs.distinct_from_zero, 0.0))
        eigs = select(eigs, request.top, request.which)
        chances = levels_of_chance(job, finite.all(dim=1), progress)
    record = LayerDecomposition(
        layer=job.outputs.layer,
        basis=request.basis,
        output_kind=job.outputs.kind,
        reading=job.read.reading,
        which=request.which,
        spectrum="whole" if job.whole else "top",
        method=eigs.method,
        precision=request.precision,
        d_in=f.sizes.d_in,
        d_hidden=f.sizes.d_hidden,
        d_out=f.sizes.d_out,
        null_samples=job.null_samples,
        outputs=summarise_spectra(eigs, job.read.names, read.tensor.traces(), ranks, chances),
        approximation=job.layer.approximation,
        about_input=job.layer.about_input,
    )
    return Decomposition(record, eigs)


def levels_of_chance(
    job: LayerJob, decomposed: torch.Tensor, progress: Progress
) -> Sequence[NullInterval | None] | None:
    """Return the level of chance of each effective rank; None where an output has no rank.

    Args:
        job: what was prepared.
        decomposed: (num,), which outputs have a spectrum.
        progress: as in `run_job`.
    """
    if job.null_samples == 0 or not bool(decomposed.any()):
        return None
    stage, samples = f"{job.outputs.layer} chance", job.null_samples
    found = iter(
        rank_chances(
            outputs_of(job.read.of(job.layer.behind), decomposed.nonzero()[:, 0].tolist()),
            job.layer.embedding,
            samples,
            job.request.seed,
            lambda done: progress(stage, done, samples),
            job.plan.limit_bytes,
        )
    )
    return [next(found) if has_rank else None for has_rank in decomposed.tolist()]
