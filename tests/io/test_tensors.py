"""Reading tensors without running code, and files that lie about themselves."""

import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from bilens.base.errors import (
    BilensError,
    CheckpointError,
    MemoryLimitError,
    NonFiniteError,
    UsageError,
)
from bilens.io import byte_ranges as module
from bilens.io.byte_ranges import Unchanged
from bilens.io.load import load
from bilens.io.tensor_names import LAYER
from bilens.io.tensors import check_kinds, read_safetensors
from checkpoints import OFFICIAL_SHAPES, Header, entry, official, official_state, safetensors
from raising import raising


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TENSORS", 2)
    path = tmp_path / "m.safetensors"
    path.write_bytes(official())
    with pytest.raises(CheckpointError, match="holds 3 tensors; at most 2 are read"):
        read_safetensors(path)


def test_a_file_beyond_the_memory_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(official())
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", str(path.stat().st_size - 1))
    with pytest.raises(MemoryLimitError, match=r"m.safetensors needs .*: load a smaller file, or"):
        read_safetensors(path)


def test_metadata_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(official(lambda h: h.update(__metadata__={"residual": "手"})))
    tensors, metadata = read_safetensors(path)
    assert sorted(tensors) == sorted(OFFICIAL_SHAPES)
    assert metadata == {"residual": "手"}


