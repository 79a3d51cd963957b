"""What changed between two layers: against dense twins, and a planted edit that stands out."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import tiny
from bilens.algebra.approximation.layer_weights import GLUWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.api.audit import layers_of
from bilens.base.errors import UsageError
from bilens.findings.difference import check_pairs, compare_layers
from bilens.findings.layer_audit import audit_layers, compare_with
from bilens.findings.layer_reading import AuditOptions, fit_layer
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.nn.layer_view import LayerView
from bilens.records.layer_audit import LayerDifference
from builders import randn
from layer_audit_documents import transformer

D_IN, HIDDEN, D_OUT = 6, 9, 4


def subject(layer: GLUWeights, name: str = "a", classes: bool = False) -> LayerView:
    return LayerView(
        FactorSizes(len(layer.down), layer.down.shape[1], layer.d_in),
        layer.phi,
        layer.down.dtype,
        lambda: layer,
        gives="logits" if classes else "outputs",
        name=name,
    )


def gated(seed: int = 0, activation: str = "identity") -> GLUWeights:
    return GLUWeights(
        randn(D_OUT, HIDDEN, seed=seed),
        randn(HIDDEN, D_IN, seed=seed + 1),
        randn(HIDDEN, D_IN, seed=seed + 2),
        activation,  # type: ignore[arg-type]
        linear=randn(D_OUT, D_IN, seed=seed + 3),
    )


def compared(old: GLUWeights, new: GLUWeights, classes: bool = False) -> LayerDifference:
    before, after = (fit_layer(subject(one, classes=classes), 0) for one in (old, new))
    return compare_layers("a", before, after, vectors=True)


def dense(layer: GLUWeights) -> torch.Tensor:
    half = torch.einsum("oh,hi,hj->oij", layer.down, layer.gate, layer.value)
    return (half + half.mT) / 2


def edited(layer: GLUWeights, size: float = 1.0) -> GLUWeights:
    """One unit answers to the first two inputs in addition."""
    gate, value = layer.gate.clone(), layer.value.clone()
    gate[3, :2] += size
    value[3, :2] += size
    return replace(layer, gate=gate, value=value)


def test_the_numbers_are_those_of_the_dense_difference() -> None:
    old = gated()
    new = replace(old, gate=old.gate + 0.1 * randn(HIDDEN, D_IN, seed=9))
    found = compared(old, new)
    delta = dense(new) - dense(old)
    assert (found.identical, found.refused, found.changed_units) == (False, None, HIDDEN)
    assert found.change == pytest.approx(float(delta.norm() / dense(old).norm()))
    cosine = (dense(new) * dense(old)).sum() / dense(new).norm() / dense(old).norm()
    assert found.frobenius == pytest.approx(float(cosine))
    assert found.linear_change == 0
    assert found.outputs is not None
    assert found.inputs is not None
    left, values, _ = torch.linalg.svd(delta.flatten(1), full_matrices=False)
    share = values.square() / values.square().sum()
    assert found.outputs.top_share == pytest.approx(float(share[0]))
    inputs = torch.linalg.svdvals(delta.transpose(0, 1).flatten(1))
    assert found.inputs.effective_rank == pytest.approx(
        float(inputs.sum() ** 2 / inputs.square().sum())
    )
    leading = torch.einsum("o,oij->ij", left[:, 0], delta)
    eigenvalues, vectors = torch.linalg.eigh(leading)
    place = int(eigenvalues.abs().argmax())
    trigger = found.triggers[0]
    assert abs(trigger.eigenvalue) == pytest.approx(float(eigenvalues[place].abs()))
    assert trigger.vector is not None
    overlap = vectors[:, place] @ torch.tensor(trigger.vector, dtype=torch.float64)
    assert abs(float(overlap)) == pytest.approx(1, abs=1e-4)


def test_a_change_that_is_far_below_rounding_of_the_maps_is_read_all_the_same() -> None:
    old = gated()
    new = edited(old, 1e-9)
    found = compared(old, new)
    assert found.change == pytest.approx(compared(old, edited(old, 1e-7)).change * 1e-2, rel=1e-5)  # type: ignore[operator]
    assert found.changed_units == 1


def test_classes_are_compared_against_their_mean() -> None:
    old = gated()
    new = edited(old)
    shifted = replace(new, down=new.down + 5.0)  # adds one form to all classes
    with_shift, without = compared(old, shifted, True), compared(old, new, True)
    assert with_shift.change == pytest.approx(without.change)
    assert with_shift.frobenius == pytest.approx(without.frobenius)
    assert sum(part.component for part in with_shift.output_parts) == pytest.approx(0, abs=1e-12)
    assert compared(old, shifted).change != pytest.approx(compared(old, new).change)


def test_the_same_layer_is_the_same_bit_for_bit() -> None:
    found = compared(gated(), gated())
    assert found.identical
    assert (found.weight_change, found.change, found.frobenius) == (0, 0, 1)
    assert [item.outcome for item in judge("audit", Evidence(changes=(found,)))] == ["pass"] * 3


def test_a_map_that_is_refused_is_not_compared_but_its_weights_are() -> None:
    old = gated(activation="relu")
    found = compared(old, edited(old))
    assert found.refused is not None
    assert "below 0.9" in found.refused
    assert (found.change, found.changed_units) == (None, 1)
    assert [item.rule for item in judge("audit", Evidence(changes=(found,)))] == ["changed_layers"]


def test_a_broken_layer_is_not_compared() -> None:
    old = subject(gated())
    broken = compare_with(old, None, AuditOptions(3, 0))
    assert broken.refused == "the layer of the model cannot be read"
    model = transformer()
    model.mlps[2].down.weight.data[0, 0] = torch.inf
    found = audit_layers(layers_of(transformer()), baseline=layers_of(model), null_samples=3)
    assert found.difference is not None
    assert [layer.identical for layer in found.difference.layers] == [True, True, False, True, True]
    assert found.difference.layers[2].refused == "the layer of the baseline cannot be read"


def values(found: LayerDifference, rule: str) -> tuple[str, dict[str, Any]]:
    (finding,) = [item for item in judge("audit", Evidence(changes=(found,))) if item.rule == rule]
    return finding.outcome, finding.values


def test_a_planted_low_rank_edit_stands_out_and_noise_does_not() -> None:
    base = tiny.classifier()
    planted, noisy = copy.deepcopy(base), copy.deepcopy(base)
    pattern = torch.zeros(tiny.PIXELS, dtype=base.embed.weight.dtype)
    pattern[[0, 1, tiny.SIDE, tiny.SIDE + 1]] = 1.0  # a patch in the corner
    with torch.no_grad():
        unit = base.embed.weight @ pattern
        unit = unit / unit.norm()
        layer = planted.layers[0]
        layer.left.weight[0], layer.right.weight[0] = unit, unit  # type: ignore[index,union-attr]
        planted.head.weight[:, 0] = torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
        for parameter in noisy.parameters():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(3)
            )

    def against_base(model: torch.nn.Module) -> LayerDifference:
        (old,), (new,) = layers_of(base), layers_of(model)
        return compare_layers("a", fit_layer(old, 0), fit_layer(new, 0), vectors=True)

    found = against_base(planted)
    outcome, numbers = values(found, "concentrated_change")
    assert (outcome, numbers["mode"]) == ("warn", "inputs")
    assert numbers["value"] < 0.4
    assert found.changed_units == 1
    response = (base.embed.weight.T @ unit).double()  # the input direction that unit 0 answers to
    response = (response / response.norm()).detach()
    best = max(
        abs(float(torch.tensor(trigger.vector, dtype=torch.float64) @ response))
        for trigger in found.triggers
        if trigger.vector is not None
    )
    assert best > 0.9
    assert values(against_base(noisy), "concentrated_change")[0] == "pass"


def test_models_with_other_layers_are_refused_with_the_list() -> None:
    mine = [subject(gated(), "a"), subject(gated(), "b"), subject(gated(activation="silu"), "c")]
    theirs = [subject(gated(), "a"), subject(gated(), "c"), subject(gated(), "d")]
    with pytest.raises(UsageError) as caught:
        check_pairs(mine, theirs)
    text = str(caught.value)
    assert "b is in the model alone; d is in the baseline alone" in text
    assert "c is gated silu 6 → 9 → 4 in the model and gated identity" in text
    with pytest.raises(UsageError, match="and 2 more"):
        check_pairs([subject(gated(), str(place)) for place in range(10)], [])
