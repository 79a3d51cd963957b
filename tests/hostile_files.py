"""Files with code hidden in them, and fields of protocol buffers to write graphs with."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


class Bomb:
    """A pickle of it would run a command where it is opened."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def hide(path: Path, where: str) -> None:
    """Write a bomb behind other contents of a file."""
    joblib, many = pytest.importorskip("joblib"), np.arange(12.0).reshape(3, 4)
    plain, bomb = pickle.dumps({"w": many}), pickle.dumps(Bomb())
    objects, text = np.array([{"a": 1}], dtype=object), np.array(["é", "b"])
    if where == "joblib":
        others = [objects, text, np.zeros((), ">i8"), np.zeros(3, "M8[s]"), np.zeros(2, "f4,O")]
        joblib.dump({"w": many, "others": others, "z": Bomb()}, path)
    elif where == "objects of joblib":
        joblib.dump({"o": np.array([Bomb()], dtype=object), "w": many}, path)
    elif where == "objects of npz":
        with path.open("wb") as file:
            np.savez(file, w=many, o=np.array([Bomb()], dtype=object))
    elif where == "npy":
        np.save(path, np.array([Bomb()], dtype=object))
    elif where == "behind the end":
        path.write_bytes(plain + bomb)
    elif where == "behind a large one":
        path.write_bytes(pickle.dumps({"w": np.zeros(9 << 20), "z": Bomb()}))
    elif where == "behind a torch file":
        old = path.with_suffix(".old")
        torch.save({"w": torch.ones(3, 4)}, old, _use_new_zipfile_serialization=False)
        names = pickle.dumps(["x"], 2)
        data = old.read_bytes()
        at = data.rindex(b"\x80\x02]")  # the names of storages
        path.write_bytes(data[:at] + pickle.dumps([Bomb(), "x"], 2) + data[at + len(names) :])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def node(name: bytes, kind: bytes, more: bytes = b"") -> bytes:
    return field(1, field(1, name) + field(2, kind) + more)
