"""Taking the outputs of the layers of a loaded model apart: the plan, the work, the folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import nn

from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition, select
from bilens.algebra.eigen.eigendecompose import eigendecompose_all, plan_eigendecomposition
from bilens.algebra.eigen.plan import EigenPlan
from bilens.algebra.random_rotations import null_memory, solved_width
from bilens.algebra.rotation_null import CHUNK_BYTES
from bilens.api.layer_reading import (
    InputMoments,
    LayerMap,
    LayerOutputs,
    OutputReading,
    Request,
    layer_map,
    read_outputs,
)
from bilens.api.provenance import describe_run, identity_of
from bilens.api.quadratic_fit import choose_layer
from bilens.api.subject import open_subject
from bilens.base import Progress, silent
from bilens.base.errors import (
    CheckpointError,
    InterruptedRunError,
    MemoryLimitError,
    OutputExistsError,
)
from bilens.base.files import names_in, read_json, write_files
from bilens.base.memory import MEMORY_LIMIT_VARIABLE, readable
from bilens.findings.spectrum_summaries import rank_null_intervals, summarise_spectra
from bilens.io.load import LoadedModel
from bilens.io.tensors import tensors_sha256
from bilens.records.base import to_json
from bilens.records.common import NullInterval
from bilens.records.decomposition import LayerDecomposition, LayerPlan
from bilens.train.run_folder import interruptible
from bilens.version import VERSION

WHOLE_WIDTH, WHOLE_OUTPUTS = 1024, 128  # the largest that "auto" reads whole
WHOLE_WORK = 3e11  # outputs · width³, with the rotations: a minute by the costs of the eigensolver
MAX_RECORD_BYTES = 1 << 30
SOLVED = ("eigenvalues", "eigenvectors", "residuals", "converged", "complete")
OF_FORM = ("rounding_bound", "norm", "linear", "constant")
PAIR_TENSORS = (*SOLVED, "cluster", "cluster_size", *OF_FORM)
KEPT = 4  # maps that were made ahead stay if they fit into this part of the memory allowed


@dataclass(frozen=True, eq=False)
class LayerJob:
    request: Request
    outputs: LayerOutputs
    read: OutputReading
    layer: LayerMap
    num_pairs: int | None  # of each form; None for the whole spectrum
    null_samples: int
    plan: EigenPlan
    peak_bytes: int

    @property
    def shared_fields(self) -> dict[str, Any]:
        """The fields on layer and reading that a plan and a result share."""
        return {
            "layer": self.outputs.layer,
            "basis": self.request.basis,
            "output_kind": self.outputs.kind,
            "reading": self.read.reading,
            "d_in": self.layer.f.sizes.d_in,
            "d_hidden": self.layer.f.sizes.d_hidden,
            "spectrum": "whole" if self.num_pairs is None else "top",
            "null_samples": self.null_samples,
            "approximation": self.layer.approximation,
        }

    def plan_record(self) -> LayerPlan:
        plan = self.plan
        return LayerPlan(
            **self.shared_fields,
            num_outputs=len(self.read.names),
            num_pairs=self.layer.f.sizes.d_in if self.num_pairs is None else self.num_pairs,
            method=plan.method,
            precision=plan.precision,
            batch=plan.batch,
            peak_bytes=self.peak_bytes,
            limit_bytes=plan.limit_bytes,
            reason=plan.reason,
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
    mapped: LayerMap | None = None,
    outputs: LayerOutputs | None = None,
) -> LayerJob:
    """Plan a request for one layer; `mapped` is its map, where that is at hand.

    `outputs` are those of that map, where it is of others than the layer's own.
    """
    name = choose_layer(model, layer)
    outputs = outputs or LayerOutputs.from_model(model, name)
    read = read_outputs(outputs, request)
    mapped = mapped or layer_map(model, name, request.basis, inputs)
    num, d_in = len(read.names), mapped.f.sizes.d_in
    before = None if mapped.embedding is None else mapped.embedding.shape[1]
    null = null_memory(mapped.behind.sizes, num, request.null_samples, before)
    d_before = d_in if before is None else before
    width = solved_width(mapped.behind.sizes, d_before)
    work = num * (d_in**3 + request.null_samples * width**3)
    small = d_in <= WHOLE_WIDTH and num <= WHOLE_OUTPUTS and work <= WHOLE_WORK
    whole = request.spectrum == "whole" or (request.spectrum == "auto" and small)
    num_pairs = None if whole else min(request.top, d_in)
    plan = plan_eigendecomposition(
        read.read_map(mapped.f),
        None,
        num_pairs,
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
    return LayerJob(request, outputs, read, mapped, num_pairs, samples, plan, peak)


@dataclass(frozen=True, eq=False)
class Decomposition:
    record: LayerDecomposition
    pairs: EigenDecomposition  # those that the record shows


def run_job(
    job: LayerJob, memory_limit: int | str | None = None, progress: Progress = silent
) -> Decomposition:
    """Decompose the layer of a job, and describe what came out."""
    request, f, read = job.request, job.layer.f, job.read.read_map(job.layer.f)
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
    if job.num_pairs is None:
        finite = eigs.eigenvalues.isfinite()
        ranks = effective_rank(torch.where(finite, eigs.distinct_from_zero, 0.0))
        eigs = select(eigs, request.top, request.which)
        intervals = null_intervals_of(job, finite.all(dim=1), progress)
    record = LayerDecomposition(
        **job.shared_fields,
        which=request.which,
        method=eigs.method,
        precision=request.precision,
        d_out=f.sizes.d_out,
        outputs=summarise_spectra(eigs, job.read.names, read.tensor.traces(), ranks, intervals),
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
        outputs_of(job.read.read_map(job.layer.behind), decomposed.nonzero()[:, 0].tolist()),
        job.layer.embedding,
        samples,
        job.request.seed,
        lambda done: progress(stage, done, samples),
        job.plan.limit_bytes,
    )
    left = iter(found)
    return [next(left) if has_rank else None for has_rank in decomposed.tolist()]


def decompose_layers(
    model: LoadedModel | nn.Module,
    request: Request,
    *,
    layers: Sequence[str] = (),
    folder: Path | None = None,
    overwrite: bool = False,
    inputs: InputMoments | None = None,
    memory_limit: int | str | None = None,
    command: str | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Return the record of each layer of a model, computing those that a folder does not hold."""
    model = open_subject(model, "a decomposition")
    names = [choose_layer(model, name) for name in layers] or list(model.layers)
    exactness = None if model.compare is None else model.exactness
    seen = None if inputs is None else [("mean", inputs.mean), ("covariance", inputs.covariance)]
    options = {"request": request.to_dict(), "moments": seen and tensors_sha256(seen)}
    identity = {
        "weights_sha256": model.identity,
        "request": request.to_dict(),
        "bilens": VERSION,
        "data_sha256": None if inputs is None else inputs.about["sha256"],
        "identity": to_json(identity_of(model, options=options)),
    }
    done: dict[str, dict[str, Any]] = {}
    for name in names:
        record = None if folder is None else read_done(folder, name, identity, overwrite)
        if record is not None:
            done[name] = record
    left = [name for name in names if name not in done]
    ahead: dict[str, LayerJob] = {}
    for name in left:  # what cannot be done for one layer is said before any work is done
        job = prepare(model, request, name, inputs, memory_limit)
        room = job.plan.limit_bytes // KEPT - sum(kept.layer.nbytes for kept in ahead.values())
        if len(left) == 1 or job.layer.nbytes <= room:
            ahead[name] = job
    about = {
        "data": None if inputs is None else inputs.about,
        "exactness": None if exactness is None else exactness.to_dict(),
        "reproduce": to_json(describe_run(command, request.seed)),
    }
    try:
        for name in left:
            if name not in ahead:
                ahead[name] = prepare(model, request, name, inputs, memory_limit)
            job = ahead.pop(name)
            result = run_job(job, memory_limit, progress)
            record = {**to_json(result.record), **identity, **about}
            with interruptible() as interrupted:  # a first Ctrl-C waits for both files
                if folder is not None:
                    save(folder, name, result.pairs, record)
                done[name] = record
            if interrupted.is_set():
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise InterruptedRunError(what_is_kept(names, list(done), folder)) from None
    return [done[name] for name in names]


