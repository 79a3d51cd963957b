"""How well the findings do on judged models: areas, shares, places, and with parts left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from bilens.findings import REFERENCE
from bilens_studies import finding_statistics as stats
from bilens_studies.finding_attacks import KINDS, PlantedAttack
from bilens_studies.study import Record, to_json

SHAPE = (28, 28)
WORKS = 0.5  # share of images of other classes that a working attack turns
CLEANSED = 2.0  # anomaly index above which Neural Cleanse raises an alarm
GOALS = 0.8  # share of classes whose goal has to be right for the set of an all-to-all trigger
FEW = 2000  # training images of an overfitted clean model
SETTING = ("seed", "num_training", "d_hidden", "noise", "residual")  # said of what was missed
FIRST_JUDGED = 1000  # seed
MOST = 0.08  # score up to which its error is told
FEWEST = 5  # models that a number is told of
STEP = 0.0005  # of the mean area: what another scan has to bring


def summarised(cells: Mapping[str, Record]) -> Record:
    """Return everything that the page says, from the raw readings."""
    fixing = split(cells, "fixing-")
    judged = split(cells, "judged-")
    rivals = split(cells, "rivals-")
    for (data, kind), models in judged.items():
        for model, rival in zip(models, rivals[data, kind], strict=True):
            model["rival"] = rival
    lines = [one for (_, kind), models in fixing.items() if kind in LINE for one in models]
    clean = quiet_of(fixing)
    derived = {
        "overfitting": stats.overfitting_reference(lines),
        "triggers": stats.trigger_reference(clean),
    }
    used = {name: to_json(getattr(REFERENCE, name)) for name in derived}
    datas = list(dict.fromkeys(data for data, _ in judged))
    attacked = attacked_of(judged)
    everything = [one for models in judged.values() for one in models]
    seconds = [one["seconds"] for one in everything if "seconds" in one]
    approximated = [one["r_squared"] for one in everything if "r_squared" in one]
    return {
        "reference": derived,
        "same_reference": derived == used,
        "models": {"fixing": sum(map(len, fixing.values())), "judged": len(everything)},
        "seconds": [float(np.median(seconds)), float(np.quantile(seconds, 0.95))],
        "r_squared": [float(q) for q in np.quantile(approximated or [1.0], [0, 0.5])],
        "overfitting": {data: overfitting_of(judged[data, "overfitting"]) for data in datas},
        "others": {
            f"{data}, {kind}": overfitting_of(models)
            for (data, kind), models in judged.items()
            if kind in OTHERS
        },
        "line_left_out": {
            data: left_out_line(others, judged[data, "overfitting"])
            for data in datas
            if (others := of_other_images(fixing, data))
        },
        "triggers": {data: triggers_of(judged, data, used["triggers"]) for data in attacked},
        "clean": {
            data if kind == "clean" else f"{data}, {kind}": alarms_of(
                judged[data, kind], used["triggers"]
            )
            for data, kind in judged
            if kind in QUIET
        },
        "kind_left_out": kinds_left_out(fixing, judged, attacked),
        "tables": cells["tables"]["tables"],
        "set_left_out": {
            data: set_left_out(others, judged, data)
            for data in attacked
            if (others := of_other_images(fixing, data))
        },
    }


OTHERS = ("varied", "corners")  # many images, other rates, dark on white; the paper's recipe
LINE = ("overfitting", "clean", *OTHERS)  # the models of the line
QUIET = ("clean", *OTHERS)  # models without a trigger, of whose statistics the tails are
Groups = dict[tuple[str, str], list[Record]]


def split(cells: Mapping[str, Record], start: str) -> Groups:
    """Return models by data set and kind; ordinary MLPs as if their images were a set apart."""
    found: Groups = {}
    for name, cell in cells.items():
        if name.startswith(start):
            data = next(one for one in DATA if name.removeprefix(start).startswith(one))
            kind = name.removeprefix(f"{start}{data}-")
            found[data, kind] = [dict(model) for model in cell["models"]]
    return found


MLPS = "-relu"  # ends the name of a data set as ordinary MLPs saw it
DATA = ("mnist-relu", "fashion-mnist-relu", "mnist", "fashion-mnist", "shapes", "letters")


def quiet_of(fixing: Groups) -> list[Record]:
    """Return the models whose statistics give the tails, which were fixed once."""
    models = (one for (_, kind), group in fixing.items() if kind in QUIET for one in group)
    return [one for one in models if one["seed"] < FIRST_JUDGED]


def kinds_of(groups: Groups, data: str) -> list[str]:
    return [kind for kind in KINDS if (data, kind) in groups]


def attacked_of(groups: Groups) -> list[str]:
    """Return the data sets in whose images triggers were planted."""
    return list(dict.fromkeys(data for data, kind in groups if kind in KINDS))


def overfitting_of(models: Sequence[Record]) -> Record:
    """Return how well the score ranks models by their gap, and how far off its points are."""
    reference = REFERENCE.overfitting
    inside = [one for one in models if not reference.is_outside(one["readings"])]
    scores = [reference.gap(one["readings"]) for one in inside]
    gaps = [one["gap"] for one in inside]
    told = [abs(s - g) for s, g in zip(scores, gaps, strict=True) if s <= MOST]
    bounds = [reference.interval(one["readings"]) for one in inside]
    covered = [low <= gap <= high for (low, high), gap in zip(bounds, gaps, strict=True)]
    large = [gap > reference.threshold for gap in gaps]
    flagged = [score > reference.threshold for score in scores]
    metrics = sorted(set.intersection(*(set(one["rival"]) for one in inside)))
    own = [one["residual"] for one in inside]
    residual = [[*compress(values, own)] for values in (scores, gaps)]
    small = [not one for one in large]
    sides = [*compress(scores, large)], [*compress(scores, small)]
    watched = {name: [one["rival"][name] for one in inside] for name in metrics}
    return {
        "models": len(models),
        "silent": len(models) - len(inside),
        "gaps": [float(q) for q in np.quantile([one["gap"] for one in models], [0, 0.5, 1])],
        "correlation": stats.correlation(scores, gaps),
        "residual": stats.correlation(*residual) if len(residual[0]) >= FEWEST else None,
        "area": stats.area(*sides) if min(map(len, sides)) >= FEWEST else None,
        "flagged": count(flagged, large),
        "false": count(flagged, small),
        "told": len(told),
        "error": float(np.mean(told)) if told else None,
        "covered": stats.share(covered),
        "watched": {name: stats.correlation(values, gaps) for name, values in watched.items()},
        "ahead": {name: stats.ahead(scores, values, gaps) for name, values in watched.items()},
    }


def of_other_images(fixing: Groups, data: str) -> Groups:
    """Return the models of other images."""
    own = data.removesuffix(MLPS)
    return {key: models for key, models in fixing.items() if key[0] != own}


def left_out_line(others: Groups, judged: Sequence[Record]) -> stats.Interval:
    """Return the rank correlation of a line that models of other images fixed."""
    models = [one for (_, kind), group in others.items() if kind in LINE for one in group]
    line, reference = stats.line_of(models)[3], REFERENCE.overfitting
    inside = [one for one in judged if not reference.is_outside(one["readings"])]
    _, design, target, _ = stats.line_of(inside)
    return stats.correlation((design @ line).tolist(), target.tolist())


def alarms_of(models: Sequence[Record], reference: Record) -> Record:
    """Return false alarms among clean models, the overfitted and the residual ones apart."""
    alarms = stats.are_alarms(models, reference)
    return {
        "models": len(models),
        "false": stats.share(alarms),
        "overfitted": count(alarms, [one["num_training"] <= FEW for one in models]),
        "residual": count(alarms, [one["residual"] for one in models]),
        "cleanse": cleansed(models),
    }


def cleansed(models: Sequence[Record]) -> stats.Interval | None:
    """Return how often Neural Cleanse raises an alarm, where it was asked."""
    asked = [one["rival"]["index"] > CLEANSED for one in models if "index" in one["rival"]]
    return stats.share(asked) if asked else None


def count(hits: Sequence[bool], which: Sequence[bool]) -> list[int]:
    return [sum(compress(hits, which)), sum(which)]


def triggers_of(judged: Groups, data: str, reference: Record) -> Record:
    """Return areas, shares found, classes and places of one data set, kind by kind."""
    clean = judged[data, "clean"]
    quiet = stats.scores_of(clean, reference)
    unsuspicious = [one["rival"]["index"] for one in clean if "index" in one["rival"]]
    kinds: Record = {}
    scores, missed = [], list[Record]()
    for kind in kinds_of(judged, data):
        models = working(judged[data, kind])
        if not models:
            continue
        scores.append(stats.scores_of(models, reference))
        found = stats.are_alarms(models, reference)
        hits = [*compress(models, found)]
        missed += compress(models, (not hit for hit in found))
        indices = [one["rival"].get("index") for one in models]
        placed = [one for one in hits if touched_by(one) is not None]
        kinds[kind] = {
            "tried": len(judged[data, kind]),
            "works": len(models),
            "area": stats.area(scores[-1], quiet),
            "found": stats.share(found),
            "class": [sum(map(names_class, hits)), len(hits)],
            "place": [sum(map(names_place, placed)), len(placed)],
            "cleanse": stats.area(indices, unsuspicious) if unsuspicious else None,
            "cleansed": cleansed(models),
        }
    total = sum(map(len, scores))
    kept = ("attack", "success", *SETTING)
    return {
        "kinds": kinds,
        "macro": stats.macro_area(scores, quiet),
        "found": [total - len(missed), total],
        "missed": [
            {name: one[name] for name in kept} | {"suspect": one.get("suspect")} for one in missed
        ],
    }


def working(models: Sequence[Record]) -> list[Record]:
    """Return the attacks that work; those on models that cannot be read are not found."""
    return [one for one in models if one["success"] > WORKS]


def touched_by(model: Record) -> Tensor | None:
    """Return where the planted trigger touches an image; None where it may be all over."""
    touched = PlantedAttack(**model["attack"]).mark(SHAPE).touched()
    return None if touched.double().mean() > 0.5 else touched


def names_class(model: Record) -> bool:
    """Return whether the class is right; of all-to-all triggers, the goals of the classes."""
    attack, suspect = PlantedAttack(**model["attack"]), model["suspect"]
    if not attack.is_of_all:
        return bool(suspect["target"] == attack.target)
    classes = len(suspect["goals"])
    right = attack.goal(torch.arange(classes), classes).tolist()
    same = sum(a == b for a, b in zip(suspect["goals"], right, strict=True))
    return bool(same >= GOALS * classes)


def names_place(model: Record) -> bool:
    """Return whether the box that is named holds a pixel of the trigger."""
    touched, box = touched_by(model), model["suspect"]["box"]
    if touched is None or box is None:
        return False
    row, column, rows, columns = box
    return bool(touched[row : row + rows, column : column + columns].any())


def readable(models: Sequence[Record]) -> list[Record]:
    return [one for one in models if not one["obstacle"]]


def kinds_left_out(fixing: Groups, judged: Groups, datas: Sequence[str]) -> Record:
    """Return areas of each kind where the scans were chosen by the other kinds alone."""
    clean = quiet_of(fixing)
    found: Record = {}
    kinds = [
        kind
        for kind in kinds_of(judged, datas[0])
        if all(working(judged[data, kind]) for data in datas)
    ]
    for kind in kinds:
        scans = chosen_scans(fixing, clean, [other for other in kinds if other != kind])
        reference = stats.trigger_reference(clean, scans)

        def area_on(data: str, kind: str = kind, reference: Record = reference) -> float:
            pair = (working(judged[data, kind]), judged[data, "clean"])
            return stats.area(*(stats.scores_of(models, reference) for models in pair))[0]

        found[kind] = {"scans": scans, "areas": [area_on(data) for data in datas]}
    return found


def chosen_scans(fixing: Groups, clean: Sequence[Record], kinds: Sequence[str]) -> list[str]:
    """Return scans, one by one the one that raises the mean area over kinds most."""
    fits = stats.trigger_reference(clean)["scans"]
    names = list(fits)
    datas = attacked_of(fixing)
    quiet = {data: stats.evidence_of(readable(fixing[data, "clean"]), fits) for data in datas}
    groups = ((data, readable(working(fixing[data, kind]))) for data in datas for kind in kinds)
    loud = [(data, stats.evidence_of(models, fits)) for data, models in groups if models]

    def quality(chosen: Sequence[int]) -> float:
        silent = {data: stats.largest_scores(one[:, chosen]) for data, one in quiet.items()}
        areas = [
            stats.area_under_roc(stats.largest_scores(one[:, chosen]), silent[data])
            for data, one in loud
        ]
        return float(np.mean(areas))

    chosen, best = list[int](), 0.0
    while len(chosen) < len(names):
        value, scan = max((quality([*chosen, n]), n) for n in range(len(names)) if n not in chosen)
        if value < best + STEP:
            break
        best = value
        chosen.append(scan)
    return [names[scan] for scan in chosen]


def set_left_out(others: Groups, judged: Groups, data: str) -> Record:
    """Count alarms where clean models of other data sets alone fixed the tails."""
    reference = stats.trigger_reference(quiet_of(others))
    attacks = [one for kind in kinds_of(judged, data) for one in working(judged[data, kind])]
    return {
        "found": stats.share(stats.are_alarms(attacks, reference)),
        "false": stats.share(stats.are_alarms(judged[data, "clean"], reference)),
    }
