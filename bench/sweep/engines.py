"""The whole model in the layout of DeepSeek-V3 through `local` and through a cluster of Ray.

One row a job, so that an engine is used 14,909 times. A worker notes how long each row took it;
what the engine adds is the time of all workers less that. Beside it stands the time of a loop over
some of the rows in one process. The driver's memory is read on the way, and every file that is
written is compared. `make bench-sweep` runs it and writes docs/benchmarks/sweep.json and the page.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.sweep.timed import TimedSpec, noted, notes
from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.records.sweep import SweepOptions
from bilens.sweep import driver, jobs, manifest
from bilens.sweep.driver import drive, plan_of
from bilens.sweep.engines.contract import open_engine
from bilens.sweep.manifest import NAME
from bilens.sweep.output import SweepOutput
from bilens.train.run_folder import LOCK_NAME

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks"
OPTIONS = SweepOptions(tasks=("fit",), null_samples=3)
LIMIT = 15.0  # milliseconds that an engine adds to a job
SAMPLE = 1000  # rows of the loop in one process
WORKERS, NODES = 2, 3
ENGINES = ("local", "ray")
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "memory": 4 << 30}


def resident() -> float:
    """Return the memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def swept(engine: str, model: Path, out: Path, workers: int) -> dict[str, Any]:
    """Sweep a model one row a job, in this process as the driver; return what it took."""
    notes(out).mkdir(parents=True, exist_ok=True)
    driver.Spec = TimedSpec  # type: ignore[attr-defined]
    manifest.MOST_ROWS = 1
    output = SweepOutput(str(out))
    plan = plan_of(str(model), OPTIONS, output)
    total = len(plan.rows)
    memory: list[float] = []
    warm: list[float] = []  # when a tenth was done: workers have started, and opened the model

    def progress(_what: str, done: int, _of: int) -> None:
        if done >= len(memory) * total / 10:
            memory.append(round(resident(), 1))
        if not warm and done >= total / 10:
            warm.append(time.time())

    limit = workers if engine == "local" else None  # the cluster has as many
    found = drive(plan, output, lambda: open_engine(engine, limit), progress)
    assert found.is_complete, found.failed
    if not warm:  # little was left
        return {"engine": engine, "jobs": total}
    wall = time.time() - warm[0]
    own = [seconds for began, seconds in noted(out) if began > warm[0]]
    each = 1000 / len(own)
    return {
        "engine": engine,
        "workers": workers,
        "jobs": total,
        "jobs_timed": len(own),
        "wall_seconds": wall,
        "own_ms_a_job": sum(own) * each,
        "added_ms_a_job": (wall * workers - sum(own)) * each,
        "driver_cpu_ms_a_job": time.process_time() / total * 1000,
        "driver_mib": memory,
        "load": os.getloadavg()[0],
    }


