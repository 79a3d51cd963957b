"""`docs/measured.md`: the main numbers of every benchmark and study, over all machines.

A benchmark writes `docs/benchmarks/NAME.json`. `python -m tools.measured` copies the numbers named
below into `docs/benchmarks/machines.json`, one entry a machine and day, and so keeps what other
machines measured; `make docs` draws the page from that file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs/benchmarks"
KEPT = FOLDER / "machines.json"
Numbers = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Measure:
    """What a benchmark or study says on the page."""

    name: str  # of the JSON file and of the page
    subject: str
    command: str
    numbers: Callable[[dict[str, Any]], Numbers]  # label and number, in the order of the page


def decomposition(data: dict[str, Any]) -> Numbers:
    for row in data["eigenpairs"]:
        if row["target"] is not None:
            size = f"({row['d_in']}, {row['d_hidden']}) {row['kind']}"
            yield f"{size}: times faster than the dense way", row["ratio"]["paper"]
            yield f"{size}: time over 20 products", row["over_floor_of_20_products"]
    for row in data["large"]:
        yield f"({row['d_in']}, {row['d_hidden']}) {row['kind']}: peak GiB", row["peak_gib"]


def guarantees(data: dict[str, Any]) -> Numbers:
    for model in data["models"]:
        name = f"noise {model['noise']:g}"
        yield f"{name}: exact radii a second", model["rate"]["radii_a_second"]
        yield f"{name}: attributions, times faster than Captum", model["attributions"]["ratio"]
        inside = model["attacks"]["flips_of_pgd_inside"]
        yield f"{name}: attacks below a radius", inside
        best = model["attacks"]["best_attack_over_radius"]["median"]
        yield f"{name}: best attack over radius, median", best


def training(data: dict[str, Any]) -> Numbers:
    ratios, accuracy = data["median_ratio"], data["final_accuracy"]
    yield "time of an epoch over the plain loop's", ratios["ours"]
    yield "the same in float32", ratios["ours in float32"]
    yield "test accuracy", accuracy["ours"]
    yield "test accuracy of the plain loop", accuracy["plain"]


def language_throughput(data: dict[str, Any]) -> Numbers:
    yield "throughput over the plain loop's, bfloat16", data["speed"]["ours"]["line"]
    yield "throughput over the plain loop's, float32", data["speed"]["ours in float32"]["line"]


def sae_steps(data: dict[str, Any]) -> Numbers:
    for case in data["cases"]:
        yield f"{case['sizes']}: times faster than a dense step", case["step_ratio"]


def negation(data: dict[str, Any]) -> Numbers:
    counts, rows = data["result"]["counts"], data["result"]["rows"]
    yield f"circuit found by ranking, of {len(rows)} seeds", counts["found"]
    yield f"effect removed by its directions, of {len(rows)} seeds", counts["removed"]
    confirmed = counts["removal_confirmed"]
    yield f"confirmed beside random dictionaries, of {len(rows)} seeds", confirmed


def quadratic_fit(data: dict[str, Any]) -> Numbers:
    ladders = [row["ladder"] for row in data["ceilings"]]
    gaps = [
        one["ceiling"]["value"] - max(one[fit]["value"] for fit in ("refitted", "trained"))
        for one in ladders
    ]
    yield "small layers fitted to data within 0.002 of the ceiling", sum(g <= 0.002 for g in gaps)
    yield "of small layers", len(gaps)
    yield "largest gap to the ceiling", max(gaps)
    for mlp in data["mlps"]:
        name = f"MNIST ReLU MLP, hidden layers: {mlp['depth']}"
        yield f"{name}: R² on test images, closed form", mlp["images"]["test_r_squared"]["value"]
        if mlp.get("refitted"):
            yield f"{name}: refitted on data", mlp["refitted"]["test_r_squared"]["value"]


def smollm2(data: dict[str, Any]) -> Numbers:
    for run in data["runs"]:
        yield f"seconds at threshold {run['threshold']:g}", run["seconds"]
        yield f"peak GiB at threshold {run['threshold']:g}", run["peak_gib"]


def tables(data: dict[str, Any]) -> Numbers:
    for row in data["tables"]:
        score = "accuracy" if row["has_classes"] else "R²"
        for name in ("bilens", "linear", "LightGBM"):
            scores = row["models"][name]["scores"]
            yield f"{row['name']}: {score}, {name}", sum(scores) / len(scores)


def installation(data: dict[str, Any]) -> Numbers:
    for one in data["installed"]:
        yield f"{one['name']}: MB, torch for processors among them", one["megabytes"]
        yield f"{one['name']}: seconds of pip", one["seconds"]


def masks(data: dict[str, Any]) -> Numbers:
    models = data["result"]["models"]
    yield "models in which no mask beats ours", sum(model["holds"] for model in models)
    yield "of models", len(models)
    yield "comparisons", sum(model["comparisons"] for model in models)


def sweep(data: dict[str, Any]) -> Numbers:
    for row in data["engines"]["engines"]:
        name = f"{row['engine']}, {row['workers']} workers"
        yield f"{name}: milliseconds added to a job", row["added_ms_a_job"]
        yield f"{name}: MiB of the driver at the end", row["driver_mib"][-1]
    killed = data["kills"]
    yield "workers, nodes and drivers killed", sum(killed["killed"].values())
    yield "results missing then", killed["jobs"] - killed["results"]
    for row in data["stores"]["fetched"]:
        name = f"{row['model']} over {row['store']}: bytes fetched of those of its tensors"
        yield name, row["fetched"]["tensors"] / row["bytes_of_tensors"]


MEASURES = (
    Measure(
        "decomposition",
        "Two leading eigenpairs of every output of a layer",
        "make bench-decomposition",
        decomposition,
    ),
    Measure("guarantees", "Guarantees", "make bench-guarantees DATA=folder", guarantees),
    Measure("training", "Training of images", "make bench-training DATA=folder", training),
    Measure(
        "language_throughput",
        "Training of a language model",
        "make bench-language CORPUS=file",
        language_throughput,
    ),
    Measure("sae_steps", "Training of a sparse autoencoder", "make bench-sae", sae_steps),
    Measure(
        "negation", "Negation in a language model", "bilens reproduce language/negation", negation
    ),
    Measure(
        "quadratic_fit",
        "Quadratic approximation of MLPs",
        "make bench-quadratic-fit DATA=folder",
        quadratic_fit,
    ),
    Measure("smollm2", "Audit of SmolLM2-135M", "make study-pretrained MODEL=file.gguf", smollm2),
    Measure("tables", "Estimators for tables", "make bench-tables", tables),
    Measure(
        "sweep", "Sweeps and what they lose", "make bench-sweep OUT=folder MODEL=file.gguf", sweep
    ),
    Measure("installation", "Installation of the wheels", "make bench-installation", installation),
    Measure("masks", "Universal perturbations", "bilens reproduce vision/masks", masks),
)


def machine_of(data: dict[str, Any]) -> tuple[str, str]:
    """Return hardware and day of a result."""
    run = data.get("run", data)
    return run.get("hardware") or "not recorded", run.get("date") or ""


def with_result(kept: list[dict[str, Any]], name: str, data: dict[str, Any]) -> None:
    """Add the numbers of a result, in the place of an earlier one of the same machine and day."""
    measure = next(measure for measure in MEASURES if measure.name == name)
    hardware, date = machine_of(data)
    key = {"measure": name, "hardware": hardware, "date": date}
    kept[:] = [entry for entry in kept if {field: entry[field] for field in key} != key]
    kept.append({**key, "numbers": dict(measure.numbers(data))})


def shown(number: float) -> str:
    """Return a number with three figures, a count whole."""
    if number == int(number):
        return f"{int(number):,}"
    return (
        f"{number:.3f}"
        if abs(number) < 1
        else f"{number:.3g}"
        if abs(number) < 1000
        else f"{number:,.0f}"
    )


def runs_of(measure: Measure, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was kept of a measure, the oldest first."""
    runs = [one for one in kept if one["measure"] == measure.name]
    return sorted(runs, key=lambda one: str(one["date"]))


