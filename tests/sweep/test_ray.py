"""Sweeps on a cluster of Ray with two nodes: workers, a node and a driver that die.

Broken once: a lost job that is taken for a done one, a refused row that takes its neighbour along.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

import sweep_faults
import sweep_runs
import tiny
from bilens.base.errors import UsageError
from bilens.records.sweep import Cost
from bilens.sweep.engines.contract import open_engine
from bilens.sweep.manifest import Plan
from sweep_runs import Swept, until

pytestmark = [
    pytest.mark.slow,  # a cluster takes half a minute; other engines keep these promises at once
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]
OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}  # and no token of the home
Cluster = Callable[[], None]


@pytest.fixture(scope="module")
def started() -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-m", "ray_cluster"],
        env=tiny.environment(PYTHONPATH=sweep_runs.PATHS, **OPEN),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process
    process.communicate()


@pytest.fixture(scope="module")
def address(started: "subprocess.Popen[str]") -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


@pytest.fixture
def cluster(
    started: "subprocess.Popen[str]", address: str, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    """Remove the second node of the cluster: for the last test."""
    for name, value in {**OPEN, "RAY_ADDRESS": address}.items():
        monkeypatch.setenv(name, value)

    def remove() -> None:
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdin.write("\n")
        started.stdin.flush()
        assert started.stdout.readline() == "removed\n"

    return remove


@pytest.mark.usefixtures("cluster")
def test_rows_that_fail_are_named_and_all_else_is_there(
    swept: Swept, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kills its worker, one never has memory enough, and one asks for more than a node has."""
    sweep_faults.planted(swept.folder, kills=[5], memory=[2])
    cost = Plan.cost
    with monkeypatch.context() as patch:
        patch.setattr(
            Plan, "cost", lambda plan, row: Cost(0, 1 << 40) if row == 7 else cost(plan, row)
        )
        found = swept.sweep("ray", workers=2, patience="0")
    assert [*sorted(found.failed)] == ["fit 2", "fit 5", "fit 7"]
    assert found.failed["fit 2"] == "out of memory"
    assert found.failed["fit 5"].startswith("WorkerCrashedError")
    assert found.failed["fit 7"].startswith("no node of Ray has 1 CPUs and 1024.50 GiB")
    assert found.pieces == sweep_runs.ROWS - 3
    got = swept.written()
    assert got.pop("failed.json")
    assert got.items() < expected.items()
    sweep_faults.planted(swept.folder)
    assert swept.sweep("ray").is_complete
    assert swept.written() == expected


@pytest.mark.usefixtures("cluster")
def test_what_no_node_has_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="num_cpus=64: no node of Ray has 64 CPUs"):
        open_engine("ray", 1, 1, {"num_cpus": "64"})


@pytest.mark.usefixtures("cluster")
def test_workers_limit_what_runs_and_else_some_jobs_wait_at_the_nodes() -> None:
    for workers, jobs in ((1, 1), (None, 4)):
        engine = open_engine("ray", workers)
        assert engine.ahead * engine.capacity == jobs
        engine.cancel()


def test_a_killed_driver_and_a_removed_node_lose_nothing(
    swept: Swept, expected: dict[str, bytes], cluster: Cluster
) -> None:
    sweep_faults.planted(swept.folder, slow=0.3)
    driver = swept.command("--engine", "ray", "--workers", "1")
    until(lambda: swept.results() >= 2)
    driver.kill()
    driver.communicate()
    there = swept.results()
    assert 2 <= there < sweep_runs.ROWS

    def remove() -> None:  # while both nodes are at a row
        until(lambda: swept.results() > there)
        time.sleep(0.3)
        cluster()

    sweep_faults.planted(swept.folder, slow=0.8)
    thread = threading.Thread(target=remove)
    thread.start()
    assert swept.sweep("ray", workers=2).is_complete
    thread.join()
    assert swept.written() == expected
