"""Several processes train as one does: the same weights, and states that each opens of the other.

Turned red by: a process that has the first rows of every batch, gradients that are not averaged,
and weights of a conversion that are put together wrongly.
"""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import several_processes
from bilens.base.errors import UsageError
from bilens.train import processes
from bilens.train.processes import ALONE, Processes, read_launch, together

pytestmark = [
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="torch is built without torch.distributed"
    ),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),  # one opens a divided state
]
KINDS = ("language", "sae")


def ended(started: list[Any], timeout: float = 120) -> list[str]:
    """What processes said that all went well."""
    said = [process.communicate(timeout=timeout)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(said), "\n".join(said)
    return said


def alone(place: Path, *jobs: str) -> None:
    """Do jobs in this process."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for job in jobs:
            several_processes.do(place, job, ALONE)
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains, and two: from the start, and from halfway of each other."""
    place = tmp_path_factory.mktemp("trained")
    one = [f"{kind}-{name}" for kind in KINDS for name in ("one", "to_shard-half")]
    alone(place, *one, "language-to_two-half", "language-in_parts-parts")
    two = [f"{kind}-{name}" for kind in KINDS for name in ("two", "to_shard-shard-on")]
    two += [f"{kind}-from-shard-half" for kind in KINDS]
    two += ["language-sharded-parts-shard", "sae-sharded-shard"]
    two += ["language-to_two-on", "language-from_two-half"]
    ended(several_processes.launch(place, *two))
    alone(place, "language-from_two-on", *(f"{kind}-from-on" for kind in KINDS))
    return place


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process converts, and two: from the start, and from halfway of one."""
    place = tmp_path_factory.mktemp("converted")
    alone(place, "convert-one", "convert-to_shard-half")
    ended(several_processes.launch(place, "convert-two", "convert-to_shard-shard-on"))
    return place


def weights(folder: Path) -> dict[str, Tensor]:
    """What was trained."""
    return load_file(folder / "model.safetensors")


RUNS = [f"{kind}-{name}" for kind in KINDS for name in ("two", "sharded", "to_shard", "from")]


@pytest.mark.parametrize(
    "name", [*RUNS, "language-to_two", "language-from_two", "language-in_parts"]
)
def test_the_weights_are_those_of_one_process(name: str, trained: Path) -> None:
    wanted, found = weights(trained / f"{name.split('-')[0]}-one"), weights(trained / name)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10)
    lines = [len((trained / name / "history.jsonl").read_text().splitlines())]
    assert lines == [several_processes.LINES[name.split("-")[0]]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "to_shard"])
def test_a_conversion_is_that_of_one_process(name: str, converted: Path) -> None:
    """In float32: the layers are read from files, and what is learnt behind them is shared."""
    wanted, found = weights(converted / "convert-one"), weights(converted / f"convert-{name}")
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)


def told_steps(place: Path, name: str) -> tuple[list[int], set[str]]:
    """The steps that trackers of a run were told, and the ranks of the processes that told them."""
    files = [*place.glob(f"{name}.told-*")]
    steps = [int(line) for file in files for line in file.read_text().split()]
    return steps, {file.suffix.rpartition("-")[2] for file in files}


@pytest.mark.parametrize("name", RUNS)
def test_only_the_first_process_tells_trackers(name: str, trained: Path) -> None:
    steps, ranks = told_steps(trained, name)
    assert ranks == {"0"} if name.endswith(("two", "sharded")) else ranks == {"0", "alone"}
    assert len(steps) == len({*steps}) == several_processes.LINES[name.split("-")[0]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two", "to_shard"])
def test_only_the_first_process_tells_trackers_of_a_conversion(name: str, converted: Path) -> None:
    steps, ranks = told_steps(converted, f"convert-{name}")
    assert ranks == {"0"} if name == "two" else ranks == {"0", "alone"}
    curves = converted.glob(
        f"convert-{name}/checkpoints/*.jsonl"
    )  # of two stages, and the fit first
    lines = [line for curve in curves for line in curve.read_text().splitlines()]
    assert len(steps) == len({*steps}) == 1 + len(lines) == 3


def test_a_process_that_is_killed_ends_the_run_and_another_number_goes_on(trained: Path) -> None:
    started = several_processes.launch(trained, "kill")
    began = time.monotonic()
    try:
        (said, _), _ = (process.communicate(timeout=60) for process in started)
    except subprocess.TimeoutExpired:
        for process in started:
            process.kill()
        raise
    assert time.monotonic() - began < 60
    assert "InterruptedRunError: Another process of this run has ended; " in said
    assert "repeat the command with --resume to go on." in said
    assert not (trained / "language-killed" / ".lock").exists()
    alone(trained, "language-killed-on")
    wanted = weights(trained / "language-one")
    for key, value in weights(trained / "language-killed").items():
        torch.testing.assert_close(value, wanted[key], rtol=0, atol=1e-10)


def environment(monkeypatch: pytest.MonkeyPatch, rank: str, world: str) -> None:
    given = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29765"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "0", "2")
    monkeypatch.setattr(processes, "JOIN", processes.timedelta(seconds=1))
    with pytest.raises(UsageError, match="the 2 processes of this run did not find each other"):
        together("cpu").__enter__()


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "two"), ("0", "")])
def test_an_environment_that_is_none_is_refused(
    rank: str, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, rank, world)
    with pytest.raises(UsageError, match="is no process of a run: start with torchrun"):
        read_launch()


def test_one_process_divides_nothing() -> None:
    with pytest.raises(UsageError, match="--shard divides a model among processes, and there is"):
        together("cpu", shard=True).__enter__()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 4 cannot be shared evenly by 3 processes"):
        several_processes.language(several_processes.LANGUAGE, Processes(0, 3))
