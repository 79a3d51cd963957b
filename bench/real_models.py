"""`bilens audit` over real model files of public packages: how each ends, and what it takes.

Every file is audited by a process of its own, within limits of time and memory. Beside the file
stand pairs with planted changes (`bench/real_changes.py`) and layers of which onnxruntime recorded
what they see (`bench/recorded_layers.py`).

Run it with `make bench-real DATA=folder`: the packages are downloaded into the folder, unless their
files are there. It writes docs/benchmarks/real_models.json and the page. `--parts` measures some of
it anew and keeps the others, each part with its own date and commit.
"""

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.audits_under_limits import Ended, run_under_limits
from bench.real_changes import Change, plant
from bench.real_inputs import FEEDS, make_inputs
from bench.real_models_page import page
from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from tests.corpus_real import RealFile, fetch, listed_files
from tools.page_parts import write_parts

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
SECONDS, MIB = 300.0, 8_000.0
PARTS = ("files", "folder", "changes", "recorded")
COMMIT = ["git", "-C", str(PAGE), "rev-parse", "--short", "HEAD"]


def document_of(ended: Ended) -> dict[str, Any] | None:
    """The document that was printed, or None."""
    try:
        found = json.loads(ended.out)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "audit" else None


def audit(path: Path, *more: str) -> tuple[Ended, dict[str, Any] | None]:
    """Audit a file in a process of its own."""
    command = ["-m", "bilens", "audit", str(path), "--json", "--allow-pickle", *more]
    ended = run_under_limits(command, SECONDS, MIB)
    return ended, document_of(ended)


def message(ended: Ended, folder: Path) -> str:
    """The error that was printed, or the last line, without the folder of the corpus."""
    lines = [line.strip() for line in ended.err.splitlines() if line.strip()]
    found = [line for line in lines if line.startswith("error:")] or lines[-1:] or [""]
    return found[-1].removeprefix("error:").strip().replace(f"{folder}/", "")


def how_it_ended(ended: Ended, document: dict[str, Any] | None) -> str:
    """How it ended: a key of `ENDS` of the page."""
    if document is None:
        return "stopped" if ended.stopped else "dead end"
    coverage = document.get("coverage") or {}
    layers = (document.get("layers") or {}).get("readings") or []
    fits = [one["fit"] for one in layers if one.get("fit")]
    if coverage.get("exact") or (layers and not fits) or document.get("classes"):
        return "exactly"
    if any(fit.get("seen") for fit in fits):
        return "seen"
    if fits:
        return "assumed"
    return "inventoried" if document.get("inventory") else "nothing"


def told_parameters(document: dict[str, Any] | None) -> int | None:
    """The number of parameters that the document tells."""
    if document is None:
        return None
    inventory = document.get("inventory") or {}
    coverage = document.get("coverage") or {}
    found = inventory.get("parameters", coverage.get("parameters"))
    return None if found is None else int(found)


def agrees(row: RealFile, told: int | None) -> bool | None:
    """Whether the number told is the one counted, with or without running statistics of norms.

    Tensors of one number may be left out.
    """
    if row.counts is None or told is None:
        return None
    most = row.counts.parameters
    ends = (most, most - row.counts.statistics)
    return any(end - row.counts.single <= told <= end for end in ends)


def read_share(document: dict[str, Any] | None) -> float | None:
    """The share of the parameters in layers that are read, exactly or not."""
    coverage = (document or {}).get("coverage")
    if not coverage or not coverage["parameters"]:
        return None
    return float((coverage["exact"] + coverage["approximate"]) / coverage["parameters"])