def rows_of(measure: Measure, kept: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a row for each number: the latest, and the range over all machines and days."""
    entries = runs_of(measure, kept)
    for label, number in entries[-1]["numbers"].items():
        numbers = [one["numbers"][label] for one in entries if label in one["numbers"]]
        low, high = shown(min(numbers)), shown(max(numbers))
        machines = len(
            {one["hardware"].split(",")[0] for one in entries if label in one["numbers"]}
        )
        spread = f"{low} to {high}" if low != high else ""
        runs = f"{len(numbers)} runs, {machines} machine{'s' if machines > 1 else ''}"
        note = f"{spread} ({runs})" if spread else ""
        yield f"| {label} | {shown(number)} | {note} |"


def page() -> str:
    """Return `docs/measured.md`."""
    kept = json.loads(KEPT.read_text())
    parts = [
        "# Measured",
        "Generated by `make docs` from `docs/benchmarks/machines.json`: the newest number of each "
        "benchmark and study, and its range where there are several runs. Each page says what was "
        "compared with what, on which hardware, and what limits it.",
    ]
    for measure in MEASURES:
        newest = runs_of(measure, kept)[-1]
        when = f"{newest['date']}, {newest['hardware']}".strip(", ")
        parts.append(
            f"## {measure.subject}\n\n[{measure.name}](benchmarks/{measure.name}.md), "
            f"`{measure.command}`. {when}.\n\n| number | newest | range |\n|---|---|---|\n"
            + "\n".join(rows_of(measure, kept))
        )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Keep the numbers of the results that are there now."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else []
    for measure in MEASURES:
        with_result(kept, measure.name, json.loads((FOLDER / f"{measure.name}.json").read_text()))
    kept.sort(key=lambda entry: (entry["measure"], entry["date"], entry["hardware"]))
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