def test_a_missing_file_and_a_folder_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; expected the weights of a model"):
        read_safetensors(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read_safetensors(tmp_path)


def test_a_file_that_cannot_be_opened_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").write_bytes(official())

    denied = raising(PermissionError(13, "Permission denied"))
    monkeypatch.setattr(Unchanged, "fill", denied)
    with pytest.raises(CheckpointError, match="Permission denied"):
        read_safetensors(tmp_path / "m")


class Payload:
    """Runs code when it is unpickled by a careless reader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("container", ["torch zip", "torch legacy", "plain pickle"])
def test_a_pickle_with_code_runs_nothing(tmp_path: Path, container: str) -> None:
    path, mark = tmp_path / "m.pt", tmp_path / "ran"
    content = {**official_state(), "x": Payload(mark)}
    if container == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "torch zip")
    for read in (lambda: load(path, allow_pickle=True), lambda: load(path, residual=False)):
        with suppress(CheckpointError, UsageError):
            read()
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_mutated_pickles_never_end_in_another_exception(tmp_path: Path) -> None:
    """One byte changed at random: 200 files, seeded."""
    generator, path = random.Random(0), tmp_path / "m.pt"
    torch.save(official_state(), path, _use_new_zipfile_serialization=False)
    good, messages = path.read_bytes(), []
    for _ in range(200):
        content = bytearray(good)
        content[generator.randrange(len(good))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            load(path, residual=False, allow_pickle=True)
        except BilensError as error:
            messages.append(str(error))
    assert len(messages) > 50  # the others changed an entry of a tensor
    assert all(message.startswith(f"{path}") for message in messages)


@pytest.mark.parametrize("content", [b"\x80", b"\x80\x02.", b"PK\x03\x04", b"not a pickle", b"0"])
def test_bytes_that_are_no_pickle_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as a file of PyTorch"):
        load(path, allow_pickle=True)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "m.pt").touch()
    with pytest.raises(CheckpointError, match=r"m.pt: is empty \(0 bytes\): download or save"):
        load(tmp_path / "m.pt", allow_pickle=True)


# Tensors that a file of torch.save may hold, and that are no weights of ours.
KINDS: dict[str, tuple[torch.Tensor, type[BilensError], str]] = {
    "sparse": (torch.eye(2).to_sparse(), CheckpointError, "layout torch.sparse_coo"),
    "meta": (torch.zeros(2, device="meta"), CheckpointError, "device meta"),
    "complex": (torch.zeros(2, dtype=torch.complex64), CheckpointError, "dtype torch.complex64"),
    "integers": (torch.zeros(2, dtype=torch.int64), CheckpointError, "dtype torch.int64"),
    "float8": (torch.zeros(2).to(torch.float8_e5m2), CheckpointError, "dtype torch.float8_e5m2"),
    # One number in the file that claims to be 10^18 of them.
    "a bomb": (torch.zeros(1).expand(10**9, 10**9), MemoryLimitError, "needs 3725290298.46 GiB"),
}


@pytest.mark.parametrize("name", KINDS)
def test_tensors_that_are_no_weights_are_refused_before_they_are_used(
    tmp_path: Path, name: str
) -> None:
    tensor, error, message = KINDS[name]
    with pytest.raises(error, match=message):
        check_kinds(Path("m.pt"), {"a": torch.zeros(2), "b": tensor})
    torch.save({**official_state(), "embed.weight": tensor}, tmp_path / "m.pt")
    with pytest.raises(
        CheckpointError, match=r"dtype|are not those of a model|not of dense numbers"
    ):
        load(tmp_path / "m.pt", residual=False, allow_pickle=True)


def test_a_header_of_a_million_tensors_is_refused_before_they_are_listed(tmp_path: Path) -> None:
    one = '"%06d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(one % index for index in range(1_000_000)) + "}").encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.msgspec.json, "decode", lambda *_, **__: pytest.fail("listed"))
        with pytest.raises(CheckpointError, match="holds 1000000 tensors; at most 100000 are read"):
            read_safetensors(path)


def test_a_file_changed_under_a_kept_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"abc")
    before, times = Unchanged.now(path), path.stat()
    before.check()
    path.write_bytes(b"abd")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    with pytest.raises(CheckpointError, match="was changed or moved after the model was loaded"):
        before.check()


def set_entry(name: str, **fields: object) -> Callable[[Header], object]:
    return lambda header: header[name].update(fields)


NAN = struct.pack("<f", float("nan"))
INF = struct.pack("<f", float("inf"))
DUPLICATE = f'{{"a": {json.dumps(entry([1], 0, 4))}, "a": {json.dumps(entry([1], 4, 8))}}}'
UNREADABLE: dict[str, bytes] = {
    "seven bytes": b"\x00" * 7,
    "truncated header": official()[:40],
    "trailing bytes": official() + b"PK\x03\x04",
    "overlap": official(set_entry("embed.weight", data_offsets=[16, 40])),
    "alias": safetensors(
        {"blocks.0.weight": entry([4, 2], 0, 32), "embed.weight": entry([4, 2], 0, 32)}, bytes(32)
    ),
    "hole": official(set_entry("head.weight", data_offsets=[60, 76]), bytes(76)),
    "offsets backwards": official(set_entry("head.weight", data_offsets=[72, 56])),
    "shape and bytes differ": official(set_entry("embed.weight", shape=[2, 4])),
    "product of the shape overflows": official(set_entry("embed.weight", shape=[2**33, 2**33])),
    "negative shape": official(set_entry("embed.weight", shape=[-2, -3])),
    "header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "header of 101 MB": struct.pack("<Q", 101_000_000),
    "header is no JSON": safetensors(b"{'a': 1}", b""),
    "header is a list": safetensors([1], b""),
    "header is no UTF-8": safetensors(b'{"\xff": 1}', b""),
    "header is deeply nested": safetensors(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b""),
    "duplicate key": safetensors(DUPLICATE.encode(), bytes(8)),
}
HOSTILE: dict[str, tuple[bytes, type[BilensError], str]] = {
    name: (content, CheckpointError, "is not a readable safetensors file")
    for name, content in UNREADABLE.items()
} | {
    "empty file": (b"", CheckpointError, r"is empty \(0 bytes\)"),
    "a text": (b"these are not weights\n" * 9, CheckpointError, "the file is what its name says"),
    "truncated data": (official()[:-1], CheckpointError, "check that the download is complete"),
    "unknown dtype": (
        official(set_entry("embed.weight", dtype="F7")),
        CheckpointError,
        r"'embed.weight' is of F7; expected one of F64, F32, F16, BF16: convert",
    ),
    "integers": (
        official(set_entry("embed.weight", dtype="I32")),
        CheckpointError,
        r"'embed.weight' is of I32; expected one of F64, F32, F16, BF16: convert",
    ),
    "NaN": (official(data=NAN + bytes(68)), NonFiniteError, r"'blocks.0.weight' holds 1 non-fin"),
    "infinity": (official(data=bytes(68) + INF), NonFiniteError, r"'head.weight' .*\(1, 1\)"),
    "a name that is a path": (
        official(lambda h: h.update({"../../x": h.pop("embed.weight")})),
        CheckpointError,
        r"its tensors \(../../x, blocks.0.weight, head.weight\) are not those",
    ),
    "a tensor too many": (
        official(lambda h: h.update({"extra": entry([0], 72, 72)})),
        CheckpointError,
        "unexpected 'extra'",
    ),
    "a tensor without entries": (
        safetensors(
            {
                "embed.weight": entry([2, 0], 0, 0),
                "blocks.0.weight": entry([4, 2], 0, 32),
                "head.weight": entry([2, 2], 32, 48),
            },
            bytes(48),
        ),
        CheckpointError,
        "expected two axes with entries",
    ),
    "no tensors": (safetensors({}, b""), UsageError, "which add no inputs: leave the option out"),
}


def test_the_file_that_the_hostile_ones_start_from_is_good(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(official())
    assert load(path, residual=False).module.head.weight.shape == (2, 2)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_in_an_error_of_ours(tmp_path: Path, name: str) -> None:
    content, error, message = HOSTILE[name]
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        load(path, residual=False)
    assert str(caught.value).startswith(f"{path}: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]  # nothing written


def test_mutated_headers_never_end_in_another_exception(tmp_path: Path) -> None:
    """One or two bytes of the first 200 changed at random: 400 files, seeded."""
    generator, path, good = random.Random(0), tmp_path / "m.safetensors", official()
    messages = []
    for _ in range(400):
        content = bytearray(good)
        for _ in range(generator.randint(1, 2)):
            content[generator.randrange(200)] = generator.randrange(256)
        path.write_bytes(content)
        try:
            load(path, residual=False)
        except BilensError as error:
            messages.append(str(error))
    assert len(messages) > 300  # the others changed a name of the metadata, or a space
    assert all(message.startswith(f"{path}: ") for message in messages)


def test_the_number_of_a_block_stands_behind_its_word() -> None:
    numbers = {
        "0.auto_model.encoder.layer.3.attention.self.query.weight": 3,
        "model.layers.7.mlp.experts.5.w1.weight": 7,
        "decoder.block.4.layer.2.DenseReluDense.wi": 4,
        "blk.4.ffn_up.weight": 4,
        "encoder.block_2.w": 2,
        "h.11.ln": 11,
        "features.0.weight": 0,
        "2.weight": 2,
        **dict.fromkeys(("val_12", "onnx::MatMul_282", "conv2d_251.w_0", "w.weight"), None),
    }
    found = {name: LAYER.search(name) for name in numbers}
    assert {name: one and int(one[1]) for name, one in found.items()} == numbers
