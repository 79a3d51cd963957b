"""Audit documents for tests: small, seeded, with every sum in them exact."""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bilens.api.provenance import read_beside
from bilens.base.files import file_sha256
from bilens.findings.reference import OVERFITTING, TRIGGERS
from bilens.records import (
    class_readings as a,
    common as c,
    given_inputs as i,
    guarantees as g,
    image_warnings as w,
)
from bilens.records.audit import Audit
from bilens.records.base import kind_of, to_json
from bilens.records.common import Identity
from bilens.records.decision import Coverage, CoverageGroup
from bilens.records.performance import Classification, ClassPerformance, Performance, ReliabilityBin
from bilens.report.reports import (
    AttackReport,
    AuditReport,
    CertificateReport,
    ConversionReport,
    NetworkReport,
    SweepReport,
    TraceReport,
)

KINDS = (
    *(AttackReport, AuditReport, CertificateReport, ConversionReport),
    *(NetworkReport, SweepReport, TraceReport),
)
SHOWN = 4  # eigenvectors of each sign, and contributions of each class
CHANCE = c.NullInterval(0.25, 0.125, 0.5)
LEARNT = {"rank": 0.3, "low": 0.1, "high": 0.6, "threshold": 0.6, "found": 0.8, "false_alarms": 0.1}
TRIGGER = {
    "p_value": 0.4,
    "threshold": 0.03,
    "target": "0",
    "row": 1,
    "column": 2,
    "rows": 3,
    "columns": 3,
    "won": 1,
    "sources": 2,
    "found": 0.93,
    "false_alarms": 0.043,
}

GAP = {"gap": 0.0625, "train": 0.975, "high": 0.9125, "threshold": 0.05}


