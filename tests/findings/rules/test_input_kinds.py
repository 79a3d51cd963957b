"""Rules that hold for one kind of input speak of no other, nor where nothing says the kind.

Damage seen to fail: the question of the kind left out of `judge`.
"""

from dataclasses import replace
from typing import get_args

import pytest

from bilens.findings.rules.registry import REGISTRY
from bilens.findings.rules.rule import Evidence, InputKind, Rule

OF_IMAGES = {"overfitting", "trigger"}  # all others speak of weights, maps, answers or columns


@pytest.mark.parametrize("kind", ["", "audio", *get_args(InputKind)])
@pytest.mark.parametrize("rule", REGISTRY, ids=lambda rule: f"{rule.sentences or rule.id}")
def test_a_rule_speaks_of_the_kind_of_input_that_it_holds_for(rule: Rule, kind: str) -> None:
    found = dict.fromkeys(rule.values, 0) | {"outcome": "info"}
    spoken = replace(rule, measure=lambda _: [found]).judge(Evidence(input_kind=kind))
    assert (spoken is None) == (rule.id in OF_IMAGES and kind != "images")
