"""A sweep on a cluster of Ray, while its workers, its nodes and its driver are killed at random.

The model has the layout of DeepSeek-V3, 14,909 MLPs. The same command is started again each
time the driver is killed, and a new node comes for each that is; nothing else is done to help. What
is there in the end is compared, byte for byte, with what one process writes where nothing dies.
`make bench-sweep` runs it behind `bench.sweep.engines`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.sweep.deepseek import write_model
from bench.sweep.engines import NODES, OPTIONS, ROOT, add_node, cluster, digest, save
from bilens.sweep import jobs
from bilens.sweep.driver import plan_of
from bilens.sweep.manifest import NAME
from bilens.sweep.output import SweepOutput

KINDS, EACH = ("worker", "node", "driver"), 10
APART = (100, 700)  # results between two kills
AT_WORK = "ray::run_spec"


def whole(model: Path, out: Path) -> int:
    """Do all rows in this process; return how many there are."""
    output = SweepOutput(str(out))
    plan = plan_of(str(model), OPTIONS, output)
    output.write(NAME, plan.text)
    rows = tuple(range(len(plan.rows)))
    found = jobs.run_spec(jobs.Spec(output.place, plan.sha256, 0, rows))
    assert not found.faults, found
    return len(rows)


def start(model: Path, out: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "bench.sweep.engines", "ray", str(model), str(out)]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=log)  # noqa: S603 - our own


def there(out: Path) -> int:
    return sum(1 for _ in out.glob("results/*/*/*.json"))


def at_work(nodes: Any) -> list[int]:
    """Return the processes of a cluster that do a job now."""
    parents = {one.process.pid for node in nodes for one in node.all_processes.get("raylet", ())}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in parents and AT_WORK in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, ValueError):  # it has ended
            continue
    return found


def killed(model: Path, out: Path, seed: int = 0) -> tuple[Counter[str], float]:
    """Sweep with kills; return how many there were, and the seconds."""
    chance = random.Random(seed)  # noqa: S311 - moments
    kinds = [kind for kind in KINDS for _ in range(EACH)]
    chance.shuffle(kinds)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with cluster(NODES) as ray:
        driver = start(model, out)
        for kind in kinds:
            due = there(out) + chance.randint(*APART)
            while there(out) < due:
                if driver.poll() is not None:
                    sys.exit(f"the driver ended by itself: {out.with_suffix('.log')}")
                time.sleep(chance.random())
            if kind == "driver":
                driver.kill()
                driver.wait()
                driver = start(model, out)
            elif kind == "node":
                ray.remove_node(chance.choice([*ray.worker_nodes]), allow_graceful=False)
                add_node(ray)
            else:
                while not (found := at_work(ray.list_all_nodes())):
                    time.sleep(0.05)
                os.kill(chance.choice(found), signal.SIGKILL)
            counts[kind] += 1
            print(
                f"{time.monotonic() - began:.0f} s: {kind} killed, {there(out)} there", flush=True
            )
        if driver.wait():
            sys.exit(f"the driver failed: {out.with_suffix('.log')}")
    return counts, time.monotonic() - began


def main() -> None:
    """Run the benchmark in a folder that is made anew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    model = write_model(folder / "model")
    rows = whole(model, folder / "whole")
    counts, seconds = killed(model, folder / "killed")
    failed = json.loads(SweepOutput(str(folder / "killed")).read_bytes("failed.json") or b"{}")
    result = {
        "jobs": rows,
        "nodes": NODES,
        "killed": dict(counts),
        "seconds": seconds,
        "results": there(folder / "killed"),
        "failed": len(failed),
        "same_bytes": digest(folder / "killed") == digest(folder / "whole"),
        "load": os.getloadavg()[0],
    }
    save("kills", result)
    if not result["same_bytes"] or failed:
        sys.exit("not what a sweep gives where nothing dies")


if __name__ == "__main__":
    main()
