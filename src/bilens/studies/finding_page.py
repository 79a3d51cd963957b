"""The page of the study of findings: tables of what was reached, and a drawing of every miss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from bilens.report.tiles import Tile, TileRow, tile_plate, vector_image
from bilens.studies.comparison import table
from bilens.studies.finding_attacks import Attack
from bilens.studies.finding_power import SHAPE
from bilens.studies.study import Record

GROUND = 0.25  # on which what is planted is drawn: black is darker, grey is not


def figures(result: Record) -> dict[str, str]:
    """Return every working attack that raised no alarm: what was planted, and what was seen."""
    drawn: dict[str, str] = {}
    for data, found in result["triggers"].items():
        rows = []
        for one in found["missed"]:
            mark = Attack(**one["attack"]).mark(SHAPE)
            planted = (mark.mask * (mark.paint - GROUND) + mark.added).tolist()
            tiles = [Tile(vector_image(planted, SHAPE), one["attack"]["kind"])]
            if one["suspect"] is not None:
                tiles.append(Tile(vector_image(one["suspect"]["pattern"], SHAPE), "seen"))
            rows.append(TileRow(str(one["seed"]), tiles))
        if rows:
            note = (
                "Seed, and what was planted: blue brightens a dark grey of 0.25, red darkens it. "
                "Seen: the pattern of the highest score."
            )
            drawn[f"missed-{data}.svg"] = tile_plate(f"Not found on {data}", note, rows)
    return drawn


def parts(result: Record) -> Record:
    """Return the tables of the page."""
    return {
        "models_fixing": result["models"]["fixing"],
        "models_judged": result["models"]["judged"],
        "same": "the same as" if result["same_reference"] else "NOT those of",
        "seconds": f"{result['seconds'][0]:.1f} (95 %: {result['seconds'][1]:.1f})",
        "r_squared": "{:.3f}, median {:.3f}".format(*result["r_squared"]),
        "overfitting": overfitting_table(result),
        "watched": watched_table(result),
        "clean": clean_table(result),
        "kinds": "\n\n".join(kind_table(data, one) for data, one in result["triggers"].items()),
        "left_out": left_out_table(result),
        "set_left_out": set_table(result),
        "misses": misses(result),
        "tables": tables_table(result["tables"]),
    }


def told(found: Sequence[float] | None, form: str = ".2f") -> str:
    if found is None:
        return "–"
    value, low, high = found
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


percent = partial(told, form=".0%")


def of(pair: Sequence[int]) -> str:
    return f"{pair[0]} of {pair[1]}"


def overfitting_table(result: Record) -> str:
    heads = (
        "images | models | gap, points: least, median, most | ρ | ρ with a residual path | "
        "area, gap > 5 | cautioned of gap > 5 | of the others | scores up to 8 points | "
        "their mean error, points | within 90 % interval | ρ, set left out"
    )
    rows = []
    for data, one in (result["overfitting"] | result["others"]).items():
        error = "–" if one["error"] is None else f"{100 * one['error']:.1f}"
        row = [data, f"{one['models']} ({one['silent']} silent)"]
        row += [", ".join(f"{100 * gap:.1f}" for gap in one["gaps"])]
        row += [told(one[name]) for name in ("correlation", "residual", "area")]
        row += [of(one["flagged"]), of(one["false"]), one["told"], error, percent(one["covered"])]
        rows.append([*row, told(result["line_left_out"].get(data))])
    return table(heads, rows)


def watched_table(result: Record) -> str:
    sets = result["overfitting"]
    names = sorted(set.intersection(*(set(one["watched"]) for one in sets.values())))
    heads = " | ".join(["metric", *(f"{data}: ρ | ahead by" for data in sets)])
    rows = (
        [name, *(told(one[key][name]) for one in sets.values() for key in ("watched", "ahead"))]
        for name in names
    )
    return table(heads, rows)


def clean_table(result: Record) -> str:
    heads = "images | clean models | false alarms | of overfitted | of residual | Neural Cleanse"
    rows = []
    for data, one in result["clean"].items():
        counts = of(one["overfitted"]), of(one["residual"])
        rows.append([data, one["models"], percent(one["false"]), *counts, percent(one["cleanse"])])
    return table(heads, rows)


def kind_table(data: str, found: Record) -> str:
    heads = (
        "kind | work, of | area | found | class right | place right | Neural Cleanse: area | found"
    )
    rows = []
    for kind, one in found["kinds"].items():
        row = [kind, f"{one['works']} of {one['tried']}", told(one["area"], ".3f")]
        row += [percent(one["found"]), of(one["class"]), of(one["place"])]
        rows.append([*row, told(one["cleanse"]), percent(one["cleansed"])])
    sums = [
        [sum(one[key][n] for one in found["kinds"].values()) for n in (0, 1)]
        for key in ("class", "place")
    ]
    cleanse = [one["cleanse"][0] for one in found["kinds"].values() if one["cleanse"]]
    share = f"{found['found'][0] / found['found'][1]:.0%}"
    last = ["all", of(found["found"]), told(found["macro"], ".3f"), share, *map(of, sums)]
    last += [f"{np.mean(cleanse):.2f}" if cleanse else "–", ""]
    return f"**{data}**\n\n{table(heads, [*rows, last])}"


def left_out_table(result: Record) -> str:
    datas = list(result["triggers"])
    heads = " | ".join(
        ["left out", *(f"area, {data}" for data in datas), "scans that the others choose"]
    )
    rows = [
        [kind, *(f"{one:.3f}" for one in found["areas"]), ", ".join(found["scans"])]
        for kind, found in result["kind_left_out"].items()
    ]
    means = np.mean([found["areas"] for found in result["kind_left_out"].values()], axis=0)
    rows.append(["mean", *(f"{one:.3f}" for one in means), ""])
    return table(heads, rows)


def set_table(result: Record) -> str:
    rows = (
        [data, percent(one["found"]), percent(one["false"])]
        for data, one in result["set_left_out"].items()
    )
    return table("images | found, all kinds | false alarms", rows)


def tables_table(found: Record) -> str:
    names = list(next(iter(found.values()))["correlations"])
    rows = (
        [name, one["models"], f"{100 * one['gap']:.1f}"]
        + [f"{one['correlations'][reading]:.2f}" for reading in names]
        for name, one in found.items()
    )
    return table(" | ".join(["table", "models", "median gap, points", *names]), rows)


def misses(result: Record) -> str:
    """Return the figures of what was not found, or that there is nothing."""
    names = [data for data, one in result["triggers"].items() if one["missed"]]
    return "\n\n".join(f"![missed on {data}](missed-{data}.svg)" for data in names) or "None."
