"""A tensor that lies in a file: known by its header, read on demand, whole or in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError
from bilens.io.tensors import check_all_finite

Place = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor, or a block of one.

    Attributes:
        path: its file, for messages.
        name: in the file.
        shape: of what is read.
        dtype: that it comes in.
        fetch: reads a block, given the slices of the leading axes.
        place: these slices; none for the whole tensor.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    fetch: Callable[[Place], Tensor]
    place: Place = ()

    def read(self) -> Tensor:
        """Return the tensor.

        Raises:
            CheckpointError: If the file is damaged, or is no longer the one that was opened.
            NonFiniteError: If it holds NaN or infinity.
        """
        tensor = self.fetch(self.place).reshape(self.shape)
        check_all_finite(self.path, {self.name: tensor})
        return tensor

    def one(self, index: int) -> StoredTensor:
        """Return one of a stack of tensors."""
        place = (*self.place, slice(index, index + 1))
        return replace(self, shape=self.shape[1:], place=place)

    def rows(self, start: int, stop: int) -> StoredTensor:
        """Return a block of rows."""
        place = (*self.place, slice(start, stop))
        return replace(self, shape=(stop - start, *self.shape[1:]), place=place)

    @property
    def num_bytes(self) -> int:
        """Memory of what is read."""
        return prod(self.shape) * self.dtype.itemsize


Store = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Unchanged:
    """A file as it was when it was opened.

    Layers are read long after the names of their tensors were; another file in its place would
    make one model of two.
    """

    path: Path
    size: int
    modified: int

    @classmethod
    def now(cls, path: Path) -> Unchanged:
        """Return a file as it is."""
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)

    def check(self) -> None:
        """Refuse a file that was changed since.

        Raises:
            CheckpointError: If it was changed, moved or removed.
        """
        if not self.path.is_file() or Unchanged.now(self.path) != self:
            raise CheckpointError(
                f"{self.path}: was changed or moved after the model was loaded: load it again."
            )
