"""The parts of a trace that are about the whole layer: sizes, autoencoders, ranking, agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.charts.traces import KINDS, MEDIAN, by_rank, histogram, series
from bilens.report.document import Document
from bilens.report.numbers import (
    fixed,
    percent,
    quantity,
    scientific,
    signed,
    signed_quantity,
    whole,
)
from bilens.report.plot import swatch
from bilens.report.svg import Figure
from bilens.report.token_text import latent_name, token_name

MOST_RANKED = 25  # rows; the document has them all
SHOWN_RANK = 2  # eigenvectors, the paper's choice
MOST_CLUSTERS, MOST_MEMBERS = 10, 20


@dataclass(frozen=True)
class RankedRow:
    """One output latent of the ranking."""

    place: str
    anchor: str  # of its circuit, or nothing
    name: str
    cells: list[str]


@dataclass(frozen=True)
class Agreement:
    """What the section on correlations prints."""

    legend: list[tuple[Markup, str]]
    charts: list[tuple[str, Figure]]
    columns: list[str]
    rows: list[list[str]]
    note: str


def trace_facts(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return the sizes of the model and what was read, for the head of the page."""
    model, data = document["model"], document["data"]
    pairs = [
        ("trace.facts.layer", document["layer"]["name"]),
        ("trace.facts.width", whole(model["d_model"])),
        ("facts.hidden", whole(model["d_hidden"])),
        (
            "trace.facts.blocks",
            t("trace.facts.blocks_value", blocks=model["n_layer"], heads=model["n_head"]),
        ),
        ("trace.facts.vocabulary", whole(model["vocab_size"])),
        ("trace.facts.context", whole(model["n_ctx"])),
        (
            "facts.parameters",
            t(
                "facts.parameters_value",
                count=whole(model["num_parameters"]),
                dtype=model["dtype"],
            ),
        ),
        (
            "trace.facts.text",
            t("trace.facts.no_text")
            if data is None
            else t(
                "trace.facts.text_value",
                name=data["name"] or t("trace.facts.unnamed"),
                count=whole(data["num_tokens"]),
            ),
        ),
    ]
    return [(t(key), value) for key, value in pairs]


def exactness(t: Catalogue, document: Document) -> str:
    """Return how far the map and the model's own MLP are apart."""
    found = document["exactness"]
    return t(
        "trace.layer.exact",
        error=scientific(found["largest_error"]),
        scale=quantity(found["scale"]),
        count=whole(found["num_inputs"]),
    )


def sae_rows(t: Catalogue, document: Document) -> list[tuple[str, list[str]]]:
    """Return one row for each number of the autoencoders, with a value for each of them."""

    def loss(value: float) -> str:
        return fixed(value, 4)

    def share(value: float | None) -> str:
        return t("trace.undefined") if value is None else percent(value)

    rows = [("latents", [whole(sae["num_latents"]) for sae in document["saes"]])]
    rows.append(("k", [whole(sae["k"]) for sae in document["saes"]]))
    rows.append(("sign", [t(f"trace.sae.{sae['sign']}") for sae in document["saes"]]))
    shown = {
        "nmse": lambda value: fixed(value, 3),
        "fvu": lambda value: fixed(value, 3),
        "l0": lambda value: fixed(value, 1),
        "dead": share,
        "loss": loss,
        "loss_patched": loss,
        "loss_added": lambda value: signed(value, 4),
        "loss_zero": loss,
        "loss_mean": loss,
        "recovered_from_zero": share,
        "recovered_from_mean": share,
    }
    for key, show in shown.items():
        rows.append((key, [show(sae["metrics"][key]) for sae in document["saes"]]))
    return [(t(f"trace.sae.{key}"), values) for key, values in rows]


