"""Whether some pattern raises one class far more than places, classes and clean models explain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.findings.leads import Leads
from bilens.findings.reference import POWER, TRIGGERS
from bilens.findings.scans import Scan, scan
from bilens.findings.subject import drawn
from bilens.records.image_warnings import ScanReading, Trigger, Triggers

FEWEST_PIXELS = 14  # rows and columns, below which squares have too few places
FEWEST, MOST = 4, 64  # classes: fewer are no null for each other, more take long
SHOWN = 3  # classes whose pattern is kept
TWINS = 0.1  # of the median distance of two classes: nearer ones are no null for each other
LOCAL = 0.05  # p-value of a scan at one place, above which a pattern is said to be all over
MOST_EVIDENCE = 25.0  # −ln p of one scan: beyond it a fitted tail says nothing


@dataclass(frozen=True, eq=False)
class TriggerEvidence:
    """The evidence of all scans for each class, in −ln p against clean reference models."""

    scans: tuple[Scan, ...]
    each: Tensor  # (scans, classes)
    score: Tensor  # (classes,)


def evidence_of(leads: Leads) -> TriggerEvidence:
    """Return the evidence of all scans, and its combination.

    The score of a class is maxₛ eₛ + w Σₛ eₛ, with eₛ = −ln pₛ: one scan is enough, several count
    for more. What such a score is worth is read off the largest ones of clean reference models.
    """
    found = tuple(scan(leads))
    each = torch.stack([TRIGGERS.scans[one.name].evidence(one.statistic) for one in found])
    each = each.clamp(max=MOST_EVIDENCE)
    return TriggerEvidence(found, each, each.amax(dim=0) + TRIGGERS.weight * each.sum(dim=0))


def read_triggers(leads: Leads) -> Triggers:
    """Return how far any pattern stands out, and the patterns of the classes that do most."""
    if reason := obstacle(leads):
        return Triggers(None, None, None, (), (), reason)
    evidence = evidence_of(leads)
    if not all(bool(one.statistic.isfinite().all()) for one in evidence.scans):
        return Triggers(None, None, None, (), (), "flat")
    score = evidence.score.max()
    readings = tuple(
        ScanReading(
            name=one.name,
            target=int(row.argmax()),
            statistic=float(one.statistic.max()),
            p_value=math.exp(-float(row.max())),
        )
        for one, row in zip(evidence.scans, evidence.each, strict=True)
    )
    order = evidence.score.argsort(descending=True)[:SHOWN].tolist()
    suspects = tuple(suspect(leads, evidence, target) for target in order)
    p_value, level = math.exp(-float(TRIGGERS.combined.evidence(score))), TRIGGERS.level
    return Triggers(float(score), p_value, level, readings, suspects, "", power=POWER.triggers)


def obstacle(leads: Leads) -> str:
    """Return why nothing can be compared, one of the reasons of `Triggers`, or nothing."""
    if min(leads.shape) == 1:
        return "not_an_image"
    if min(leads.shape) < FEWEST_PIXELS:
        return "too_small"
    if not FEWEST <= len(leads.templates) <= MOST:
        return "classes"
    apart = torch.pdist(leads.slopes.transpose(0, 1).flatten(1))
    known = bool(leads.templates.any(dim=1).all()) and float(leads.needs.amin()) > 0
    if not known or not float(apart.amin()) > TWINS * float(apart.median()):
        return "flat"
    return ""


def suspect(leads: Leads, evidence: TriggerEvidence, target: int) -> Trigger:
    """Return the pattern that speaks most for a class: at a place, where a scan of places does."""
    strength = evidence.each[:, target]
    placed = torch.tensor([one.boxes is not None for one in evidence.scans])
    local = strength.masked_fill(~placed, -math.inf)
    is_local = float(local.max()) > -math.log(LOCAL)
    found = evidence.scans[int((local if is_local else strength).argmax())]
    pattern, box = found.patterns[target], None
    if found.boxes is not None:
        row, column, rows, columns = found.boxes[target].tolist()
        box = row, column, rows, columns
    gains = leads.gains(pattern)  # (sources, classes)
    mine = leads.is_rival[:, target]
    gained = gains[mine, target]
    return Trigger(
        target=target,
        score=float(evidence.score[target]),
        scan=evidence.scans[int(strength.argmax())].name,
        box=box,
        pattern=drawn(pattern),
        gain=float(gained.mean()),
        won=leads.turned(pattern, target),
        sources=len(gained),
        goals=tuple(
            (gains / leads.needs).masked_fill(~leads.is_rival, -math.inf).argmax(dim=1).tolist()
        ),
    )
