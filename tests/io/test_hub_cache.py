"""The cache of the Hugging Face hub: files of a revision are links to blobs, and its own files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import bilens as bl
from bilens.base.errors import CheckpointError
from bilens.records.tensor_changes import WholeDifference
from io_mapped import chain, pair

CONFIG = b'{"activation_function": "relu"}'
DENSE = {"linear.weight": torch.eye(3)}
FILES = {
    "model.safetensors": save(pair()),
    "config.json": CONFIG,
    "vocab.txt": b"a\nb\n",
    "README.md": b"A model.",
    "2_Dense/model.safetensors": save(DENSE),
}


def revision(home: Path, files: Mapping[str, bytes], name: str = "1a2b") -> Path:
    """A revision of the model a/b in a cache, as the hub's own client lays it out."""
    repository = home / "models--a--b"
    for file, content in files.items():
        blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = repository / "snapshots" / name / file
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "/".join([".."] * (len(Path(file).parts) + 1))
        link.symlink_to(f"{up}/blobs/{blob.name}")
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs/main").write_text(name)
    return repository / "snapshots" / name


def test_each_file_of_a_revision_is_listed_once_with_its_bytes(tmp_path: Path) -> None:
    place = revision(tmp_path, FILES)
    found = bl.inventory(place)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert {one.name: one.sha256 for one in found.files} == hashes
    assert len(found.files) == len(FILES)
    assert {one.state for one in found.files} == {"read", "listed", "beside"}
    repository = bl.inventory(tmp_path / "models--a--b")
    kept = ("format", "parameters", "tensors", "sha256", "tied", "groups")
    assert [getattr(repository, key) for key in kept] == [getattr(found, key) for key in kept]
    names = [one.name for one in repository.files]
    assert sorted(names) == ["refs/main", *sorted(f"snapshots/1a2b/{name}" for name in FILES)]


@pytest.mark.parametrize("up", ["", "..", "../..", "../../.."])
def test_a_model_of_the_cache_is_read_from_any_folder_of_it(up: str, tmp_path: Path) -> None:
    place = (revision(tmp_path, FILES) / up).resolve()
    assert bl.load(place, activation="relu").layers["layer"].sizes == (3, 6, 4)
    assert bl.inventory(place).parameters == sum(one.numel() for one in pair().values())


def test_a_model_in_a_folder_of_a_revision_is_read(tmp_path: Path) -> None:
    place = revision(tmp_path, {"net/model.safetensors": save(pair()), "net/config.json": CONFIG})
    assert bl.load(place / "net", activation="relu").layers
    outside = tmp_path / "elsewhere.safetensors"
    outside.write_bytes(save(pair()))
    (place / "net/model.safetensors").unlink()
    (place / "net/model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"is a link to .*, outside of its folder"):
        bl.load(place / "net", activation="relu")


def test_several_revisions_are_several_models(tmp_path: Path) -> None:
    other = {**FILES, "model.safetensors": save(chain(4, 6, 3))}
    revision(tmp_path, FILES)
    revision(tmp_path, other, "3c4d")
    found = bl.inventory(tmp_path)
    assert (found.tensors, len(found.files)) == (0, 2 * len(FILES) + 1)
    with pytest.raises(CheckpointError, match=r"holds 2 models.*1a2b.*3c4d"):
        bl.load(tmp_path, activation="relu")


def difference(model: Path, baseline: Path) -> WholeDifference:
    both = [bl.load(place, activation="relu") for place in (model, baseline)]
    found = bl.audit(both[0], baseline=both[1]).record.difference
    assert found is not None
    assert found.whole is not None
    return found.whole


def test_revisions_are_compared_file_by_file(tmp_path: Path) -> None:
    place, copy = revision(tmp_path, FILES), tmp_path / "copy"
    for name, content in FILES.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    for one, other in ((place, copy), (copy, place)):
        assert difference(one, other).identical
    dense = {name: 2 * tensor for name, tensor in DENSE.items()}
    changed = {**FILES, "vocab.txt": b"a\nc\n", "2_Dense/model.safetensors": save(dense)}
    found = difference(revision(tmp_path, changed, "3c4d"), place)
    assert not found.changed
    states = {one.name: one.state for one in found.files or ()}
    other = {"vocab.txt": "changed", "2_Dense/model.safetensors": "changed"}
    assert states == {"config.json": "same", **other}
    assert found.other_weights == ("2_Dense/model.safetensors",)