def ranking_rows(t: Catalogue, document: Document) -> list[RankedRow]:
    """Return the leading output latents of the ranking."""
    drawn = {circuit["latent"] for circuit in document["circuits"]}
    names, rows = output_names(document), []
    for place, item in enumerate(document["ranking"][:MOST_RANKED], start=1):
        correlation = item["correlation_active"]
        rows.append(
            RankedRow(
                place=whole(place),
                anchor=circuit_anchor(item["latent"]) if item["latent"] in drawn else "",
                name=names[item["latent"]],
                cells=[
                    fixed(item["score"], 3),
                    percent(item["pair_share"]),
                    fixed(item["sign_contrast"], 2),
                    percent(item["interaction_share"]),
                    signed_quantity(item["positive"]),
                    signed_quantity(item["negative"]),
                    t("trace.undefined") if correlation is None else fixed(correlation, 2),
                    percent(item["density"], 2),
                ],
            )
        )
    return rows


def output_names(document: Document) -> dict[int, str]:
    """Return each output latent's number with the token at which it is strongest.

    Of a latent that is drawn, that is the most frequent one among its contexts.
    """
    names = {
        item["latent"]: f"{item['latent']} {token_name(item['peak'])}"
        if item["peak"] is not None
        else str(item["latent"])
        for item in document["ranking"]
    }
    drawn = (circuit["output"] for circuit in document["circuits"])
    return names | {item["latent"]: latent_name(item) for item in drawn}


def circuit_anchor(latent: int) -> str:
    """Return the anchor of the card of an output latent."""
    return f"circuit-{latent}"


def cluster_lines(t: Catalogue, document: Document) -> list[str]:
    """Return the largest groups of output latents that compute nearly the same."""
    lines = []
    for group in document["clusters"][:MOST_CLUSTERS]:
        names = t("list.comma").join(str(latent) for latent in group[:MOST_MEMBERS])
        more = len(group) - MOST_MEMBERS
        lines.append(names if more <= 0 else t("trace.cluster_more", list=names, count=whole(more)))
    return lines


def agreement(t: Catalogue, document: Document) -> Agreement:
    """Return the two drawings of correlations and the numbers behind them."""
    found = document["correlations"]
    ranks = found["ranks"]
    shown = next((rank for rank in ranks if rank["rank"] == SHOWN_RANK), ranks[-1])
    names = {kind: t(f"trace.agreement.{kind}") for kind in KINDS}
    medians = t("list.comma").join(
        t("trace.agreement.median", name=names[kind], value=median(t, shown[kind]))
        for kind in KINDS
    )
    number = whole(shown["rank"])
    first, second = t("trace.agreement.by_rank"), t("trace.agreement.histogram", k=number)
    return Agreement(
        legend=[(swatch(series(kind)), names[kind]) for kind in KINDS],
        charts=[
            (
                first,
                by_rank(
                    first,
                    t("trace.agreement.text", k=number, list=medians),
                    (t("trace.agreement.k"), t("trace.agreement.correlation")),
                    [rank["rank"] for rank in ranks],
                    {kind: [rank[kind]["values"] for rank in ranks] for kind in KINDS},
                ),
            ),
            (
                second,
                histogram(
                    second,
                    t("trace.agreement.text", k=number, list=medians),
                    (t("trace.agreement.correlation"), t("trace.agreement.count")),
                    found["edges"],
                    {kind: shown[kind]["counts"] for kind in KINDS},
                ),
            ),
        ],
        columns=[t("trace.agreement.k"), *names.values()],
        rows=[
            [whole(rank["rank"]), *(middle_half(t, rank[kind]) for kind in KINDS)] for rank in ranks
        ],
        note=t(
            "trace.agreement.note",
            count=whole(found["num_latents"]),
            active=whole(found["num_latents_active"]),
            samples=whole(found["num_random"]),
        ),
    )


def median(t: Catalogue, part: dict[str, Any]) -> str:
    """Return the median of a distribution."""
    return fixed(part["values"][MEDIAN], 2) if part["values"] else t("trace.undefined")


def middle_half(t: Catalogue, part: dict[str, Any]) -> str:
    """Return median and quartiles of a distribution."""
    if not part["values"]:
        return t("trace.undefined")
    low, middle, high = (fixed(value, 2) for value in part["values"][1:4])
    return t("trace.agreement.cell", median=middle, low=low, high=high)
