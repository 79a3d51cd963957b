"""Kill a save at every line of the module that writes, and say what a reader finds. A program.

Usage: python crash_points.py FOLDER; it prints JSON. The new model has either the same arguments
as the old one, or a residual path that the old one has not.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from bilens.base import files
from bilens.base.errors import BilensError
from bilens.io.load import load
from bilens.io.model_folder import save
from models import make, same_weights


def kill_at_line(count: int) -> None:
    """End this process, without any cleaning up, before the `count`-th line is executed."""
    left = [count]

    def each_line(_: FrameType, event: str, __: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return each_line

    def each_call(frame: FrameType, _: str, __: Any) -> Any:
        return each_line if frame.f_code.co_filename == files.__file__ else None

    sys.settrace(each_call)


def found_after_a_kill(folder: Path, old: nn.Module, new: nn.Module, step: int = 1) -> list[str]:
    """Save a new model over an old one, killed `step` lines later each time, and read the folder.

    Returns:
        For each kill "old", "new", "another function" or the name of an exception; the last entry
        is the outcome without a kill.
    """
    found = []
    for count in range(1, 1000, step):
        shutil.rmtree(folder, ignore_errors=True)
        save(old, folder)
        child = os.fork()
        if child == 0:
            kill_at_line(count)
            save(new, folder, overwrite=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        try:
            module = load(folder).module
        except BilensError as error:
            found.append(type(error).__name__)
        else:
            state, saved = ("new", new) if same_weights(module, new) else ("old", old)
            whole = same_weights(module, saved) and module.residual is saved.residual
            found.append(state if whole else "another function")
        if os.WIFEXITED(status):
            break
    return found


if __name__ == "__main__":
    old, same, other = make(seed=1), make(seed=2), make("residual classifier", seed=2)
    folder = Path(sys.argv[1])
    found = {
        "same function": found_after_a_kill(folder, old, same, step=3),
        "other function": found_after_a_kill(folder, old, other),
    }
    sys.stdout.write(json.dumps(found))
