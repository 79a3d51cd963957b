"""kill -9 at every line of a save: the old model or the new, never half of one."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from bilens.io.load import load
from bilens.io.model_folder import save
from models import make, same_weights

SCRIPT = Path(__file__).with_name("crash_points.py")
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a reader finds after a kill at the first, second, … line of the module that writes."""
    if not hasattr(os, "fork"):
        pytest.skip("kills a forked process, and this system has no fork")
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("crash") / "model")],
        # one thread: a fork of a process whose threads have run waits for them for ever
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    outcomes: dict[str, list[str]] = json.loads(done.stdout)
    return outcomes


def test_a_kill_anywhere_leaves_the_old_model_or_the_new_one(found: dict[str, list[str]]) -> None:
    states = found["same function"]
    assert len(states) >= 14  # of that many lines, each third of the writing
    assert [state for state, _ in groupby(states)] == ["old", "new"]


def test_a_kill_between_two_renames_is_noticed_and_never_read_as_another_function(
    found: dict[str, list[str]],
) -> None:
    """New weights beside the old config.json: the same shapes, another function, so an error."""
    states = found["other function"]
    assert len(states) >= 40  # that many lines at which it was killed
    assert [state for state, _ in groupby(states)] == ["old", "CheckpointError", "new"]
    assert states.count("CheckpointError") <= 3


def test_what_a_kill_left_behind_disturbs_nobody(tmp_path: Path) -> None:
    save(make(seed=1), tmp_path)
    (tmp_path / ".model.safetensors.k1ll3d").write_bytes(b"half a fi")
    assert same_weights(load(tmp_path).module, make(seed=1))
    save(make(seed=2), tmp_path, overwrite=True)
    assert same_weights(load(tmp_path).module, make(seed=2))
