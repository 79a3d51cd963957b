"""Models of which a sentence of a rule is true by construction, and what its numbers have to be."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor, nn

from bilens.findings.rules.registry import find_rule
from bilens.nn import BilinearMLP
from bilens.records.audit import ReadAs
from bilens.records.common import Finding
from bilens.report.sections.overview import rule_text
from bilens.report.text import load_catalogue
from builders import randn

# a report, or findings that are filled by hand, and the numbers of each sentence that it shows;
# `said` is a part of the English sentence, as a reader sees it
Shown = tuple[Any, Mapping[str, Mapping[str, Any]]]
Counts = Sequence[tuple[int, int]]  # of each class: how many rows are named rightly, of how many
Factors = tuple[Tensor, Tensor, Tensor]  # down (out, hidden), left and right (hidden, in)
CATALOGUES = {lang: load_catalogue(lang) for lang in ("en", "ja")}


@dataclass(frozen=True)
class Between:
    """A number that is not known to the last digit, and between which ends it has to be."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def about(value: float, spread: float = 0.02) -> Between:
    return Between(value - spread, value + spread)


@dataclass(frozen=True)
class Case:
    kind: ReadAs
    sentences: tuple[str, ...]
    make: Callable[..., Shown]

    def __str__(self) -> str:
        return f"{self.kind}-{self.make.__name__}"


class Cases(list[Case]):
    """The cases of a file."""

    def say(self, kind: ReadAs, *sentences: str) -> Callable[[Callable[..., Shown]], Any]:
        """Return a decorator: what a function makes is a report of which these sentences hold."""

        def kept(make: Callable[..., Shown]) -> Callable[..., Shown]:
            self.append(Case(kind, sentences, make))
            return make

        return kept


def said_in(kind: str, findings: tuple[Finding, ...]) -> dict[str, Finding]:
    """Return which sentences a verdict says."""
    found = {}
    for one in findings:
        rule = find_rule(one.rule, kind)
        assert rule is not None
        found[rule.sentence_key(one.outcome, one.values).removeprefix("rule.")] = one
    return found


def check(case: Case, folder: Path) -> None:
    """Compare what is said of a model with what it was made to be."""
    given = {"folder": folder} if "folder" in inspect.signature(case.make).parameters else {}
    made, numbers = case.make(**given)
    findings = made if isinstance(made, tuple) else made.record.verdict
    said = said_in(case.kind, findings)
    assert isinstance(made, tuple) or made.record.read_as == case.kind
    assert numbers.keys() == {*case.sentences}
    for sentence, expected in numbers.items():
        assert sentence in said, f"{sentence}: instead it says {sorted(said)}"
        check_numbers(case.kind, sentence, said[sentence], expected)


def check_numbers(kind: str, sentence: str, finding: Finding, expected: Mapping[str, Any]) -> None:
    """Compare every number of a sentence, and its words in both languages."""
    texts = {lang: rule_text(t, kind, finding, finding.outcome) for lang, t in CATALOGUES.items()}
    sentences = [t.sentences[f"rule.{sentence}"] for t in CATALOGUES.values()]
    asked = {name for one in sentences for name in re.findall(r"\{(\w+)", one)} - {"threshold"}
    assert asked <= expected.keys(), f"{sentence}: {sorted(asked - expected.keys())} not checked"
    words = expected.get("said", "")
    assert words in texts["en"], texts["en"]
    assert all(texts.values()), f"{sentence}: a language lacks it"
    for name, value in expected.items():
        found = finding.values.get(name)
        if isinstance(value, Between):
            assert isinstance(found, int | float)
            assert value.holds(found), f"{sentence}: {name} is {found}, not in {value}"
        elif name != "said":
            exact = isinstance(value, str | int)
            told = value if exact else pytest.approx(value, rel=1e-6, abs=1e-12)
            assert found == told, f"{sentence}: {name} is {found}, not {value}"


def interval(right: int, total: int) -> dict[str, float]:
    """The share, and the interval of Clopper and Pearson, by the quantiles of the beta."""
    low = float(beta.ppf(0.025, right, total - right + 1)) if right else 0.0
    high = float(beta.ppf(0.975, right + 1, total - right)) if right < total else 1.0
    return {"value": right / total, "low": low, "high": high}


def answers_by_hand(counts: Counts, logits: Any, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Accuracy, the worst class and calibration of rows, class by class: right ones come first."""
    right, total = (sum(part) for part in zip(*counts, strict=True))
    shares = [{**interval(*one), "total": one[1]} for one in counts]
    at = min(range(len(shares)), key=lambda k: shares[k]["high"])
    worst = {**shares[at], "name": names[at], "recall": shares[at]["value"]}
    worst |= {"value": right / total - worst["high"], "accuracy": right / total}
    plain = max(count for _, count in counts) / total
    label = np.repeat(np.arange(len(counts)), [count for _, count in counts])
    return {
        "accuracy": {**interval(right, total), "total": total, "plain": plain},
        "worst": worst,
        "calibration": {**calibration(logits, label), "total": total},
    }


def calibration(logits: Any, label: Any) -> dict[str, float]:
    """How far probabilities are off, in tenths of them, and by chance; and Brier's score."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sure, right = p.max(axis=1), p.argmax(axis=1) == label
    error = null = 0.0
    for low in range(10):
        inside = (sure * 10).astype(int) == low
        if inside.any():
            mean, part = sure[inside].mean(), inside.mean()
            error += part * abs(right[inside].mean() - mean)
            null += part * np.sqrt(2 * mean * (1 - mean) / (np.pi * inside.sum()))
    brier = np.square(p - np.eye(p.shape[1])[label]).sum(axis=1).mean()
    return {"value": float(error), "null": float(null), "brier": float(brier)}


def named_rightly(counts: Counts) -> Any:
    """Rows of as many numbers as classes, whose largest is that of the class, or of the next."""
    generator = np.random.default_rng(0)
    rows = []
    for label, (right, count) in enumerate(counts):
        for at in range(count):
            rows.append(0.5 * generator.random(len(counts)))
            rows[-1][(label + (at >= right)) % len(counts)] += 1
    return np.array(rows)


class Stack(nn.Module):
    """Bilinear layers side by side."""

    def __init__(self, *layers: Factors) -> None:
        super().__init__()
        made = [BilinearMLP(left.shape[1], len(left), len(down)) for down, left, _ in layers]
        self.layers = nn.ModuleList(made).double()
        for one, parts in zip(self.layers, layers, strict=True):
            with torch.no_grad():
                for name, part in zip(("down", "left", "right"), parts, strict=True):
                    getattr(one, name).weight.copy_(part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([one(x) for one in self.layers]).sum(dim=0)


class Wired(nn.Module):
    """Two layers one behind the other, and what is done with the answer."""

    def __init__(self, finish: Callable[[Tensor], Tensor], hidden: int = 6) -> None:
        super().__init__()
        self.one = BilinearMLP(4, 6).double()
        self.two = BilinearMLP(4, hidden).double()
        self.finish = finish
        with torch.no_grad():
            for at, part in enumerate(self.parameters()):
                part.copy_(randn(*part.shape, seed=at))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.two(self.one(x)))
