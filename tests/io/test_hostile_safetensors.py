"""Safetensors files that lie about themselves: each ends in an error of ours, and in no other."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from bilens.base.errors import BilensError, CheckpointError, NonFiniteError
from bilens.io.load import load
from checkpoints import Header, entry, official, safetensors


def set_entry(name: str, **fields: object) -> Callable[[Header], object]:
    return lambda header: header[name].update(fields)


NAN = struct.pack("<f", float("nan"))
INF = struct.pack("<f", float("inf"))
DUPLICATE = f'{{"a": {json.dumps(entry([1], 0, 4))}, "a": {json.dumps(entry([1], 4, 8))}}}'
HOSTILE: dict[str, tuple[bytes, type[BilensError], str]] = {
    "empty file": (b"", CheckpointError, r"is empty \(0 bytes\)"),
    "seven bytes": (b"\x00" * 7, CheckpointError, "is not a readable safetensors file"),
    "a text": (b"these are not weights\n" * 9, CheckpointError, "the file is what its name says"),
    "truncated data": (official()[:-1], CheckpointError, "check that the download is complete"),
    "truncated header": (official()[:40], CheckpointError, "is not a readable"),
    "trailing bytes": (official() + b"PK\x03\x04", CheckpointError, "is not a readable"),
    "overlap": (
        official(set_entry("embed.weight", data_offsets=[16, 40])),
        CheckpointError,
        "is not a readable",
    ),
    "alias": (
        safetensors(
            {"blocks.0.weight": entry([4, 2], 0, 32), "embed.weight": entry([4, 2], 0, 32)},
            bytes(32),
        ),
        CheckpointError,
        "is not a readable",
    ),
    "hole": (
        official(set_entry("head.weight", data_offsets=[60, 76]), bytes(76)),
        CheckpointError,
        "is not a readable",
    ),
    "offsets backwards": (
        official(set_entry("head.weight", data_offsets=[72, 56])),
        CheckpointError,
        "is not a readable",
    ),
    "shape and bytes differ": (
        official(set_entry("embed.weight", shape=[2, 4])),
        CheckpointError,
        "is not a readable",
    ),
    "product of the shape overflows": (
        official(set_entry("embed.weight", shape=[2**33, 2**33])),
        CheckpointError,
        "is not a readable",
    ),
    "negative shape": (
        official(set_entry("embed.weight", shape=[-2, -3])),
        CheckpointError,
        "is not a readable",
    ),
    "header longer than the file": (
        struct.pack("<Q", 10**6) + b"{}",
        CheckpointError,
        "is not a readable",
    ),
    "header of 2^63 bytes": (struct.pack("<Q", 2**63) + b"{}", CheckpointError, "not a readable"),
    "header of 101 MB": (struct.pack("<Q", 101_000_000), CheckpointError, "not a readable"),
    "header is no JSON": (safetensors(b"{'a': 1}", b""), CheckpointError, "not a readable"),
    "header is a list": (safetensors([1], b""), CheckpointError, "not a readable"),
    "header is no UTF-8": (safetensors(b'{"\xff": 1}', b""), CheckpointError, "not a readable"),
    "header is deeply nested": (
        safetensors(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b""),
        CheckpointError,
        "not a readable",
    ),
    "duplicate key": (safetensors(DUPLICATE.encode(), bytes(8)), CheckpointError, "not a readable"),
    "unknown dtype": (
        official(set_entry("embed.weight", dtype="F7")),
        CheckpointError,
        "is not a readable",
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
    "no tensors": (safetensors({}, b""), CheckpointError, r"its tensors \(none\) are not those"),
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
