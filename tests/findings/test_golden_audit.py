"""The findings of one small model, number by number, as they were when they were last looked at.

To make the file anew, after a change that is meant to move the numbers:

    BILENS_UPDATE_GOLDEN=1 python -m pytest tests/findings/test_golden_audit.py"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from bilens.findings.audit import audit_classifier
from bilens.findings.subject import LabelledImages
from bilens.records.base import to_json

GOLDEN = Path(__file__).with_name("golden_audit.json")
ROUNDING = ("residual", "largest_residual", "largest_error", "relative_error", "float32", "float64")
DRAWN = ("vector", "image")  # five decimals


def findings() -> dict[str, Any]:
    """A float64 model of 9 inputs, 4 hidden units and 3 classes, and ten images."""
    model = tiny.classifier(4, d_input=9, d_hidden=4, bias=True, residual=True)
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(10, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (10,), generator=generator)
    found = audit_classifier(
        model, LabelledImages(images, labels), null_samples=tiny.ROTATIONS, seed=4
    )
    content: dict[str, Any] = json.loads(json.dumps(to_json(found)))
    return content


def compare(found: Any, expected: Any, place: str) -> None:
    """Numbers within 1e-8 of each other, rounding errors small, everything else equal."""
    key = place.rsplit(".", 1)[-1].split("[")[0]
    if isinstance(expected, dict):
        assert list(found) == list(expected), place
        for name in expected:
            compare(found[name], expected[name], f"{place}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for index, item in enumerate(expected):
            compare(found[index], item, f"{place}[{index}]")
    elif not isinstance(expected, float):
        assert found == expected, place
    elif key in ROUNDING:
        assert 0 <= found < 1e-5, place
    else:
        tolerance = 1.5e-5 if key in DRAWN else 1e-12
        assert found == pytest.approx(expected, rel=1e-8, abs=tolerance), place


def test_the_findings_are_as_they_were() -> None:
    found = findings()
    if os.environ.get("BILENS_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    compare(found, json.loads(GOLDEN.read_text()), "")


def test_the_comparison_sees_a_small_change() -> None:
    expected = json.loads(GOLDEN.read_text())
    expected["classes"][1]["effective_rank"] *= 1 + 1e-7
    with pytest.raises(AssertionError, match=r"classes\[1\]\.effective_rank"):
        compare(findings(), expected, "")
