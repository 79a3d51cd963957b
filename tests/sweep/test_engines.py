"""Every engine gives the same bytes, names what it could not do, and goes on where one died.

Broken once: a lost job that is taken for a done one, attempts without an end, an array that forgets
one of its jobs, a job of submitit without its checkpoint.
"""

import os
import socket
from pathlib import Path

import pytest

import sweep_faults
import sweep_runs
from bilens.base.errors import UsageError
from bilens.sweep import manifest
from bilens.sweep.engines.contract import open_engine
from bilens.sweep.engines.slurm import SlurmEngine
from bilens.sweep.jobs import Spec
from sweep_runs import Swept

ONCE = "RAY_gcs_server_port_wait_time_s"
LOGS = {"cluster": "local", "folder": "logs"}
REFUSED = {
    "no such engine": ("cloud", {}, "--engine cloud is not known: use one of local, ray"),
    "option of none": ("local", {"num_cpus": "2"}, "num_cpus is not known to this engine"),
    "no number": ("ray", {"num_cpus": "abc"}, "num_cpus=abc; expected a number of at least"),
    "no CPU": ("ray", {"num_cpus": "0"}, "num_cpus=0; expected a number of at least 0.01"),
    "a CPU and a half": ("ray", {"num_cpus": "1.5"}, "num_cpus=1.5; expected a whole number"),
    "no Ray there": ("ray", {"address": "127.0.0.1:1"}, "does not start at 127.0.0.1:1"),
    "no environment": ("ray", {"runtime_env": "none.json"}, "does not start (FileNotFoundError"),
    "no Slurm": ("slurm", {}, "the engine slurm does not start (RuntimeError: Could not detect"),
    "no such cluster": ("slurm", {"cluster": "moon"}, "doesn't know any executor named moon"),
    "no parameter": ("slurm", {**LOGS, "colour": "red"}, "the engine slurm does not start"),
    "no hour": ("slurm", {**LOGS, "timeout_min": "soon"}, "the engine slurm does not start"),
}


def needs(engine: str) -> None:
    """Skip a test where the extra of an engine is not installed."""
    package = {"slurm": "submitit"}.get(engine, engine)
    if engine != "local":
        pytest.importorskip(package, reason=f"the extra {engine} is not installed")


@pytest.mark.parametrize("what", REFUSED)
def test_bad_options_and_engines_that_do_not_answer_are_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, options, words = REFUSED[what]
    needs(engine if what != "no such engine" else "local")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        open_engine(engine, 1, 1, options)
    assert words in str(refused.value)


def test_a_port_where_something_else_than_ray_answers_is_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray tries for 40 seconds, and again 19 times unless it is told."""
    needs("ray")
    import ray

    def init(**_: object) -> None:
        assert os.environ[ONCE] == "1"
        raise ConnectionError("Failed to connect")

    monkeypatch.setenv(ONCE, "")
    monkeypatch.delenv(ONCE)
    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"does not start at {address}"):
            open_engine("ray", 1, 1, {"address": address})


def test_a_row_that_kills_its_worker_is_named_and_all_else_is_there(
    swept: Swept, expected: dict[str, bytes]
) -> None:
    sweep_faults.planted(swept.folder, kills=[5], memory=[2])
    found = swept.sweep("local")
    assert [*found.failed] == ["fit 2", "fit 5"]
    assert found.failed["fit 2"] == "out of memory"
    assert "ended" in found.failed["fit 5"]
    assert found.pieces == sweep_runs.ROWS - 2
    got = swept.written()
    assert got.pop("failed.json")
    assert got.items() < expected.items()
    sweep_faults.planted(swept.folder)
    assert swept.sweep("local").is_complete
    assert swept.written() == expected


def test_arrays_of_submitit_give_the_same_bytes(swept: Swept, expected: dict[str, bytes]) -> None:
    needs("slurm")
    assert swept.sweep("slurm", cluster="debug", folder=str(swept.folder / "logs")).is_complete
    assert swept.written() == expected


@pytest.mark.slow
def test_a_job_whose_time_is_over_is_queued_again_and_goes_on(
    swept: Swept, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("slurm")
    monkeypatch.setattr(manifest, "MOST_ROWS", sweep_runs.ROWS)
    sweep_faults.planted(swept.folder, preempted=[4])
    logs = swept.folder / "logs"
    # Of one that is given a minute submitit thinks that it has had its time.
    options = {"cluster": "local", "folder": str(logs), "timeout_min": "1"}
    assert swept.sweep("slurm", **options).is_complete
    assert swept.written() == expected
    (log,) = logs.glob("*.err")
    assert log.read_text().count("Caught signal SIGUSR2") == 1
    assert len([*logs.glob("*_result.pkl")]) == 1  # of the same job


SLURM = {  # what its commands say
    "srun": "",
    "sbatch": "cat $1 >> {0}/scripts; echo Submitted batch job 7",
    "sacct": "echo 'JobID|State|NodeList'; echo '7_0|OUT_OF_MEMORY|a'; echo '7_1|NODE_FAIL|a'; "
    "echo '7|OUT_OF_MEMORY|b'",
    "scancel": "",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmEngine:
    """An engine for a Slurm that runs nothing."""
    needs("slurm")
    from submitit.core.core import Job

    for name, line in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line.format(tmp_path)}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(Job, "_results_timeout_s", 0)
    engine = open_engine(
        "slurm", 4, 2, {"folder": str(tmp_path / "logs"), "slurm_partition": "big"}
    )
    assert isinstance(engine, SlurmEngine)
    return engine


def test_jobs_of_one_size_are_one_array_and_what_slurm_says_of_them_is_told(
    slurm: SlurmEngine, tmp_path: Path
) -> None:
    for number, size in enumerate((1 << 20, 1 << 20, 5 << 30)):
        slurm.submit(Spec("out", "", number, (number,)), size)
    found = {one.number: one for one in slurm.as_completed()}
    scripts = (tmp_path / "scripts").read_text()
    assert scripts.count("#SBATCH --array=0-1") == 1
    for line in ("mem=1GB", "mem=6GB", "partition=big", "cpus-per-task=2", "time=60"):
        assert f"#SBATCH --{line}" in scripts
    assert [found[number].memory for number in range(3)] == [True, False, True]
    assert "has not produced any output (state: NODE_FAIL)" in found[1].lost
    assert not slurm.running


def test_what_no_node_of_slurm_has_is_refused(slurm: SlurmEngine, tmp_path: Path) -> None:
    said = "sbatch: error: Memory specification can not be satisfied"
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\necho {said} >&2; exit 1\n")
    slurm.submit(Spec("out", "", 3, (3,)), 1 << 50)
    (found,) = slurm.as_completed()
    assert found.refused.startswith("no node of Slurm has 1048577 GiB of memory")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho invalid partition specified >&2; exit 1\n")
    slurm.submit(Spec("out", "", 4, (4,)), 1)
    with pytest.raises(UsageError, match=r"takes no jobs: .*invalid partition"):
        next(slurm.as_completed())
