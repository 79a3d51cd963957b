"""A folder with one decomposition a layer, which can be gone on with where it was left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from bilens.api.decompose import Decomposition, LayerJob, prepare, run_job
from bilens.api.layer_reading import InputMoments, Request, choose_layer
from bilens.api.provenance import describe_run
from bilens.base import Progress, silent
from bilens.base.errors import CheckpointError, InterruptedRunError, OutputExistsError
from bilens.base.files import read_json, write_files
from bilens.io.load import LoadedModel
from bilens.records.base import to_json
from bilens.train.run_folder import interruptible
from bilens.version import VERSION


@dataclass(frozen=True)
class LayerFiles:
    pairs: Path  # safetensors
    record: Path  # JSON, written first: a layer is done where both are there

    @classmethod
    def of(cls, folder: Path, layer: str) -> LayerFiles:
        return cls(folder / f"{layer}.safetensors", folder / f"{layer}.json")


MAX_RECORD_BYTES = 1 << 30
PAIR_TENSORS = (
    *("eigenvalues", "eigenvectors", "residuals", "converged", "complete"),
    *("cluster", "cluster_size", "rounding_bound", "norm", "linear", "constant"),
)
KEPT = 4  # maps that were made ahead stay if they fit into this part of the memory allowed


def decompose_layers(
    model: LoadedModel,
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
    names = [choose_layer(model, name) for name in layers] or list(model.layers)
    identity = {
        "weights_sha256": model.weights_sha256,
        "request": request.to_dict(),
        "bilens": VERSION,
        "data_sha256": None if inputs is None else inputs.about["sha256"],
    }
    found = {} if folder is None else {n: read_done(folder, n, identity, overwrite) for n in names}
    done = {name: record for name, record in found.items() if record is not None}
    left = [name for name in names if name not in done]
    ahead: dict[str, LayerJob] = {}
    for name in left:  # what cannot be done for one layer is said before any work is done
        job = prepare(model, request, name, inputs, memory_limit)
        room = job.plan.limit_bytes // KEPT - sum(kept.map_bytes for kept in ahead.values())
        if len(left) == 1 or job.map_bytes <= room:
            ahead[name] = job
    about = {
        "data": None if inputs is None else inputs.about,
        "exactness": None if model.compare is None else model.exactness.to_dict(),
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
                    save(LayerFiles.of(folder, name), result, record)
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


def read_done(
    folder: Path, layer: str, identity: dict[str, Any], overwrite: bool
) -> dict[str, Any] | None:
    """Return the record of a layer that is done already; None if it has to be computed."""
    files = LayerFiles.of(folder, layer)
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file; expected a folder for the decompositions.")
    if not files.record.exists():
        if files.pairs.exists() and not overwrite:
            raise OutputExistsError(
                f"{files.pairs} is there without {files.record.name}, so it is something else: "
                "choose another folder, or replace it with --overwrite."
            )
        return None
    try:
        found = read_json(files.record, MAX_RECORD_BYTES)
    except CheckpointError:
        found = {}
    same = all(found.get(key) == value for key, value in identity.items())
    if same and inner_record(files.pairs) == found:
        return found
    if not overwrite and not same:
        raise OutputExistsError(
            f"{files.record} holds a decomposition of other weights, or with other options or "
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


def save(files: LayerFiles, result: Decomposition, record: dict[str, Any]) -> None:
    """Write the pairs as safetensors, with the record inside, and the record as JSON."""
    tensors = {name: getattr(result.pairs, name).contiguous() for name in PAIR_TENSORS}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    data = to_safetensors(tensors, {"format": "pt", "bilens": json.dumps(record)})
    write_files({files.record: text.encode(), files.pairs: data})
