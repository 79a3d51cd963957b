"""What a format of model files is, and what a caller may say about the file that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilens.algebra.approximation.activation import Activation
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import read_json
from bilens.io.loaded_model import LoadedModel

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
Activations = str | Activation | list[str | Activation]


@dataclass(frozen=True)
class ReadOptions:
    """What a caller says about a file; None where it says nothing."""

    # whether each block adds its input, for official checkpoints that do not say it
    residual: bool | None = None
    allow_pickle: bool = False  # whether a pickle may be opened (with weights_only)
    roles: Mapping[str, str] | None = None  # role → tensor of a safetensors file of unknown names
    activation: Activations | None = None  # of its layers: a name, or one for each
    transposed: bool | None = None  # whether its matrices are (in, out)

    @property
    def name_roles(self) -> bool:
        """Whether the caller says what the tensors of a file are."""
        return any(part is not None for part in (self.roles, self.activation, self.transposed))

    def agreed_residual(self, path: Path, said: bool | None) -> bool | None:
        """Return whether there is a residual path: what the file says, or else the caller."""
        if said is not None and self.residual is not None and said != self.residual:
            raise UsageError(
                f"{path}: the model was saved with residual={said}, and residual={self.residual} "
                "was asked for: leave the option out."
            )
        return self.residual if said is None else said

    def refuse_residual(self, path: Path, because: str) -> None:
        """Refuse the option where it can only be a mistake."""
        if self.residual is not None:
            raise UsageError(f"{path}: {because}: leave the option out.")


@dataclass(frozen=True)
class Format:
    """A kind of model file or folder: how it is told from others, and how it is read."""

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], LoadedModel]


def config_in(folder: Path) -> dict[str, Any]:
    """Return what `config.json` of a folder says; empty where it cannot be read as one."""
    try:
        return read_json(folder / CONFIG_NAME) if folder.is_dir() else {}
    except CheckpointError:
        return {}
