"""Runs a group of calls of the Python interface: `python -m tools.net.calls GROUP FILE`.

The working folder is the one that the command lines run in; each result is described as JSON,
an error by its kind and its sentence.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tools.net.describe import Describer

GROUPS = {
    "algebra": "tools.net.calls_algebra",
    "certify": "tools.net.calls_certify",
    "models": "tools.net.calls_models",
    "formats": "tools.net.calls_formats",
    "reports": "tools.net.calls_reports",
    "old": "tools.net.calls_old",
}

WRITTEN = ("out", "calls", "printed")  # by the cases themselves


def functions(module: Any) -> dict[str, Callable[[], Any]]:
    """The cases of a module: its public functions without parameters, in order."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", "") == module.__name__
        and not name.startswith("_")
        and not isinstance(value, type)
    }


def outcome(call: Callable[[], Any], describer: Describer) -> Any:
    """What a call returned or raised, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        try:
            result = describer.value(call())
        except Exception as error:
            result = raised(error)
    told = [f"{one.category.__name__}: {one.message}" for one in given]
    ours = [describer.text(text) for text in told if text.startswith("Bilens")]
    return {"result": result, "warnings": ours} if ours else result


def raised(error: Exception) -> dict[str, str]:
    """An error as it is recorded."""
    return {"raises": type(error).__name__, "message": str(error)}


def attempts(calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """The outcome of each of several calls."""
    found: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except Exception as error:
            found[name] = raised(error)
    return found


def main(group: str, target: Path) -> None:
    """Run the group and write the file."""
    torch.set_num_threads(1)
    describer = Describer({str(Path.cwd()): "FOLDER"})
    folders = [path for path in Path().iterdir() if path.name not in WRITTEN]
    for folder in sorted(folders, key=lambda path: (path.name != "models", path)):
        describer.learn(Path(), str(folder))
    module = importlib.import_module(GROUPS[group])
    found = {name: outcome(call, describer) for name, call in functions(module).items()}
    target.write_text(json.dumps(found, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
