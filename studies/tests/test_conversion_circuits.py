"""Circuits before and after a conversion, of a model of one block that saw a few texts.

Broken once: a check that counted random dictionaries without the behaviour as if they reached it.
"""

from pathlib import Path

import pytest

from bilens.api import trace_latents
from bilens.data import text
from bilens.records.common import Interval
from bilens.records.mlp_trace import CausalCheck
from bilens_studies import conversion_circuits, conversion_ways
from bilens_studies.conversion_circuits import (
    ConversionCircuitStudy,
    check_shown,
    count_checks,
    with_chance,
)
from bilens_studies.study import StudyOptions, to_json
from bilens_studies.study_folder import run_study

OPTIONS = StudyOptions(corpus="grammar", steps=2, tokens=2048)
SMALL = {
    "SAE_STEPS": 2,
    "BUFFER_STEPS": 1,
    "CIRCUITS": 1,
    "TEXT_TOKENS": 512,
    "NUM_DICTIONARIES": 2,
}


def test_a_layer_is_traced_before_and_after_beside_random_dictionaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "GRAMMAR_STORIES", 300)
    monkeypatch.setattr(conversion_ways, "LAYER_STEPS", 2)
    for module in (conversion_ways, conversion_circuits):
        monkeypatch.setattr(module, "LAYER_TOKENS", 1024)
    monkeypatch.setattr(trace_latents, "CONTRAST_BUDGET", 10**7)  # pairs of 8 latents
    for name, value in SMALL.items():
        monkeypatch.setattr(conversion_circuits, name, value)
    result = run_study(ConversionCircuitStudy(), tmp_path, OPTIONS)["result"]
    (row,), (conversion,) = result["rows"], result["conversions"]
    assert conversion["teacher"] == row["teacher"]
    (plane, others, _) = row["same"]
    assert plane[1] > 2 * others[1] > plane[2]  # the teacher is all but linear in what it saw
    for when in ("before", "after"):
        for kind in ("latent", "pair"):
            assert len(row["scores"][when][kind]["null"]) == 2
        checks = [one[when] for one in row["checks"].values() if when in one]
        assert result["counts"][when]["checks"] == len(checks)
        for check in checks:
            assert check["num_null"] == len(check["chance"]["null"]) == 2
            assert not check["confirmed"]  # two random dictionaries cannot tell
    page = (tmp_path / "study.md").read_text()
    for name in row["checks"]:
        assert f"| {name} | " in page


def test_a_random_dictionary_without_the_behaviour_counts_as_smaller() -> None:
    one = Interval(0.5, 0.4, 0.6)
    given = one, one, one, Interval(0.1, 0.0, 0.2)
    check = CausalCheck(
        "ablate", 2, *given, 20, None, None, null_shares=(0.6, 0.1), num_null=19, confirmed=False
    )
    found = with_chance(to_json(check))
    assert found["chance"]["reached"] == 1
    assert found["chance"]["p_value"] == 0.1
    assert check_shown(found) == "50.0% [40.0%, 60.0%]; 10.0%; 1 of 19, p = 0.10"
    assert check_shown(None) == "–"
    rows = [{"checks": {"latent 1: ablate": {"before": found}}}]
    assert count_checks(rows, "before") == {"checks": 1, "beyond_random": 1, "confirmed": 0}
    assert count_checks(rows, "after")["checks"] == 0
