"""How close quadratic maps come, on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bilens.cli.tables.cells import plain

ABOUT = (
    "R² is 1 − E‖y − f(x)‖² / E‖y − E y‖², ± its standard error; of the affine part of the map, of "
    "all of it, and of it with output weights refitted, on rows held out."
)


def fit_table(document: dict[str, Any]) -> Table:
    """Return a row for the whole and for each layer."""
    table = Table(title="The closest quadratic map", caption=ABOUT, show_edge=False, pad_edge=False)
    table.add_column("of", overflow="fold", min_width=15)
    for name in ("linear", "quadratic", "on data:\nlinear", "\nquadratic", "\nrefitted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"\n≥ {document['fits'][0]['threshold']:g}", no_wrap=True)
    for fit in document["fits"]:
        on_data, refit = fit["on_data"], fit["least_squares"]
        table.add_row(
            f"{plain(fit['name'])}\n{kind(fit)}",
            r_squared(fit["assumed"]["linear"]),
            r_squared(fit["assumed"]["quadratic"]),
            "—" if on_data is None else r_squared(on_data["linear"]),
            "—" if on_data is None else r_squared(on_data["quadratic"]),
            "—" if refit is None else r_squared(refit["held_out"]),
            "yes" if fit["usable"] else "no",
        )
    return table


def kind(fit: dict[str, Any]) -> str:
    """Return what was fitted, in few words."""
    if fit["activation"] is None:
        return "end to end"
    sizes = f"{fit['d_in']} → {fit['d_hidden']} → {fit['d_out']}"
    return f"{'gated' if fit['gated'] else 'ordinary'} {plain(fit['activation'])}\n{sizes}"


def r_squared(score: dict[str, float | None]) -> str:
    """Return R² with its standard error."""
    value, error = score["value"], score["standard_error"]
    return "none" if value is None or error is None else f"{value:.4f}\n± {error:.4f}"


def fit_lines(document: dict[str, Any]) -> list[str]:
    """Return what each row assumes, and which maps make no claim, as plain text."""
    lines = [
        f"{fit['name']}: {fit['derivation']}; under {fit['assumed_input']}."
        + (
            f" Output weights by least squares on {fit['least_squares']['rows_fitted']:,} rows, "
            f"judged on {fit['least_squares']['rows_held_out']:,} others."
            if fit["least_squares"] is not None
            else ""
        )
        for fit in document["fits"]
    ]
    refused = [fit["name"] for fit in document["fits"] if not fit["usable"]]
    if refused:
        lines.append(
            f"No claim about {', '.join(refused)} can be made by the map: it explains less than "
            f"{document['fits'][0]['threshold']:g}."
        )
    return lines
