"""The memory that a piece of code takes: at its peak, and in its largest tensor."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OVERHEAD = 24 * 2**20  # code that is loaded late, and buffers of the linear algebra
PRELUDE = """
def measure(call):
    lines = lambda: dict(line.split(":", 1) for line in open("/proc/self/status"))
    before = int(lines()["VmRSS"].split()[0])
    open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
    call()
    print(1024 * (int(lines()["VmHWM"].split()[0]) - before))
"""


def peak_of(code: str) -> int:
    """Return the bytes by which `measure(call)` in the code raises the peak of its process."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak memory of a process is read from /proc, as on Linux")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes; a view is none."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {part.untyped_storage().data_ptr() for part in args if isinstance(part, Tensor)}
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.numel = max(self.numel, tensor.numel())
        return result
