"""Rules on what changed since a baseline: tensors, files, ranks, words that switch an answer."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from bilens.findings.rules.layers import ALL, LAYERS
from bilens.findings.rules.rule import OPEN, Evidence, Rule, Values, formats, list_names, rule
from bilens.records.tensor_changes import GraphChange, WholeDifference

HEADLINES: Final = {
    **dict.fromkeys(("same_tensors", "same_numbers"), "same"),
    **dict.fromkeys(("rounded", "baseline_rounded", "rounding", "quantised", "folded"), "rounding"),
    **{kind: kind for kind in ("identical", "unrelated", "not_compared")},
}

# States of a matrix whose change was not taken apart, so that a low rank in it is not seen.
NO_RANK: Final = ("not_finite", "quantised", "codes", "moved", "reordered", "permuted")


def kind_of_change(found: WholeDifference) -> str:
    """Return how a file differs from its baseline.

    `identical`, of the `same` numbers, but for `rounding`, by a `low_rank`, `changed` otherwise,
    `unrelated` or `not_compared`; `not_placed` if places, or all that is computed, were not
    compared. Where operations are others, nothing less is `changed`.
    """
    if (head := found.headline) is None:  # of an older document
        return "changed"
    kind = HEADLINES.get(head.kind, "low_rank" if head.ranks else "changed")
    other = bool(found.other_weights) or (head.graph is not None and head.graph.is_other)
    if other and kind not in ("unrelated", "not_compared"):
        return "changed"
    return "not_placed" if kind in ("identical", "same", "rounding") and open_end(found) else kind


def open_end(found: WholeDifference) -> str:
    """Name the reason why two models with the same tensors may differ; empty without one."""
    if found.other_weights or (head := found.headline) is None:
        return "files" if found.other_weights else ""
    if head.graph is not None and head.graph.is_other:
        return "program"
    if head.graph == GraphChange(()):
        return "unread"
    places = head.unplaced or head.graph == GraphChange()
    return "places" if places else "unseen" if found.unseen else ""


whole = partial(Rule, readings=ALL, group="use", bad=">", needs="baseline")
CHANGED: Final = formats("value threshold", "whole", of="count")


@rule(
    whole,
    values={**CHANGED, "alone": "count", "change": "quantity", "kinds": "kinds"},
    variant=lambda values: (
        f"_{values[OPEN]}"
        if OPEN in values
        else {values["value"]: "_only", 0: ""}.get(values["alone"], "_alone")
    ),
)
def changed_tensors(evidence: Evidence) -> Iterator[Values]:
    found = evidence.whole_change
    if found and (kind := kind_of_change(found)) != "not_compared":
        more = len(found.model_alone + found.baseline_alone)
        alone = (found.headline.alone if found.headline else more) + len(found.other_shape)
        if not found.tensors + alone + len(found.other_weights):
            return
        why, outcome = open_end(found), {}
        if why in ("files", "program", "unread") or kind == "not_placed":
            outcome = {"outcome": "info" if why in ("places", "unseen") else "warn", OPEN: why}
        elif found.changed and kind in ("rounding", "same"):
            outcome = {"outcome": "info"}
        yield {
            "value": len(found.changed) + alone,
            "of": found.tensors + alone,
            "alone": alone,
            "change": max((one.change or 0.0 for one in found.changed), default=0.0),
            "kinds": ", ".join(dict.fromkeys(one.kind for one in found.changed)) or "other",
            **outcome,
        }


@rule(
    whole,
    values={**CHANGED, "files": "text"},
    rank=5,
    variant=lambda values: f"_{values[OPEN]}" if OPEN in values else "",
)
def changed_files(evidence: Evidence) -> Iterator[Values]:
    if (found := evidence.whole_change) and found.files:
        names = [file.name for file in found.files if file.state != "same"]
        is_open = found.unseen and not names
        yield {
            "value": len(names),
            "of": len(found.files),
            "files": list_names(names),
            **({"outcome": "info", OPEN: "unseen"} if is_open else {}),
        }


@rule(
    whole,
    group="model",
    rank=4,
    values={**CHANGED, "ranks": "text", "matrices": "text"},
    variant=lambda v: f"_{v[OPEN]}" if OPEN in v else "" if v["of"] else "_none",
)
def low_rank_change(evidence: Evidence) -> Iterator[Values]:
    if (found := evidence.whole_change) and found.tensors:
        low = [one for one in found.changed if one.state == "low_rank"]
        ranks = sorted({one.rank or 0 for one in low})
        head = found.headline
        unread = head and any(head.unread) and head.kind not in ("identical", "same_tensors")
        hidden = [one.name for one in found.changed if one.full and one.state in NO_RANK]
        alone = () if head and not head.alone else found.model_alone + found.baseline_alone
        hidden += found.other_shape + alone
        why_not = {"files": found.other_weights, "unread": unread, "hidden": hidden}
        open_for = next((why for why, holds in why_not.items() if holds), "")
        yield {
            "value": len(low),
            "of": sum(one.full > 0 and one.state not in NO_RANK for one in found.changed),
            "ranks": "–".join(map(str, dict.fromkeys([*ranks[:1], *ranks[-1:]]))),
            "matrices": list_names([one.name for one in low] or hidden),
            **({"outcome": "info", OPEN: open_for} if open_for and not low else {}),
        }


@rule(
    whole,
    readings=LAYERS,
    group="model",
    beyond="info",  # it met few of the triggers that judged it
    values=formats("value threshold", "fixed2", words="text", answer="text", tried="whole")
    | {"known": "whole"},
    threshold=0.55,  # nats; fixed before the judged models of bench/adapters were trained
)
def trigger_words(evidence: Evidence) -> Iterator[Values]:
    """Judge words that were tried in a changed language model."""
    if found := evidence.trial:
        first = found.candidates[0]
        yield {
            "value": found.score,
            "words": first.phrase,
            "answer": first.answer.strip(),
            "tried": found.tried,
            "known": found.known,
        }
