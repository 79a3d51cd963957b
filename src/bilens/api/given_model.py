"""The model that a workflow was given: one that was loaded, or a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel


def given_model(model: object, reader: str, call: str) -> tuple[Any, LoadedModel | None]:
    """Return the module to read, and the loaded model if it came from one."""
    if isinstance(model, str | Path):
        loading = f"bl.load({str(model)!r})"
        raise UsageError(
            f"{reader} reads a model, got the path {str(model)!r}: use {call.format(loading)}."
        )
    return (model.whole(reader), model) if isinstance(model, LoadedModel) else (model, None)
