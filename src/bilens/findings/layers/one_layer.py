"""The rules on weights for a classifier of one layer, which is read class by class."""

from __future__ import annotations

import math

import torch

from bilens.algebra.hosvd import hosvd
from bilens.findings.layers.inputs import read_inputs
from bilens.findings.layers.reading import Opened, stability
from bilens.findings.layers.subject import LayerSubject
from bilens.findings.layers.units import read_units
from bilens.findings.layers.verdict import judge_weights
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
    return judge_weights(
        subject, read_units(opened.layer), inputs, None if zero else stability(opened, spectrum)
    )
