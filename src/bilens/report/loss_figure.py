"""The loss of a run, step by step, as a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bilens.report.catalogue import load_catalogue
from bilens.report.line_figure import Curve, line_figure


def loss_figure(lines: Sequence[Mapping[str, Any]], lang: str = "en") -> str:
    """Return an SVG file with the training and the held-out loss of a language model.

    Args:
        lines: of the history of the run, at least one.
        lang: language of the words.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t = load_catalogue(lang)
    curves = [
        Curve(
            t(f"loss.{name}"), tuple((line["step"], line[f"{name}_loss"]) for line in lines), dashed
        )
        for name, dashed in (("held_out", False), ("train", True))
    ]
    best = min(line["held_out_loss"] for line in lines)
    return line_figure(
        t("loss.title"),
        t("loss.step"),
        t("loss.nats"),
        curves,
        description=t("loss.text", best=f"{best:.4f}", step=f"{lines[-1]['step']:,}"),
    )
