"""Taking the outputs of a layer of a loaded model apart: the plan, and the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition, select
from bilens.algebra.eigen.eigendecompose import eigendecompose_all, plan_eigendecomposition
from bilens.algebra.eigen.plan import EigenPlan
from bilens.algebra.random_rotations import solved_width
from bilens.algebra.rotation_null import CHUNK_BYTES
from bilens.api.layer_reading import (
    InputMoments,
    LayerMap,
    LayerOutputs,
    OutputReading,
    Request,
    choose_layer,
    layer_map,
    read_outputs,
)
from bilens.base import Progress, silent
from bilens.base.errors import MemoryLimitError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE, readable
from bilens.findings.decomposition import summarise_spectra
from bilens.findings.null_intervals import null_estimate, rank_null_intervals
from bilens.io.load import LoadedModel
from bilens.records.common import NullInterval
from bilens.records.decomposition import LayerDecomposition, LayerPlan

WHOLE_WIDTH, WHOLE_OUTPUTS = 1024, 128  # the largest that "auto" reads whole
WHOLE_WORK = 3e11  # outputs · width³, with the rotations: a minute by the costs of the eigensolver


@dataclass(frozen=True, eq=False)
class LayerJob:
    request: Request
    outputs: LayerOutputs
    read: OutputReading
    layer: LayerMap
    whole: bool
    null_samples: int
    plan: EigenPlan
    peak_bytes: int

    @property
    def num_pairs(self) -> int | None:
        """How many pairs of each form are computed; None for all of them."""
        return None if self.whole else min(self.request.top, self.layer.f.sizes.d_in)

    @property
    def map_bytes(self) -> int:
        f = self.layer.f
        parts = (f.tensor.down, f.tensor.left, f.tensor.right, f.linear)
        return sum(part.nbytes for part in parts if part is not None)

    def plan_record(self) -> LayerPlan:
        """Return the plan: sizes, method, memory in bytes, and why."""
        sizes, plan = self.layer.f.sizes, self.plan
        return LayerPlan(
            layer=self.outputs.layer,
            basis=self.request.basis,
            output_kind=self.outputs.kind,
            reading=self.read.reading,
            d_in=sizes.d_in,
            d_hidden=sizes.d_hidden,
            num_outputs=len(self.read.names),
            num_pairs=sizes.d_in if self.num_pairs is None else self.num_pairs,
            spectrum="whole" if self.whole else "top",
            null_samples=self.null_samples,
            method=plan.method,
            precision=plan.precision,
            batch=plan.batch,
            peak_bytes=self.peak_bytes,
            limit_bytes=plan.limit_bytes,
            reason=plan.reason,
            approximation=self.layer.approximation,
        )


def plan_layers(
    model: LoadedModel,
    request: Request,
    *,
    layers: Sequence[str] = (),
    inputs: InputMoments | None = None,
    memory_limit: int | str | None = None,
) -> list[LayerPlan]:
    return [
        prepare(model, request, name, inputs, memory_limit).plan_record()
        for name in (layers or model.layers)
    ]


def prepare(
    model: LoadedModel,
    request: Request,
    layer: str | None = None,
    inputs: InputMoments | None = None,
    memory_limit: int | str | None = None,
) -> LayerJob:
    """Return what a request means for one layer."""
    name = choose_layer(model, layer)
    outputs = LayerOutputs.of(model, name)
    read = read_outputs(outputs, request)
    mapped = layer_map(model, name, request.basis, inputs)
    num, d_in = len(read.names), mapped.f.sizes.d_in
    null = null_estimate(mapped.behind, mapped.embedding, num, request.null_samples)
    d_before = d_in if mapped.embedding is None else mapped.embedding.shape[1]
    width = solved_width(mapped.behind.sizes, d_before)
    work = num * (d_in**3 + request.null_samples * width**3)
    small = d_in <= WHOLE_WIDTH and num <= WHOLE_OUTPUTS and work <= WHOLE_WORK
    whole = request.spectrum == "whole" or (request.spectrum == "auto" and small)
    plan = plan_eigendecomposition(
        read.of(mapped.f),
        None,
        None if whole else min(request.top, d_in),
        request.method,
        precision=request.precision,
        memory_limit=memory_limit,
    )
    samples = request.null_samples if whole else 0
    peak = plan.peak_bytes
    if samples:
        least = null.fixed + null.each
        if least > plan.limit_bytes:
            raise MemoryLimitError(
                f"the null intervals of {num} effective ranks needs at least {readable(least)} "
                f"beside the map, the limit is {readable(plan.limit_bytes)}: allow more with "
                f"memory_limit or {MEMORY_LIMIT_VARIABLE}, or leave it out with --null-samples 0."
            )
        peak = max(peak, min(null.peak(num, CHUNK_BYTES), plan.limit_bytes))
    return LayerJob(request, outputs, read, mapped, whole, samples, plan, peak)


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
    job = prepare(model, request or Request(), layer, inputs, memory_limit)
    return run_job(job, memory_limit, progress)


def run_job(
    job: LayerJob, memory_limit: int | str | None = None, progress: Progress = silent
) -> Decomposition:
    """Do what was prepared for a layer."""
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
    ranks, intervals = None, None
    if job.whole:
        finite = eigs.eigenvalues.isfinite()
        ranks = effective_rank(torch.where(finite, eigs.distinct_from_zero, 0.0))
        eigs = select(eigs, request.top, request.which)
        intervals = null_intervals_of(job, finite.all(dim=1), progress)
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
        outputs=summarise_spectra(eigs, job.read.names, read.tensor.traces(), ranks, intervals),
        approximation=job.layer.approximation,
        about_input=job.layer.about_input,
    )
    return Decomposition(record, eigs)


def null_intervals_of(
    job: LayerJob, decomposed: torch.Tensor, progress: Progress
) -> Sequence[NullInterval | None] | None:
    """Return the null interval of each effective rank; None where an output has no rank."""
    if job.null_samples == 0 or not bool(decomposed.any()):
        return None
    stage, samples = f"{job.outputs.layer} null distribution", job.null_samples
    found = rank_null_intervals(
        outputs_of(job.read.of(job.layer.behind), decomposed.nonzero()[:, 0].tolist()),
        job.layer.embedding,
        samples,
        job.request.seed,
        lambda done: progress(stage, done, samples),
        job.plan.limit_bytes,
    )
    left = iter(found)
    return [next(left) if has_rank else None for has_rank in decomposed.tolist()]
