"""The plan to the top: what a job costs by size, and what sweeps of large models would take.

`python -m bench.sweep.scaling sizes|workers|replay|page …` adds a part to
docs/benchmarks/scaling.json and draws docs/scaling.md. `sizes` runs each task on layers of real
size; `workers` sweeps a model with one worker and with two, in turns; `replay` puts the manifest of
14,909 jobs, with the times of real sizes a thousandth as long, through the engine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.sweep.sizes import DIRECTIONS, NULL_SAMPLES, SIZES, TASKS, write_layer
from bench.sweep.timed import OtherSpec
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.records.sweep import Cost, SweepOptions
from bilens.sweep import driver, jobs
from bilens.sweep.driver import drive
from bilens.sweep.engines.contract import open_engine
from bilens.sweep.manifest import Plan, make_plan
from bilens.sweep.output import SweepOutput
from bilens.sweep.tasks import TASKS as KNOWN

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "benchmarks" / "scaling.json"
PAGE, TEMPLATE = ROOT / "docs" / "scaling.md", Path(__file__).parent / "scaling.md"
ASKED = SweepOptions(tasks=TASKS, directions=DIRECTIONS, top=5)
MODELS = {  # name: (layers, width, hidden, bytes of a weight)
    "8B (Llama 3.1)": [(32, 4096, 14336, 2)],
    "70B (Llama 3.1)": [(80, 8192, 28672, 2)],
    "DeepSeek-V3": [(58 * 257, 7168, 2048, 1), (3, 7168, 18432, 1)],
}
WORKERS = (1, 64, 1024)
PRICE = 0.05  # dollars an hour of a core
WORK = "--do audit,fit"  # that one worker and two do
SLOWER = 1000  # a replay is as many times as fast


def waited(output: SweepOutput, plan: Plan, row: int, task: str) -> None:
    """Wait, and write a result of ordinary size."""
    time.sleep(plan.rows[row].costs[task].seconds / SLOWER)
    output.write(jobs.result_name(task, row), b"x" * 3000)


class Replayed(OtherSpec):
    """What a worker is told; it then waits as long as a row is said to take, over 1000."""

    done = staticmethod(waited)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # opening the model takes as long as ever, and would hide the engine
        jobs.checked_models = lambda *_, **__: None  # type: ignore[attr-defined,assignment]


def seconds(task: str, width: int, hidden: int, rate: float) -> float:
    """Return the estimate of a task, for a core that is `rate` times as fast as the plan's."""
    return KNOWN[task].seconds(FactorSizes(width, hidden, width), ASKED) / rate


def replay(model: Path, out: Path, workers: int, rate: float) -> dict[str, Any]:
    """Drive the manifest of the model with the times of DeepSeek-V3; return what that took."""
    driver.Spec = Replayed  # type: ignore[attr-defined]
    fitted = replace(ASKED, tasks=("fit",))
    made = make_plan(str(model), fitted)
    times = [
        seconds("fit", 7168, 2048 if "expert" in row.name else 18432, rate) for row in made.rows
    ]
    rows = tuple(
        replace(row, costs={"fit": Cost(each, 1 << 20)})
        for row, each in zip(made.rows, times, strict=True)
    )
    plan = Plan(made.head, rows)
    cpu, start = time.process_time(), time.perf_counter()
    done = drive(plan, SweepOutput(str(out)), lambda: open_engine("local", workers))
    wall = time.perf_counter() - start
    assert done.is_complete, done.failed
    handed = len(plan.jobs(range(len(rows)), workers))
    return {
        "workers": workers,
        "rows": len(rows),
        "jobs": handed,
        "predicted_seconds": sum(times) / SLOWER / workers,
        "seconds": wall,
        "driver_cpu_ms_a_job": (time.process_time() - cpu) / handed * 1000,
        "load": os.getloadavg()[0],
    }


