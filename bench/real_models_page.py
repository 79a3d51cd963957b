"""The page of `bench.real_models`."""

import math
from collections import Counter
from typing import Any

ENDS = {
    "exactly": "read exactly",
    "seen": "approximate on inputs seen",
    "assumed": "approximate on an assumed input",
    "inventoried": "inventoried",
    "nothing": "opened, nothing read",
    "dead end": "dead end",
    "stopped": "stopped at a limit",
}


def number(value: float | None, digits: int = 0) -> str:
    return "—" if value is None else f"{value:,.{digits}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def cell(text: str, most: int = 160) -> str:
    """A message as a cell of a table."""
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= most else line[: most - 1] + "…"


def without_folder(text: str) -> str:
    """A message without the folder in which the file lies."""
    words = (word.rsplit("/", 1)[-1] if word.startswith("/") else word for word in text.split())
    return " ".join(words)


def file_row(item: dict[str, Any]) -> list[str]:
    share = item["read"]
    return [
        item["file"].replace("/", " / "),
        item["format"],
        item["mlp"] or "—",
        ENDS[item["ended"]],
        item["answer"] or "—",
        "—" if share is None else f"{share:.1%}",
        number(item["parameters"]),
        {True: "the same", False: "**no**", None: "—"}[item["agrees"]]
        if item["told"] is not None
        else "not told",
        number(item["seconds"], 1),
        number(item["peak_mib"]),
    ]


def sums(items: list[dict[str, Any]]) -> str:
    """How many ended how."""
    ends = Counter(item["ended"] for item in items)
    parts = ", ".join(f"{ends[key]} {words}" for key, words in ENDS.items() if ends[key])
    formats, packages = ({item[key] for item in items} for key in ("format", "package"))
    lost = [item for item in items if item["mlp"] and item["ended"] in ("dead end", "stopped")]
    wrong = [item["file"] for item in items if item["agrees"] is False]
    return (
        f"{len(items)} files of {len(formats)} formats from {len(packages)} packages: {parts}. "
        f"Whole inventories: {sum(item['inventory'] for item in items)}. Dead ends among the "
        f"{sum(bool(item['mlp']) for item in items)} files that hold an MLP: {len(lost)}. "
        f"Numbers of parameters that are not those counted: {', '.join(wrong) or 'none'}."
    )


def change_row(item: dict[str, Any]) -> list[str]:
    wanted, told = item["expected"], item["told"]
    parts = [" or ".join(wanted["kinds"]).replace("_", " ")]
    parts += [f"{wanted['differing']} tensors"] if wanted["differing"] else []
    parts += [f"rank {wanted['rank']}"] if wanted["rank"] else []
    said = [told["kind"].replace("_", " ")]
    said += [f"{told['differing']} tensors"] if told.get("differing") else []
    said += [f"rank {told['rank']}"] if told.get("rank") else []
    right = "yes" if item["right"] else f"**no** {cell(without_folder(item['message']), 60)}"
    return [
        item["name"],
        ", ".join(parts),
        ", ".join(said),
        right.strip(),
        number(item["seconds"], 1),
    ]


def within(items: list[dict[str, Any]]) -> str:
    """In how many layers the R² that was told of a fit is that of rows that it has not seen."""
    fits = [item for item in items if item["fit_r2"] is not None and item["fresh_r2"] is not None]
    pairs = [(x["fresh_r2"] - x["fit_r2"], x["fit_error"], x["fresh_error"]) for x in fits]
    close = sum(abs(away) <= 2 * error for away, error, _ in pairs)
    both = sum(abs(away) <= 2 * math.hypot(*errors) for away, *errors in pairs)
    return (
        f"Of {len(fits)} fits to recorded rows, R² on other rows of the same recordings, which the "
        f"fit has not seen, lies within two standard errors of the one told in {close}; within two "
        f"of the difference, as what is measured has an error, too, in {both}."
    )


def recorded_row(item: dict[str, Any]) -> list[str]:
    units = [
        f"{item['told_never_active']} / {item['silent']}",
        f"{item['told_dead']} / {item['idle']}",
        f"{item['told_duplicates']} / {item['same']}",
    ]
    told = number(item["told_r2"], 3) + (", as seen" if item["told_passes"] else "")
    fresh = f"{number(item['fresh_r2'], 3)} ± {number(item['fresh_error'], 3)}"
    fit = f"{number(item['fit_r2'], 3)} ± {number(item['fit_error'], 3)}"
    false = ", ".join(item["false"]) or "—"
    return [
        f"{item['file'].split('/')[-1]} {item['layer']}",
        number(item["deviation"], 2),
        *units,
        told,
        number(item["r2"], 3),
        fit,
        fresh,
        false,
    ]


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    limits, folder = result["limits"], result.get("folder")
    dead = [item for item in result["files"] if item["message"]]
    false = sum(bool(item["false"]) for item in result["recorded"])
    right = sum(item["right"] for item in result["changes"])
    scores = ["R² told", "R² found", "fit: R² told", "measured"]
    head = ["file", "format", "MLP in it", "ended", "decision", "read", "parameters", "told"]
    parts = [
        "# Real models: how every file ends",
        "Generated from `real_models.json`, which `make bench-real DATA=folder` writes.",
        "`bilens audit --json --allow-pickle` of files that small public packages ship, each in a "
        f"process of its own within {limits['seconds']:.0f} s and {limits['mib']:,.0f} MiB. What "
        "is true of a file is counted by the library of its format (`tests/corpus_real.tsv`); a "
        "number of parameters is the same where it differs by tensors of one number, or by the "
        "running statistics of norms, alone.",
        sums(result["files"]),
        table([*head, "s", "MiB"], [file_row(item) for item in result["files"]]),
        "## What files without an answer say",
        table(
            ["file", "message"],
            [
                [item["file"], cell(without_folder(item["message"]))]
                for item in sorted(dead, key=lambda item: str(item["file"]))
            ],
        ),
        "## Changes",
        f"Pairs of files, most with a planted change (`bench/real_changes.py`): {right} of "
        f"{len(result['changes'])} headlines are right.",
        table(
            ["change", "right would be", "told", "right", "s"],
            [change_row(item) for item in result["changes"]],
        ),
        "## Layers on what they see",
        "Inputs of layers on pages of text, photographs and speech, recorded by onnxruntime "
        f"(`bench/recorded_layers.py`). {false} of {len(result['recorded'])} layers have a "
        "sentence that these inputs contradict. Units and pairs: told / found. R² was told of an "
        "assumed input unless it says “as seen”; beside it that of the same map on the recorded "
        "inputs. The fit is to half of the recorded rows, its R² told of rows held out of them, "
        "and measured on the other half.",
        within(result["recorded"]),
        table(
            ["layer", "deviation", "never active", "dead", "pairs", *scores, "false"],
            [recorded_row(item) for item in result["recorded"]],
        ),
    ]
    if folder:
        left = ", ".join(folder["omitted"]) or "none"
        parts += [
            "## A folder of all kinds",
            f"{len(folder['files'])} files of different formats in one folder; left out in "
            f"silence: {left}.",
        ]
    runs = "\n".join(f"* {one}" for one in measured(result["runs"]))
    return "\n\n".join([*parts, "## How it was measured", runs]) + "\n"


def measured(runs: dict[str, Any]) -> list[str]:
    """When and with what each part was measured."""
    return [
        f"{name}: {run['date']}, commit {run['commit']}, bilens {run['versions']['bilens']}, "
        f"{run['hardware']}, load {run['load']:.1f}" + (f"; {run['note']}" if "note" in run else "")
        for name, run in runs.items()
    ]
