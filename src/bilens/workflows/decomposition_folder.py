"""A folder with one decomposition a layer, which can be gone on with where it was left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from bilens.errors import CheckpointError, InterruptedRunError, OutputExistsError
from bilens.io.atomic import write_files
from bilens.io.config import read_json
from bilens.io.load import LoadedModel
from bilens.version import VERSION
from bilens.workflows.decompose import Decomposition, Progress, decompose, silent
from bilens.workflows.decomposition_request import Request
from bilens.workflows.layer_map import choose_layer
from bilens.workflows.output_selection import LayerOutputs, read_outputs


@dataclass(frozen=True)
class LayerFiles:
    """The two files of one layer."""

    pairs: Path  # safetensors
    record: Path  # JSON, written first: a layer is done where both are there

    @classmethod
    def of(cls, folder: Path, layer: str) -> LayerFiles:
        """Return the files of a layer in a folder."""
        return cls(folder / f"{layer}.safetensors", folder / f"{layer}.json")


MAX_RECORD_BYTES = 1 << 30


def decompose_layers(
    model: LoadedModel,
    request: Request,
    *,
    layers: Sequence[str] = (),
    folder: Path | None = None,
    overwrite: bool = False,
    memory_limit: int | str | None = None,
    progress: Progress = silent,
) -> Iterator[dict[str, Any]]:
    """Yield the record of each layer of a model, computing those that a folder does not hold.

    Args:
        model: what `bl.load` returned.
        request: what is wanted of each layer.
        layers: their names; none for all layers.
        folder: where each layer leaves `<layer>.safetensors` with the tensors of its
            `EigenDecomposition`, eigenvectors (outputs, top, in) and so on, and
            `<layer>.json` with its record. A layer whose record is there, of the
            same weights and the same request, is not computed again.
        overwrite: replace what other weights or another request left there.
        memory_limit: as in `eigendecompose_all`.
        progress: as in `run_job`.

    Raises:
        UsageError: If there is no such layer, output, basis or reading, or a reading of classes is
            asked of neurons.
        OutputExistsError: If the folder holds another decomposition of a layer.
        NotQuadraticError: If a layer is gated.
        MemoryLimitError: If no method fits into the memory allowed.
        InterruptedRunError: On Ctrl-C, if there is a folder; the layers done are in it.
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    names = [choose_layer(model, name) for name in layers] or list(model.layers)
    for name in names:  # what cannot be read of one layer is said before any work is done
        read_outputs(LayerOutputs.of(model, name), request)
    identity = {
        "weights_sha256": model.weights_sha256,
        "request": request.to_dict(),
        "bilens": VERSION,
    }
    done: dict[str, dict[str, Any] | None] = {}
    if folder is not None:  # every layer is looked at before any work is done
        done = {name: read_done(folder, name, identity, overwrite) for name in names}
    for name in names:
        earlier = done.get(name)
        if earlier is not None:
            yield earlier
            continue
        try:
            result = decompose(
                model,
                request,
                layer=name,
                memory_limit=memory_limit,
                progress=progress,
            )
            record = {**result.record.to_dict(), **identity}
            if folder is not None:
                save(LayerFiles.of(folder, name), result, record)
        except KeyboardInterrupt:
            if folder is None:
                raise
            raise InterruptedRunError(
                f"Interrupted in {name}; the layers done before are in {folder}: the same "
                "command goes on with the others."
            ) from None
        yield record


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
            f"{files.record} holds a decomposition of other weights, or with other options: "
            "choose another folder, or replace it with --overwrite."
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
    """Write the pairs as safetensors, with the record inside, and the record as JSON.

    Raises:
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    pairs = result.pairs
    tensors = {
        name: getattr(pairs, name)
        for name in (
            "eigenvalues",
            "eigenvectors",
            "residuals",
            "converged",
            "complete",
            "cluster",
            "cluster_size",
            "noise",
            "frobenius_squared",
            "linear",
            "constant",
        )
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    data = to_safetensors(tensors, {"format": "pt", "bilens": json.dumps(record)})
    write_files({files.record: text.encode(), files.pairs: data})