def workers(model: Path, rounds: int) -> dict[str, Any]:
    """Sweep a model with one worker and with two, in turns; return medians and their ratio."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(rounds):
        for number in (1, 2) if turn % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                line = [sys.executable, "-m", "bilens", "sweep", str(model), *WORK.split()]
                given = [*line, "--out", f"{folder}/out", "--workers", str(number)]
                start = time.perf_counter()
                subprocess.run(given, check=True, capture_output=True)  # noqa: S603 - our own
                found[number].append(time.perf_counter() - start)
    one, two = (statistics.median(found[number]) for number in (1, 2))
    return {"model": model.name, "one": one, "two": two, "ratio": one / two, "rounds": rounds}


def sizes(out: Path, only: str) -> dict[str, Any]:
    """Run each task on each layer in a process of its own."""
    found = {}
    for name in SIZES:
        write_layer(out / name, name)
        for task in TASKS:
            if only in f"{name} {task}":
                line = ["-m", "bench.sweep.sizes", "--out", str(out), "--one", name, task]
                done = subprocess.run(  # noqa: S603 - our own interpreter
                    [sys.executable, *line], check=False, capture_output=True, text=True
                )
                known = json.loads(done.stdout) if done.returncode == 0 else {}
                found[f"{name} {task}"] = known or {"failed": done.stderr.strip()[-300:]}
                print(name, task, found[f"{name} {task}"], flush=True)
    return found


def rate_of(result: dict[str, Any]) -> float:
    """Return how many times as fast as the plan says the measured tasks were, in the median."""
    ratios = [
        one["estimated_seconds"] / one["cpu_seconds"]
        for one in result.get("sizes", {}).values()
        if "cpu_seconds" in one
    ]
    return statistics.median(ratios) if ratios else 1.0


def measured_rows(result: dict[str, Any], rate: float) -> list[str]:
    found = []
    for name, one in result["sizes"].items():
        kind, task = name.split()
        cells = [f"did not end ({one.get('failed') or 'ended by the machine'})", *[""] * 4]
        if "seconds" in one:
            width, hidden = SIZES[kind]
            estimated = KNOWN[task].num_bytes(FactorSizes(width, hidden, width))
            gib = (f"{size / 2**30:.2f}" for size in (one["peak_bytes"], estimated))
            times = one["seconds"], one["cpu_seconds"], one["estimated_seconds"] / rate
            cells = [*(f"{each:.0f}" for each in times), *gib]
        found.append(f"| {kind} {SIZES[kind]} | {task} | {' | '.join(cells)} |")
    return found


def predicted_rows(rate: float) -> list[str]:
    found = []
    for name, parts in MODELS.items():
        read = sum(count * 3 * width * hidden * size for count, width, hidden, size in parts)
        for task in TASKS:
            times = [seconds(task, width, hidden, rate) for _, width, hidden, _ in parts]
            total = sum(part[0] * one for part, one in zip(parts, times, strict=True))
            spans = [max(total / number, max(times)) for number in WORKERS]
            cells = [f"{max(times):.0f}", *(f"{span / 3600:.3g}" for span in spans)]
            cells += [f"{total / 3600 * PRICE:.2f}", f"{read / 2**30 / spans[-1]:.2f}"]
            found.append(f"| {name} | {task} | {' | '.join(cells)} |")
    return found


def replayed_rows(result: dict[str, Any]) -> list[str]:
    formats = {
        "workers": "",
        "rows": ",",
        "jobs": ",",
        "predicted_seconds": ".0f",
        "seconds": ".0f",
        "driver_cpu_ms_a_job": ".2f",
        "load": ".0f",
    }
    cells = ([f"{one[key]:{kind}}" for key, kind in formats.items()] for one in result["replay"])
    return [f"| {' | '.join(row)} |" for row in cells]


def draws_of(result: dict[str, Any]) -> dict[str, str]:
    """Return what draws of the layer's null took, an audit with all, and its stability."""
    one = result["sizes"]["layer audit"]
    draws = one["draws_cpu_seconds"]
    more = ASKED.null_samples - NULL_SAMPLES["layer"]
    whole = (one["cpu_seconds"] + more * statistics.mean(draws)) / 3600
    found = one["found_stability"]
    stable = f"{found['guaranteed']} of {found['leading']} leading eigenvectors are guaranteed"
    return {
        "draws": " and ".join(f"{each:.0f}" for each in draws),
        "whole": f"{whole:.1f}",
        "stable": f"{stable}, no eigenvalue moves by more than {found['movement']:.0e}",
    }


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    rate, run = rate_of(result), result["run"]
    return TEMPLATE.read_text().format(
        date=run["date"],
        hardware=run["hardware"],
        rate=rate,
        price=PRICE,
        measured="\n".join(measured_rows(result, rate)),
        predicted="\n".join(predicted_rows(rate)),
        played="\n".join(replayed_rows(result)),
        work=WORK,
        **draws_of(result),
        **result["workers"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("sizes", "workers", "replay", "page"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, nargs="*", default=(2, 8))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"sizes": {}, "replay": []}

    def replayed() -> list[dict[str, Any]]:
        found = []
        for number in given.workers:
            shutil.rmtree(given.out / "replay", ignore_errors=True)
            found.append(replay(given.model, given.out / "replay", number, rate_of(result)))
        return found

    parts: dict[str, Callable[[], Any]] = {
        "sizes": lambda: result["sizes"] | sizes(given.out, given.only),
        "workers": lambda: workers(given.model, given.rounds),
        "replay": replayed,
    }
    if given.part != "page":
        result[given.part] = parts[given.part]()
        result["run"] = to_json(describe_run(f"python -m bench.sweep.scaling {given.part}", 0))
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if {"sizes", "replay", "workers"} <= {*result}:
        PAGE.write_text(page(result))


if __name__ == "__main__":
    main()
