"""Two models beside each other: every tensor, and the files beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bilens.base import Progress
from bilens.base.errors import CheckpointError
from bilens.base.files import file_sha256, read_json
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.loaded_model import LoadedModel
from bilens.records.layer_audit import FileChange, WholeDifference

COMPANION = re.compile(
    r"(?!adapter)(?:config|\w+_config|special_tokens_map|added_tokens|tokenizer.*|vocab.*)\.json"
    r"|(?:vocab|merges).*\.txt|.*\.(?:jinja|model|spm|tiktoken|py)"
)


def read_alike(model: LoadedModel, baseline: LoadedModel) -> tuple[LoadedModel, LoadedModel]:
    """Return two models whose layers are called the same: a Llama may be read whole, or not."""
    if [*model.layers] == [*baseline.layers]:
        return model, baseline
    first, second = (one if one.alone is None else one.alone() for one in (model, baseline))
    return first, second


def whole_difference(
    model: LoadedModel, baseline: LoadedModel, progress: Progress
) -> WholeDifference:
    """Return what changed in all tensors, and in the files beside those of a folder."""
    mine, theirs = companions(model), companions(baseline)
    files = None
    if mine is not None and theirs is not None:
        files = tuple(compare_file(name, mine, theirs) for name in sorted({*mine, *theirs}))
    gguf = any(one.provenance.get("format", "")[:4] == "GGUF" for one in (model, baseline))
    return compare_tensors(model.tensors, baseline.tensors, files, gguf=gguf, progress=progress)


def companions(model: LoadedModel) -> dict[str, Path] | None:
    """Return the files beside the weights by name, an adapter's before its base's; None without."""
    folders = [Path(one) for one in (model.below, model.source) if one and Path(one).is_dir()]
    files = (file for folder in folders for file in folder.iterdir() if file.is_file())
    return {one.name: one for one in files if COMPANION.fullmatch(one.name)} if folders else None


def compare_file(name: str, mine: Mapping[str, Path], theirs: Mapping[str, Path]) -> FileChange:
    if name not in theirs or name not in mine:
        return FileChange(name, "model" if name in mine else "baseline")
    if file_sha256(mine[name]) == file_sha256(theirs[name]):
        return FileChange(name, "same")
    keys: list[str] = []
    with suppress(CheckpointError):  # no JSON object, or a large one: that it changed is said
        one, other = read_json(mine[name]), read_json(theirs[name])
        keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    return FileChange(name, "changed", tuple(keys))
