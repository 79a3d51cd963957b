"""The rules on weights for a classifier of one layer, which is read class by class."""

from __future__ import annotations

import math

import torch
from msgspec.structs import replace

from bilens.algebra.hosvd import hosvd
from bilens.findings.layers.inputs import read_inputs
from bilens.findings.layers.reading import Opened, stability
from bilens.findings.layers.subject import LayerSubject, described
from bilens.findings.layers.units import read_units
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.records.verdict import Finding


def judge_one_layer(subject: LayerSubject, opened: Opened, seed: int) -> tuple[Finding, ...]:
    """Return dead and doubled units, unused and dominant inputs, unstable directions.

    Cost: O(hidden² · (in + out) + in³).
    """
    f = opened.map
    assert f is not None, "an exact layer is its map"
    inputs = read_inputs(opened.layer, f, torch.Generator().manual_seed(seed))
    spectrum = hosvd(f)
    zero = math.sqrt(float(spectrum.frobenius_squared)) == 0
    reading = replace(
        described(subject),
        units=read_units(opened.layer),
        inputs=inputs,
        stability=None if zero else stability(opened, spectrum),
    )
    return judge("audit", Evidence(layers=(reading,)))