def result_of(row: RealFile, folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What became of a file."""
    ended, document = audit(folder / row.place)
    told = told_parameters(document)
    decision = (document or {}).get("decision") or {}
    readings = ((document or {}).get("layers") or {}).get("readings") or []
    found = {
        "package": f"{row.package}=={row.version}",
        "file": row.place,
        "format": row.format,
        "operations": row.operations,
        "mlp": row.mlp,
        "ended": how_it_ended(ended, document),
        "stopped": ended.stopped,
        "exit_code": ended.code,
        "message": "" if document else message(ended, folder),
        "answer": decision.get("answer", ""),
        "reasons": decision.get("reasons", []),
        "layers": len(readings),
        "read": read_share(document),
        "inventory": bool((document or {}).get("inventory")),
        "parameters": None if row.counts is None else row.counts.parameters,
        "told": told,
        "agrees": agrees(row, told),
        "seconds": round(ended.seconds, 1),
        "peak_mib": round(ended.peak_mib),
    }
    return found, document


# ---- changes


def headline_of(document: dict[str, Any] | None) -> dict[str, Any]:
    """Kind, differing tensors and rank of a difference; of an older record from its tensors."""
    whole = ((document or {}).get("difference") or {}).get("whole")
    if not whole:
        return {"kind": "none"}
    changed = [one for one in whole["changed"] if one["state"] != "rounding"]
    told = whole.get("headline")
    if told:
        ranks = told.get("ranks") or (None, None)
        return {"kind": told["kind"], "differing": told["differing"], "rank": ranks[1]}
    alone = len(whole["model_alone"]) + len(whole["baseline_alone"]) + len(whole["other_shape"])
    ranks = [one.get("rank") for one in changed]
    rank = max(ranks) if ranks and all(ranks) else None
    if whole["tensors"] == 0:
        return {"kind": "nothing"}
    kind = "differ" if changed or alone else "rounding" if whole["changed"] else "identical"
    return {"kind": kind, "differing": len(changed) + alone, "rank": rank}


def change_result(change: Change, folder: Path) -> dict[str, Any]:
    """What a comparison says, and whether it is right."""
    options = ("--baseline", str(folder / change.baseline), "--null-samples", "3")
    ended, document = audit(folder / change.model, *options)
    told = headline_of(document)
    right = told["kind"] in change.kinds
    if change.differing is not None and told["kind"] == "differ":
        right = right and told["differing"] == change.differing
    if change.rank is not None:
        right = right and told.get("rank") == change.rank
    return {
        "name": change.name,
        "baseline": change.baseline,
        "model": change.model,
        "expected": {"kinds": change.kinds, "differing": change.differing, "rank": change.rank},
        "told": told,
        "right": right,
        "message": "" if document else message(ended, folder),
        "answer": ((document or {}).get("decision") or {}).get("answer", ""),
        "seconds": round(ended.seconds, 1),
        "peak_mib": round(ended.peak_mib),
    }


# ---- all of it


def folder_result(folder: Path, rows: Iterable[RealFile]) -> dict[str, Any]:
    """Audit of a folder with a file of each format: which of them the answer names."""
    place = folder / "derived" / "mixed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    first = {row.format: row for row in reversed(list(rows)) if (folder / row.place).is_file()}
    small = [row for row in first.values() if (folder / row.place).stat().st_size < 2**23]
    for row in small:
        (place / row.place.replace("/", "-")).hardlink_to(folder / row.place)
    (place / "notes.txt").write_text("Nothing to do with a model.\n")
    ended = run_under_limits(
        ["-m", "bilens", "audit", str(place), "--json", "--allow-pickle"], SECONDS, MIB
    )
    said = ended.out + ended.err
    names = [one.name for one in sorted(place.iterdir())]
    return {
        "files": names,
        "omitted": [name for name in names if name not in said],
        "exit_code": ended.code,
        "seconds": round(ended.seconds, 1),
    }


def measure(folder: Path, only: str = "", parts: tuple[str, ...] = PARTS) -> dict[str, Any]:
    """Measure some parts of the page, each with what it was run with."""
    rows = listed_files()
    missing = fetch(rows, folder)
    make_inputs(folder)
    there = [row for row in rows if (folder / row.place).exists() and only in row.place]
    result: dict[str, Any] = {"runs": {}}
    documents: dict[str, dict[str, Any] | None] = {}
    if "files" in parts:
        result |= {"missing": missing, "limits": {"seconds": SECONDS, "mib": MIB}, "files": []}
        for row in there:
            found, documents[row.place] = result_of(row, folder)
            result["files"].append(found)
            print(row.place, found["ended"], found["answer"], f"{found['seconds']} s", flush=True)
    if "folder" in parts:
        result["folder"] = folder_result(folder, there)
    if "changes" in parts:
        result["changes"] = []
        for change in plant(folder):
            if only in change.model:
                result["changes"].append(change_result(change, folder))
                print(change.name, result["changes"][-1]["told"], flush=True)
    if "recorded" in parts:
        result["recorded"] = recorded_layers(folder, [one.place for one in there], documents)
    run = {**to_json(describe_run("make bench-real DATA=folder", 0)), "load": os.getloadavg()[0]}
    run["commit"] = subprocess.check_output(COMMIT, text=True).strip()  # noqa: S603 - of this checkout
    result["runs"] = dict.fromkeys(parts, run)
    return result


def recorded_layers(
    folder: Path, places: list[str], documents: dict[str, dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """Layers of files that inputs are known for; those that were not audited are, first."""
    from bench.recorded_layers import measure as measure_layers

    found = []
    for file in sorted(FEEDS.keys() & {*places}):
        document = documents[file] if file in documents else audit(folder / file)[1]
        seen = [] if document is None else measure_layers(folder, file, document)
        found += [one.as_json() for one in seen]
        print(file, len(seen), "layers recorded", flush=True)
    return found


def main() -> None:
    """Run the benchmark and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the files, or where they are put")
    parser.add_argument("--out", type=Path, help="of the JSON alone, instead of the page")
    parser.add_argument("--only", default="", help="part of the names of files")
    parser.add_argument(
        "--parts", nargs="*", default=PARTS, choices=PARTS, help="what is measured; others are kept"
    )
    given = parser.parse_args()
    known = PAGE / "real_models.json"
    result = measure(given.folder.absolute(), given.only, tuple(given.parts))
    if not given.out:
        kept = json.loads(known.read_text())
        result = kept | result | {"runs": kept["runs"] | result["runs"]}
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (given.out or known).write_text(text)
    if not given.out:
        write_parts(PAGE / "real_models.md", page(result))


if __name__ == "__main__":
    main()