def alone(model: Path, out: Path) -> dict[str, float]:
    """Do some rows one after another in this process, a job each."""
    output = SweepOutput(str(out))
    plan = plan_of(str(model), OPTIONS, output)
    output.write(NAME, plan.text)
    rows = range(0, len(plan.rows), max(1, len(plan.rows) // SAMPLE))
    specs = [jobs.Spec(output.place, plan.sha256, row, (row,)) for row in rows]
    jobs.run_spec(specs.pop(0))  # opens the model
    start, cpu = time.perf_counter(), time.process_time()
    for spec in specs:
        jobs.run_spec(spec)
    each = 1000 / len(specs)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"rows": len(specs), "wall_ms_a_job": wall * each, "cpu_ms_a_job": cpu * each}


def digest(out: Path) -> str:
    """Return a hash of the names and bytes of all that a sweep wrote."""
    found = hashlib.sha256()
    for file in sorted(
        file for file in out.rglob("*") if file.is_file() and file.name != LOCK_NAME
    ):
        found.update(f"{file.relative_to(out)} {file.stat().st_size}\n".encode())
        found.update(file.read_bytes())
    return found.hexdigest()


@contextmanager
def cluster(nodes: int, head: int = 0) -> Iterator[Any]:
    """Yield a cluster of Ray on this machine: a head with so many CPUs, and nodes of one."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join(paths())
    found: Any = Cluster()
    for number in range(nodes):
        add_node(found, **({} if number else {"include_dashboard": False, "num_cpus": head}))
    os.environ["RAY_ADDRESS"] = str(found.address)
    yield found
    found.shutdown()


def add_node(cluster: Any, attempts: int = 5, **more: Any) -> Any:
    """Start a node, the first one as the head; Ray gives it half a minute, which may not do."""
    try:
        return cluster.add_node(**{**NODE, **more})
    except Exception as error:  # it has no name of its own
        if not attempts:
            raise
        print(f"once more, since {error}", file=sys.stderr)
        return add_node(cluster, attempts - 1, **more)


def paths() -> list[str]:
    return [str(ROOT), str(ROOT / "src")]


def process(*words: object) -> dict[str, Any]:
    """Return the answer of another process of this module."""
    line = [sys.executable, "-m", "bench.sweep.engines", *map(str, words)]
    done = subprocess.run(line, check=True, capture_output=True, text=True, cwd=ROOT)  # noqa: S603
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(answer, flush=True)
    return answer


def measure(model: Path, folder: Path) -> dict[str, Any]:
    """Return what the loop and the engines took, and whether they wrote the same."""
    result: dict[str, Any] = {"alone": process("alone", model, folder / "alone"), "engines": []}
    result["engines"].append(process("local", model, folder / "local"))
    for head in (0, 1):
        with cluster(NODES, head):
            out = folder / f"ray{head}"
            result["engines"].append(process("ray", model, out, "--workers", WORKERS + head))
    hashes = {digest(folder / name) for name in ("local", "ray0", "ray1")}
    result["files"] = sum(1 for _ in out.rglob("*.json"))
    result["sha256"] = digest(out)
    result["same_bytes"] = len(hashes) == 1
    return result


def save(name: str, result: dict[str, Any]) -> None:
    """Put a part of the result, and the page, where they are kept."""
    file = PAGE / "sweep.json"
    whole = json.loads(file.read_text()) if file.exists() else {}
    whole |= {name: result, "run": to_json(describe_run("make bench-sweep", 0))}
    file.write_text(json.dumps(whole, indent=1) + "\n")
    (PAGE / "sweep.md").write_text(page(whole))


def page(whole: dict[str, Any]) -> str:
    """Return the page that is generated from the results."""
    run = whole["run"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    return f"""# Sweeps: what an engine adds, and what dies

Generated by `make bench-sweep` from `sweep.json`; do not edit.
{engines_page(whole["engines"])}{kills_page(whole.get("kills"))}{stores_page(whole.get("stores"))}
* {run["date"]}; {run["hardware"]}; {versions}.
* Other work ran on the machine meanwhile, as the loads say (processes that want one of its
  {os.cpu_count()} cores): times on the clock are longer than on a machine of one's own.
"""


def engines_page(found: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {one['engine']} | {one['workers']} | {one['jobs']:,} | {one['own_ms_a_job']:.1f} "
        f"| {one['added_ms_a_job']:.1f} | {one['driver_cpu_ms_a_job']:.1f} "
        f"| {one['driver_mib'][1]:.0f} → {one['driver_mib'][-1]:.0f} | {one['wall_seconds']:.0f} "
        f"| {one['load']:.0f} |"
        for one in found["engines"]
    )
    loop, same = found["alone"], "the same" if found["same_bytes"] else "NOT the same"
    return f"""
## What an engine adds to a job

A model in the layout of DeepSeek-V3 with tiny widths, task `fit`, one row a job: an engine is used
once for each MLP. Ray is a real cluster of {NODES} nodes on this machine; where three work, the
head is one of them, and they share two cores. Milliseconds a job: the task's own, on the clock of
the worker; what is added, the time of all workers less that (limit {LIMIT:.0f}, where two work);
both from a tenth of the way on, when all workers have started and opened the model. Then the
driver: its processor time, its start included, and its resident set a tenth of the way and at the
end.

| engine | workers | jobs | own ms | added ms | driver's ms | driver MiB | seconds | load |
|---|---|---|---|---|---|---|---|---|
{rows}

* A loop over {loop["rows"]:,} of the rows in one process took {loop["wall_ms_a_job"]:.1f} ms a job
  on the clock, {loop["cpu_ms_a_job"]:.1f} ms of its processor.
* The {found["files"]:,} results of both engines are {same}, byte for byte.
* `bilens sweep` itself packs up to 500 such rows in a job.
"""


def kills_page(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    killed, same = found["killed"], "the same" if found["same_bytes"] else "OTHER"
    return f"""
## What dies on the way

A sweep of {found["jobs"]:,} jobs of one row on a cluster of Ray of {found["nodes"]} nodes. At
random moments {killed["worker"]} workers at work and {killed["node"]} nodes (not the head, which
Ray cannot lose) were killed, and the driver {killed["driver"]} times, all with SIGKILL. A node came
back as a new one; the same command started the driver again, as a supervisor would.

* Finished after {found["seconds"]:.0f} s: {found["results"]:,} results of {found["jobs"]:,},
  {found["failed"]} failed, {same} bytes as those of a sweep where nothing dies.
* The load was {found["load"]:.0f} at the end.
"""


def stores_page(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    counted = "\n".join(
        f"| {one['store']} | {one['model']} | {one['layers']:,} | {one['bytes_of_tensors']:,} "
        f"| {one['fetched']['tensors'] / one['bytes_of_tensors']:.4f} "
        f"| {one['fetched']['headers']:,} | {one['fetched'].get('index', 0):,} "
        f"| {one['requests']['ranges']:,} |"
        for one in found["fetched"]
    )
    faults = "\n".join(
        f"| {one['store']} | {one['fault']} | {one['planted']} "
        f"| {', '.join(map(str, one['codes']))} | {'yes' if one['same_bytes'] else 'NO'} |"
        for one in found["faults"]
    )
    return f"""
## What is fetched from a store

A server of files with byte ranges, and one of S3 (moto), on loopback; `bilens sweep ADDRESS --do
fit --workers 2`, the cache of ranges empty at the start. Fetched of the tensors is in parts of
what the layers have; headers (of a GGUF with its vocabulary) and JSON (the index of the shards, the
configuration) are fetched once a machine. In the generated model they are large beside its tiny
matrices, which take 3 kB an expert; 44 MB in the real one.

| store | model | layers | bytes of their tensors | fetched of these | headers | JSON | ranges |
|---|---|---|---|---|---|---|---|
{counted}

## What goes wrong on the way

A model of 37 layers in the same layout. Of the requests of a sweep some, drawn at random, got a
503, a body that was cut or one that was too short; then the store was silent (503) from a moment
on; then a file was changed. The codes are those of the same command, started again when the store
answered, or, after a change, once before the old file was back and once behind. The bytes are those
of the results in the end, beside a sweep where nothing happens.

| store | fault | times | exit codes | same bytes |
|---|---|---|---|---|
{faults}
"""


def main() -> None:
    """Run the benchmark, or one of its processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["all", "alone", *ENGINES], nargs="?", default="all")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=WORKERS)
    given = parser.parse_args()
    if given.what == "alone":
        print(json.dumps(alone(given.model, given.folder)))
        return
    if given.what in ENGINES:
        print(json.dumps(swept(given.what, given.model, given.folder, given.workers)))
        return
    found = measure(given.model, given.folder)
    save("engines", found)
    even = [one for one in found["engines"] if one["workers"] == WORKERS]
    over = [one for one in even if one["added_ms_a_job"] > LIMIT]
    if over or not found["same_bytes"]:
        sys.exit("over the limit, or not the same bytes")


if __name__ == "__main__":
    main()