def make_document(
    classes: int = 3,
    shape: tuple[int, int] = (6, 6),
    *,
    data: bool = True,
    names: list[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return a document as an audit of at least 2 classes would write it.

    One row stands for inputs that are no images; without `data` no test data were given.
    """
    rng, width = random.Random(seed), shape[0] * shape[1]
    names = names or [str(index) for index in range(classes)]
    readings = tuple(make_reading(rng, index, name, width) for index, name in enumerate(names))
    kinds = (("typical", 0, 0), ("narrow", 1, 1), ("wrong", 1, 0)) if data else ()
    curve = make_curve(width) if data else ()
    recipe = {"recipe": '{"epochs": 2, "augmentations": ["shift:1"]}', "seed": "1"}
    digits = "5,000 real digits, every fifth held out"
    versions = {"bilens": "0.1.0", "python": "3.11.7"}
    sizes = c.ModelSummary(
        "BilinearClassifier",
        *(width, 8, len(names), False, False, 1234, "float32", shape, False, tuple(names)),
    )
    record = Audit(
        read_as="classes",
        passed=True,
        model=c.ModelFacts(num_layers=1, **sizes.fields()),
        exactness=(
            c.Exactness("float32", 2.7e-6, 2.7e-7, 1e-5, 1000, True),
            c.Exactness("float64", 8.2e-15, 8.2e-16, 1e-12, 1000, True),
        ),
        performance=answered(names) if data else None,
        classes=a.ClassReadings(
            readings, curve, tuple(make_explanation(rng, readings, width, *kind) for kind in kinds)
        ),
        verdict=make_verdict(classes, data=data),
        guarantees=make_guarantees(width, len(names)),
        overfitting=make_overfitting(image=shape[0] > 1),
        triggers=make_triggers(shape, len(names)),
        coverage=make_coverage(),
        null_samples=99,
        seed=0,
        source=c.Source("runs/tiny", "a" * 64, recipe),
        data=c.DataOrigin("mnist", digits, "embedded", 10, "b" * 64) if data else None,
        reproduce=c.Run(
            *("bilens audit runs/tiny", 0, versions, "a processor, 2 threads", "2026-01-02"),
            Identity("a" * 64),
        ),
    )
    return to_json(record)


def answered(names: Sequence[str], right: int = 9, total: int = 10, **more: Any) -> Performance:
    """What the answers to some rows are worth."""
    share = c.Share(right, total, right / total, 0.555, 0.9975, **more)
    classes = tuple(ClassPerformance(name, None, share, 0.9, 0.9) for name in names)
    bins = (ReliabilityBin(0.8, share),)
    answers = Classification(share, classes, (), 0.05, 0.04, 0.2, bins, (), ())
    return Performance(total, tuple(names), None, answers, None, (), (), ())


def make_coverage(groups: int = 1, reason: str = "", **more: Any) -> Coverage:
    """All of a model read, or `groups` of its tensors left out for a reason."""
    read = 30 if reason else 40
    parts = [CoverageGroup(f"part.{n}", 1 + n, 100, 60, read, reason) for n in range(groups)]
    exact, rest = 60 * groups, read * groups
    unread = 100 * groups - exact - rest
    known = {"layout": "known", "checked_against": "its forward pass", "error": 1e-7}
    known |= {"connected": True, **more}
    return Coverage(100 * groups, exact, rest, unread, tuple(parts), **known)


def coverage_endings() -> list[dict[str, Any]]:
    """The rules on coverage in each outcome."""
    shares = {"exact": 0.5, "approximate": 0.25, "threshold": 0.9}
    found = [("coverage", "warn", {"value": 0.75, "unread": 25, **shares})]
    found += [("coverage", "pass", {"value": 1.0, "unread": unread, **shares}) for unread in (0, 1)]
    found += [
        (
            "layout",
            "warn" if unverified else "pass",
            {"unverified": unverified, "source": source, "threshold": 0},
        )
        for unverified, source in ((1, "guessed"), (1, "said"), (1, "known"), (0, "the module"))
    ]
    found += [("coverage", "warn", {"value": 0.75, "unread": 25, "open": "files", **shares})]
    return [{"rule": rule, "outcome": end, "values": values} for rule, end, values in found]


def make_overfitting(*, image: bool) -> w.Overfitting:
    """The readings of images; inputs in a row have none."""
    if not image:
        return w.Overfitting(None, None, None, None, None, (), "not_an_image")
    parts = tuple(w.OverfittingPart(name, 0.375, 0.25, 0.5) for name in OVERFITTING.weights)
    power = w.OverfittingPower(0.9, 0.02, 0.8, 0.1, 260, 0.35)
    return w.Overfitting(0.012, 0.0, 0.03, 0.2, 0.6, parts, "", 0.1, 0.5, power)


def make_triggers(shape: tuple[int, int], classes: int) -> w.Triggers:
    """Two suspects, one at a place and one all over, where images are large enough."""
    if min(shape) <= 5:
        reason = "too_small" if shape[0] > 1 else "not_an_image"
        return w.Triggers(None, None, None, (), (), reason)
    pattern = tuple(float(pixel % 3 - 1) for pixel in range(math.prod(shape)))
    scans = tuple(
        w.ScanReading(name, n % classes, 0.5 * n, 1 / (n + 1))
        for n, name in enumerate(TRIGGERS.scans)
    )
    goals, sources = tuple((n + 1) % classes for n in range(classes)), classes - 1
    suspects = (
        w.Trigger(0, 3.25, "bright_3", (1, 2, 3, 3), pattern, 4.5, 1, sources, goals),
        w.Trigger(1, 2.5, "reach", None, pattern, 2.25, 0, sources, (1,) * classes),
    )
    return w.Triggers(3.25, 0.4, 0.03, scans, suspects, "", w.TriggerPower(0.93, 0.043, 140, 0.75))


def make_guarantees(width: int, classes: int) -> g.Guarantees:
    """What is proven from the weights alone."""
    each = range(classes)
    point = g.TruncationGuarantee(1, (0.7,) * classes, (True,) * classes, None, None, None, None)
    return g.Guarantees(
        box=g.Box(0.0, 1.0),
        l2=None,
        linf=None,
        truncation=g.TruncationGuarantees(math.sqrt(width), "box", 0.99, None, "none", (point,)),
        input_use=g.InputUse((), 0, tuple(g.Influence(index, 0, 1.25, 1.0) for index in each)),
        stability=(),
    )


def make_vector(rng: random.Random, width: int) -> tuple[float, ...]:
    """A random direction whose largest component is positive."""
    vector = [rng.gauss(0, 1) for _ in range(width)]
    length = math.copysign(math.hypot(*vector), max(vector, key=abs))
    return tuple(round(x / length, 5) for x in vector)


def make_reading(rng: random.Random, index: int, name: str, width: int) -> a.ClassReading:
    """One class: two eigenvalues above chance, one below."""
    values = sorted((rng.uniform(-0.4, 0.4) for _ in range(width)), reverse=True)
    if width > 2:
        values[0], values[1], values[-1] = 0.9, 0.7, -0.8
    positive, negative = (
        tuple(
            a.Eigenvector(value, value * value / 4, 1e-15, 1, make_vector(rng, width))
            for value in ends[:SHOWN]
            if sign * value > 0
        )
        for sign, ends in ((1, values), (-1, values[::-1]))
    )
    return a.ClassReading(
        *(index, name, tuple(values), positive, negative),
        upper_edge=0.5,
        lower_edge=-0.5,
        p_upper=0.01,
        p_lower=0.02,
        significant_positive=sum(value > 0.5 for value in values),
        significant_negative=sum(value < -0.5 for value in values),
        effective_rank=5.5 + index,
        effective_rank_null=c.NullInterval(9.0, 8.5, 9.5),
        effective_rank_raw=5.25,
        effective_rank_embedding=7.75,
        frobenius_norm=2.0,
        linear_norm=0.0,
        constant=0.0,
        largest_residual=3.9e-15,
        complete=True,
    )


def make_curve(width: int) -> tuple[a.TruncationPoint, ...]:
    """Accuracy that rises with k and stays."""
    kept = [k for k in (0, 1, 2, 3, 5, 10, 20, 50) if k < width] + [width]
    return tuple(a.TruncationPoint(k, min(0.1 + 0.2 * k, 0.9), 1.0) for k in kept)


def make_explanation(
    rng: random.Random,
    readings: Sequence[a.ClassReading],
    width: int,
    kind: str,
    label: int,
    predicted: int,
) -> a.Explanation:
    """One prediction whose parts add up to its scores."""
    order = [predicted, *(index for index in range(len(readings)) if index != predicted)]
    shown = order[:2] + ([label] if label not in order[:2] else [])
    found = {
        index: make_score(rng, readings[index], width, place) for place, index in enumerate(order)
    }
    number, image = rng.randrange(1000), tuple(round(rng.random(), 5) for _ in range(width))
    scores = tuple(found[index].score for index in range(len(readings)))
    classes = tuple(found[index] for index in shown)
    return a.Explanation(kind, number, label, predicted, image, scores, classes)


def make_score(rng: random.Random, reading: a.ClassReading, width: int, place: int) -> a.ClassScore:
    """The parts of one score; the first place has the highest."""
    pairs = (*reading.positive, *reading.negative)
    parts = []
    for rank, pair in enumerate(sorted(pairs, key=lambda one: -abs(one.eigenvalue))[:SHOWN], 1):
        value, overlap = pair.eigenvalue, rng.uniform(-2, 2)
        parts.append(a.Contribution(rank, value, overlap, value * overlap**2, pair.vector))
    rest = 10.0 - 5 * place if width > len(parts) else 0.0
    score = sum(part.value for part in parts) + rest
    return a.ClassScore(reading.index, score, 0.0, 0.0, tuple(parts), rest)


def make_verdict(classes: int, *, data: bool) -> tuple[c.Finding, ...]:
    """Every rule, as it ends for a healthy model."""
    findings = [
        c.Finding("exact", "pass", {"error": 2.7e-7, "inputs": 1000}),
        c.Finding("complete", "pass", {"residual": 3.9e-15, "classes": classes, "incomplete": ""}),
        c.Finding("twin_classes", "pass", {"value": 0, "threshold": 0, "of": classes, "pairs": ""}),
        c.Finding(
            "accuracy",
            "info",
            {"value": 0.9, "low": 0.555, "high": 0.9975, "total": 10, "plain": 0.2},
        ),
        c.Finding("few_directions", "info", {"k": 3, "of": 36, "accuracy": 0.7, "full": 0.9}),
        c.Finding("beyond_null", "info", {"median": 3.0, "least": 3, "most": 3, "none": ""}),
        c.Finding("overfitting", "info", dict(LEARNT)),
        c.Finding("trigger", "info", dict(TRIGGER)),
    ]
    return tuple(findings if data else findings[:3] + findings[5:])


def variants() -> dict[str, dict[str, Any]]:
    """Documents that together print every sentence of the catalogue."""
    healthy, others = make_document(), given_inputs()
    healthy["inputs"] = to_json(others.pop())
    healthy["verdict"].append({"rule": "train_test_gap", "outcome": "pass", "values": GAP})
    return {
        "healthy": healthy,
        "no data": make_document(data=False),
        "no image": make_document(shape=(1, 9)),
        "two classes": make_document(classes=2, shape=(7, 8)),
        "many classes": make_document(classes=30),
        "more images": ranked(),
        **{reason: silent(reason) for reason in ("too_small", "flat", "classes", "unlike")},
        "failed": {**failed(), "inputs": to_json(others.pop())},
        "odd": odd(),
        **{
            f"decided {answer}": {**decided(answer, by), "inputs": to_json(others.pop())}
            for answer, by in ACCEPT.items()
        },
    }


def given_inputs() -> list[i.GivenInputs]:
    """What inputs show: not compared, each for another reason; compared without and with labels."""
    share, origin = c.Share(9, 10, 0.9, 0.555, 0.9975), c.DataOrigin("", "rows", "tensors", 60, "")
    white = i.WhitenedClass(1.5, 0.25, 2.5, 2, (0.5, -0.25))
    bare = i.Sample(40, origin, None, 0.75, 2.5, None, 40, ())
    full = i.Sample(60, origin, share, 0.875, 3.5, 0.5, 60, (white, white, white))
    vector = tuple(0.0 for _ in range(36))
    support = i.Support(1.5, 2.25, 3.5, vector)
    known = i.TrainingExample(3, 1, 0.5, 0.125, -0.25, 2, 0, vector, (support,))
    loose = i.TrainingExample(4, 1, 0.5, None, -0.25, 2, 0, vector, ())
    area = i.Area(0.625, 0.5625, 0.6875, 0.001)
    gap = i.Comparison(area, area, i.Gap(0.25, 0.125, 0.375), i.Gap(0.25, 0.125, 0.375))
    return [
        i.GivenInputs(full, None, i.Bound(0.25, 60.0), None, "training_alone", 0, (known,)),
        i.GivenInputs(None, bare, None, None, "test_alone", 0, ()),
        i.GivenInputs(bare, full, i.Bound(1.5, 4e6), None, "same", 1, ()),
        i.GivenInputs(bare, full, i.Bound(0.25, 60.0), None, "few", 1, ()),
        i.GivenInputs(
            *(bare, bare, None, i.Comparison(area, None, None, i.Gap(0.25, 0.125, 0.375))),
            *("", 0, (known,)),
        ),
        i.GivenInputs(full, full, i.Bound(1.5, None), gap, "", 3, (known, loose)),
    ]


ACCEPT = {
    "use": "owner",
    "conditions": "owner_and_risk",
    "do_not_use": "nobody",
    "cannot_judge": "nobody",
}
REASONS = (
    "defect guess condition reading coverage refused unseen partial approximate few "
    "one_class no_data caution unheard_of"
)


def decided(answer: str, accepted_by: str) -> dict[str, Any]:
    """An audit with a decision, every reason, and groups that end in other ways."""
    document = make_document()
    condition = {"condition": "r2<0.9", "value": "0.5"}
    risks = [
        {"rule": "condition", "outcome": "fail", "values": condition},
        {"rule": "no_data", "outcome": "warn", "values": {}},
        {"rule": "new_rule", "outcome": "warn", "values": {"number": 7}},
    ]
    document["decision"] = {
        "answer": answer,
        "reasons": REASONS.split(),
        "risks": risks if answer != "conditions" else [],
        "inputs": 0 if answer == "cannot_judge" else 10,
        "accepted_by": accepted_by,
        "more": 2,
    }
    if answer == "do_not_use":
        for finding in document["verdict"]:
            if finding["rule"] in ("accuracy", "beyond_null"):
                finding["outcome"] = "fail"
        del document["verdict"][:3]
    elif answer == "conditions":
        document["verdict"] = [one for one in document["verdict"] if one["rule"] == "accuracy"]
        document["verdict"][0]["outcome"] = "warn"
    elif answer == "cannot_judge":
        document["overfitting"] |= {"threshold": None, "reason": "not_measured"}
        document["triggers"] |= {"threshold": None, "reason": "not_measured"}
    else:
        document["overfitting"] |= {"score": 0.2, "rank": 0.95}
        for finding in document["verdict"]:
            if finding["rule"] == "overfitting":
                finding |= {"outcome": "warn", "values": LEARNT | {"rank": 0.95}}
            if finding["rule"] == "trigger":
                finding |= {"outcome": "warn", "values": TRIGGER | {"p_value": 1e-5, "rows": 0}}
    return document


def ranked() -> dict[str, Any]:
    """Return a document with a rank of overfitting alone."""
    document = make_document()
    document["overfitting"] |= {"threshold": None, "reason": "not_measured"}
    document["verdict"] = [one for one in document["verdict"] if one["rule"] != "overfitting"]
    return document


def silent(reason: str) -> dict[str, Any]:
    """A model of which neither search says anything."""
    document = make_document(data=False)
    document["triggers"] = to_json(w.Triggers(None, None, None, (), (), reason))
    nothing = w.Overfitting(None, None, None, None, None, (), reason)
    document["overfitting"] = to_json(nothing)
    return document


def audit_of(path: object, document: dict[str, Any] | None = None, **source: str) -> AuditReport:
    """The audit of a model at a path: `document`, with more of its source; of what lies there."""
    document, folder = document or make_document(), Path(str(path))
    there = (folder / "model.safetensors").is_file()
    lying = read_beside(folder) if there else {}
    files = {name: file_sha256(one) for name, one in lying.items()}
    here = {"files": files, "weights_sha256": files["model.safetensors"]} if there else {}
    said = document["source"] | {"path": str(path)} | here | source
    run = document["reproduce"] | {"identity": to_json(Identity(said["weights_sha256"]))}
    return AuditReport({**document, "source": said, "reproduce": run})


def failed() -> dict[str, Any]:
    """An audit whose rules fail or warn, with biases."""
    document = make_document()
    document["passed"], document["guarantees"] = False, None
    document["exactness"][0] |= {"passed": False, "relative_error": 0.5}
    document["classes"]["readings"][1]["complete"] = False
    outcomes = {"exact": "fail", "complete": "fail", "twin_classes": "warn", "beyond_null": "warn"}
    outcomes |= {"overfitting": "warn", "trigger": "warn"}
    document["triggers"] |= {"score": 9.5, "p_value": 0.0004}
    document["triggers"]["suspects"][0] |= {"score": 9.5}
    for finding in document["verdict"]:
        finding["values"] |= {"p_value": 0.0004} if finding["rule"] == "trigger" else {}
        finding["outcome"] = outcomes.get(finding["rule"], finding["outcome"])
        if finding["rule"] == "few_directions":
            finding["values"]["k"] = finding["values"]["of"]
        for key in {"incomplete", "none", "pairs"} & set(finding["values"]):
            finding["values"][key] = "1, 2"
    document["verdict"].append({"rule": "train_test_gap", "outcome": "warn", "values": GAP})
    for score in (
        score for item in document["classes"]["explanations"] for score in item["classes"]
    ):
        score |= {"linear": 0.5, "constant": -0.25, "score": score["score"] + 0.25}
    return document


def odd() -> dict[str, Any]:
    """What rarely happens: unknown label, kind and rule; no name, no file, equal eigenvalues."""
    document = make_document(names=["", "same", "same"])
    document["performance"] = to_json(answered(["", "same", "same"], 900, 1000))
    asked, other, wrong = document["classes"]["explanations"]
    asked |= {"kind": "asked", "label": None}
    other |= {"kind": "new kind"}
    wrong |= {"label": 2}
    document["verdict"] += [
        {"rule": "new_rule", "outcome": "warn", "values": {"number": 7}},
        {"rule": "other_rule", "outcome": "new outcome", "values": {}},
    ]
    document["verdict"][4]["values"]["k"] = 0
    document["overfitting"]["parts"][0]["name"] = "new_reading"
    document["triggers"]["scans"][0]["name"] = "new_scan"
    document["overfitting"] |= {"score": None, "threshold": None, "reason": "new_reason"}
    document["classes"]["readings"][0] |= {"negative": []}
    document["classes"]["readings"][1] |= {"positive": []}
    document["classes"]["readings"][2]["positive"][0]["subspace_size"] = 3
    document["model"] |= {"input_shape_assumed": True, "bias": True, "residual": True}
    document["source"] = {
        "path": "",
        "weights_sha256": "",
        "provenance": {},
        "files": {},
        "given_in_training": False,
        "hooks": [],
    }
    document["data"] |= {"name": "", "source_kind": "tensors", "sha256": ""}
    document["reproduce"]["versions"] = {}
    return document


def page_of(document: Mapping[str, Any], lang: str = "en") -> str:
    """The page of a document of any kind."""
    (report,) = (kind for kind in KINDS if kind_of(kind.type) == document["kind"])
    return report(document).to_html(lang=lang)


def changed(document: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The document with another value at a place such as `curves.0.gap`."""
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    item: Any = document
    for part in parents:
        item = item[part]
    item[last] = value
    return document
