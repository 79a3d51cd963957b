"""What lies at a path: one model, several, none, or the name of one in the cache of the hub."""

import shlex
import subprocess
from pathlib import Path

import pytest
import torch

import bilens as bl
from bilens.base.errors import CheckpointError, NoLayersError, Retry, UsageError
from bilens.io.file_kinds import MARKS, find_model, kind_of
from io_mapped import pair, write
from models import make


def hub(home: Path, name: str) -> Path:
    """A snapshot as huggingface_hub lays it out."""
    commit = "a" * 40
    folder = home / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder / "snapshots" / commit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, and a working folder, that hold nothing."""
    constants = pytest.importorskip("huggingface_hub.constants")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["gpt2", "some-org/small.model"])
def test_a_name_of_the_hub_is_read_from_its_cache(cache: Path, name: str) -> None:
    said = rf"no such file or folder; as the name of a model on the Hugging.*`hf download {name}`"
    with pytest.raises(CheckpointError, match=said):
        bl.load(name)
    bl.save(make(), hub(cache, name))
    model = bl.load(name)
    assert model.layers
    assert str(cache) in model.source


@pytest.mark.parametrize("name", ["runs/a/b", "mlp.pt", "../gpt2", "/gpt2", "a\0b", "-x"])
def test_what_is_no_name_of_the_hub_is_only_missing(cache: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder") as caught:
        find_model(Path(name))
    assert "hf download" not in str(caught.value)
    assert not cache.exists()


def test_a_folder_of_several_models_names_each(tmp_path: Path) -> None:
    bl.save(make(), tmp_path / "one")
    write(tmp_path, pair(), "two.safetensors")
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").write_text("three")
    torch.save(pair(), tmp_path / "three.pt")
    with pytest.raises(CheckpointError, match="holds 3 models") as caught:
        bl.load(tmp_path)
    calls = [f"bl.load('{tmp_path / name}')" for name in ("one", "three.pt", "two.safetensors")]
    assert str(caught.value).endswith(f"Call {', or '.join(calls)}.")
    assert bl.load(tmp_path / "one").layers


@pytest.mark.parametrize("mark", MARKS)
def test_a_folder_that_is_a_model_is_not_looked_through(mark: str, tmp_path: Path) -> None:
    write(tmp_path, pair(), "extra.safetensors")
    write(tmp_path, pair(), "more.safetensors")
    (tmp_path / mark).write_text("{}")
    assert find_model(tmp_path) == tmp_path


def test_a_folder_with_one_model_is_that_model(tmp_path: Path) -> None:
    torch.save(pair(), tmp_path / "m.pth")
    model = bl.load(tmp_path, activation="relu", allow_pickle=True)
    assert model.source == str(tmp_path / "m.pth")
    (tmp_path / "outer").mkdir()
    (tmp_path / "m.pth").rename(tmp_path / "outer" / "m.pth")
    with pytest.raises(CheckpointError, match="holds no model"):
        bl.load(tmp_path)


def test_content_counts_where_a_name_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.dat"
    path.write_bytes(b"no weights at all")
    assert kind_of(path) == "other"
    with pytest.raises(CheckpointError, match="not a supported model file"):
        bl.load(path)
    torch.save(pair(), tmp_path / "weights.dat")
    with pytest.raises((CheckpointError, UsageError), match="looks like an MLP"):
        bl.load(tmp_path / "weights.dat")


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m.pkl", "m.gguf", "m", "m.safetensors", "m.h5"])
def test_a_file_under_another_ending_is_told_with_the_command(tmp_path: Path, name: str) -> None:
    path, is_safetensors = tmp_path / "a b" / name, name not in ("m.safetensors", "m.h5")
    path.parent.mkdir()
    if is_safetensors:
        write(path.parent, pair(), name)
    else:
        torch.save(pair(), path)
    what = "a safetensors file" if is_safetensors else "a file of PyTorch"
    for given in (path, path.parent) if path.suffix else (path,):
        with pytest.raises(CheckpointError, match=f"is {what} under another ending") as caught:
            bl.load(given, activation="relu", allow_pickle=True)
    copy = shlex.split(str(caught.value).split("`")[1])
    subprocess.run(copy, check=True)
    assert bl.load(copy[-1], activation="relu", allow_pickle=True).layers


@pytest.mark.parametrize("magic", [b"\x93NUMPY", b"\x1f\x8b", b"\xba\x16\x4f\x2f"])
def test_no_listing_is_promised_of_bytes_that_nobody_opened(magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(magic + b"\xeb\xcf\x21" * 40)
    with pytest.raises(NoLayersError, match="`bilens inspect` says what is known of it, or why"):
        find_model(path)


def test_each_of_several_calls_stands_by_itself() -> None:
    text = str(CheckpointError("No.", [Retry("a"), Retry("b", {"residual": True})]))
    assert text == "No. Call bl.load('a'), or bl.load('b', residual=True)."