def what_is_kept(layers: Sequence[str], done: Sequence[str], folder: Path | None) -> str:
    if folder is None:
        return "Interrupted: nothing is kept, since no folder for it was named with --out."
    missing = [layer for layer in layers if layer not in done]
    kept = "no layer was done"
    if done:
        kept = f"{', '.join(done)} {'is' if len(done) == 1 else 'are'} kept in {folder}"
    goes_on = f"goes on with {missing[0]}" if missing else "shows them"
    return f"Interrupted: {kept}; the same command {goes_on}."


def files_of(folder: Path, layer: str) -> tuple[Path, Path]:
    """Return the pairs, safetensors, and the record, JSON; a layer is done where both are there."""
    return folder / f"{layer}.safetensors", folder / f"{layer}.json"


def read_done(
    folder: Path, layer: str, identity: dict[str, Any], overwrite: bool
) -> dict[str, Any] | None:
    """Return the record of a layer that is done already; None if it has to be computed."""
    pairs_file, record_file = files_of(folder, layer)
    names_in(folder, "decompositions")
    if not record_file.exists():
        if pairs_file.exists() and not overwrite:
            raise OutputExistsError(
                f"{pairs_file} is there without {record_file.name}, so it is something else: "
                "choose another folder, or replace it with --overwrite."
            )
        return None
    try:
        found = read_json(record_file, MAX_RECORD_BYTES)
    except CheckpointError:
        found = {}
    same = all(found.get(key) == value for key, value in identity.items())
    if same and inner_record(pairs_file) == found:
        return found
    if not overwrite and not same:
        raise OutputExistsError(
            f"{record_file} holds a decomposition of another model, or with other options or "
            "data: choose another folder, or replace it with --overwrite."
        )
    return None


def inner_record(path: Path) -> dict[str, Any] | None:
    """Return the record inside a file of pairs; None if it is missing or is no whole file."""
    try:
        with safe_open(path, framework="pt") as file:
            record: dict[str, Any] = json.loads(file.metadata()["bilens"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return record


def save(folder: Path, layer: str, pairs: EigenDecomposition, record: dict[str, Any]) -> None:
    """Write the record as JSON, and then the pairs as safetensors with the record inside."""
    pairs_file, record_file = files_of(folder, layer)
    tensors = {name: getattr(pairs, name).contiguous() for name in PAIR_TENSORS}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    data = to_safetensors(tensors, {"format": "pt", "bilens": json.dumps(record)})
    write_files({record_file: text.encode(), pairs_file: data})
