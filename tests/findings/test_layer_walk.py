"""The audit of many layers against dense twins: readings, planted faults, and what changed."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import layer_audit_documents as made
from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.concentration import effective_rank
from bilens.algebra.gram import kernel
from bilens.algebra.hosvd import hosvd
from bilens.api.subject import open_subject
from bilens.base.errors import UsageError
from bilens.findings import layer_reading
from bilens.findings.difference import compare_layers, other_kind
from bilens.findings.layer_reading import ReadingOptions, fit_layer, gram_shares
from bilens.findings.layer_walk import LayerWalk, checked_options, compare_with, walk_layers
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.nn.layer_view import LayerView
from bilens.records.common import Finding
from bilens.records.layer_readings import LayerDifference, LayerReading
from builders import randn
from layer_audit_documents import transformer

D_IN, HIDDEN, D_OUT = 6, 9, 4


def layers_read(model: nn.Module) -> tuple[LayerView, ...]:
    return tuple(open_subject(model, "a test").layers.values())


def gated(seed: int = 0, activation: str = "identity", **parts: torch.Tensor) -> GLUWeights:
    """A layer with standard normal weights, or those given."""
    weights = {
        "down": randn(D_OUT, HIDDEN, seed=seed),
        "gate": randn(HIDDEN, D_IN, seed=seed + 1),
        "value": randn(HIDDEN, D_IN, seed=seed + 2),
    }
    return GLUWeights(**{**weights, **parts}, activation=activation)  # type: ignore[arg-type]


def subject(layer: GLUWeights | MLPWeights, name: str = "a", classes: bool = False) -> LayerView:
    return LayerView(
        FactorSizes(len(layer.down), layer.down.shape[1], layer.d_in),
        layer.phi,
        layer.down.dtype,
        lambda: layer,
        isinstance(layer, GLUWeights),
        gives="logits" if classes else "outputs",
        name=name,
    )


def audited(*layers: GLUWeights | MLPWeights) -> LayerWalk:
    subjects = [subject(layer, f"layer {place}") for place, layer in enumerate(layers)]
    return walk_layers(subjects, options=ReadingOptions(3, 0, pixels=True))


def judged(found: LayerWalk) -> tuple[Finding, ...]:
    return judge("layers", Evidence(layers=found.readings, changes=found.changes))


def rule(found: LayerWalk, name: str) -> tuple[str, dict[str, Any]]:
    (finding,) = [finding for finding in judged(found) if finding.rule == name]
    return finding.outcome, finding.values


def test_the_reading_of_an_exact_layer_is_that_of_the_dense_tensor() -> None:
    layer = gated()
    reading = audited(layer).readings[0]
    half = torch.einsum("oh,hi,hj->oij", layer.down, layer.gate, layer.value)
    dense = (half + half.mT) / 2
    assert reading.fit is None
    assert reading.quadratic_norm == pytest.approx(float(dense.norm()))
    left, values, _ = torch.linalg.svd(dense.flatten(1), full_matrices=False)
    outputs = reading.outputs
    assert outputs is not None
    assert outputs.effective_rank == pytest.approx(float(effective_rank(values)))
    assert outputs.top_share == pytest.approx(float(values[0] ** 2 / values.square().sum()))
    held = values.square().cumsum(0) / values.square().sum()
    assert outputs.directions_90 == int((held < 0.9).sum()) + 1
    leading = torch.einsum("o,oij->ij", left[:, 0], dense)
    eigenvalues = torch.linalg.eigvalsh(leading)
    largest = eigenvalues[eigenvalues.abs().argmax()]
    assert abs(outputs.pairs[0].eigenvalue) == pytest.approx(abs(float(largest)))
    assert outputs.leading_rank == pytest.approx(float(effective_rank(eigenvalues)))
    inputs = reading.inputs
    assert inputs is not None
    rows = dense.square().sum(dim=(0, 2)) / dense.square().sum()
    assert (inputs.dominant, inputs.share) == (int(rows.argmax()), pytest.approx(float(rows.max())))


def test_the_fit_of_an_approximate_layer_is_said_and_decides_what_is_read() -> None:
    good = audited(gated(activation="silu", gate=0.02 * randn(HIDDEN, D_IN, seed=1))).readings[0]
    assert good.fit is not None
    assert good.fit.usable
    assert good.fit.quadratic > 0.99
    assert good.outputs is not None
    poor = audited(gated(activation="relu", gate=9 * randn(HIDDEN, D_IN, seed=1))).readings[0]
    assert poor.fit is not None
    assert not poor.fit.usable
    assert (poor.outputs, poor.quadratic_norm, poor.stability) == (None, None, None)
    assert poor.units is not None
    assert poor.inputs is not None
    assert poor.inputs.dominant is None
    assert rule(audited(gated(activation="relu", gate=9 * randn(HIDDEN, D_IN, seed=1))), "r2") == (
        "warn",
        {
            "value": poor.fit.trimmed,
            "threshold": 0.9,
            "of": 1,
            "approximate": 1,
            "refused": 1,
            "layers": "layer 0",
            "on": "",
            "ground": "assumed",
        },
    )


def test_a_layer_with_nan_is_broken_and_the_others_are_read() -> None:
    model = made.transformer()
    model.mlps[1].left.weight.data[0, 0] = torch.nan
    found = walk_layers(layers_read(model), options=ReadingOptions(3, 0))
    assert "fail" in [one.outcome for one in judged(found)]
    broken = [layer.name for layer in found.readings if layer.broken is not None]
    assert broken == ["blocks.1.mlp"]
    assert "non-finite" in str(found.readings[1].broken)
    assert all(layer.outputs is not None for layer in found.readings if layer.broken is None)
    assert rule(found, "non_finite")[1]["layers"] == "blocks.1.mlp"


def test_the_share_by_chance_does_not_depend_on_the_coordinates() -> None:
    gram = torch.diag(torch.tensor([4.0, 1, 1, 1, 1], dtype=torch.float64))
    shares, null = gram_shares(gram, torch.Generator().manual_seed(0))
    assert shares.tolist() == [0.5, *[0.125] * 4]
    assert 1 / 5 < null < 0.5


def test_directions_drawn_one_by_one_give_the_same_share(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = randn(80, 60, seed=1)
    gram = (rows.T @ rows).double()

    def usual() -> float:
        draws = [gram_shares(gram, torch.Generator().manual_seed(seed))[1] for seed in range(20)]
        return sum(draws) / len(draws)

    turned = usual()
    monkeypatch.setattr(layer_reading, "WIDE", 1)
    assert usual() == pytest.approx(turned, rel=0.04)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
def test_products_in_float32_say_the_same_of_inputs_and_units(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of the weights: float32 ends at 1e38, and squares of them before."""
    layer = gated(down=size * randn(D_OUT, HIDDEN, seed=2))
    exact = audited(layer).readings[0]
    monkeypatch.setattr(kernel, "SINGLE", 0)
    found = audited(layer).readings[0]
    assert found.inputs.share != exact.inputs.share
    assert found.inputs.share == pytest.approx(exact.inputs.share, rel=1e-6)
    assert found.inputs.share_null == pytest.approx(exact.inputs.share_null, rel=1e-6)
    assert found.units.largest_overlap == pytest.approx(exact.units.largest_overlap, rel=1e-6)


def test_a_few_eigenpairs_say_the_same_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = gated(
        down=randn(30, 50, seed=2), gate=randn(50, 60, seed=3), value=randn(50, 60, seed=4)
    )
    fitted = layer_reading.fit_layer(subject(layer), seed=0)
    assert fitted.map is not None
    spectrum = hosvd(fitted.map, 30)
    whole = layer_reading.stability(fitted, spectrum)
    assert whole == audited(layer).readings[0].stability
    monkeypatch.setattr(layer_reading, "WIDE", 1)
    few = layer_reading.stability(fitted, spectrum)
    assert whole is not None
    assert few is not None
    assert few.guaranteed == whole.guaranteed > 0
    assert few.largest_angle == pytest.approx(whole.largest_angle)
    assert few.movement == pytest.approx(whole.movement)


def test_rounding_that_moves_nothing_leaves_every_direction_stable() -> None:
    parts = {
        name: getattr(gated(), name).to(torch.bfloat16).double()
        for name in ("down", "gate", "value")
    }
    stored = audited(gated(**parts)).readings[0].stability
    moved = audited(gated()).readings[0].stability
    assert stored is not None
    assert moved is not None
    assert (stored.guaranteed, stored.leading) == (5, 5)
    assert stored.movement < 1e-9 < moved.movement


def test_where_no_direction_is_stable_there_is_no_angle() -> None:
    """Eigenvalues nearer than rounding; broken once: the angle was 0, as where nothing moves."""
    square = torch.linspace(1, 1.001, D_IN, dtype=torch.float64).diag() / 3
    found = audited(gated(down=torch.ones(1, D_IN).double(), gate=square, value=square))
    stable = found.readings[0].stability
    assert stable is not None
    assert (stable.guaranteed, stable.largest_angle) == (0, None)


def test_few_layers_have_no_usual_size() -> None:
    found = audited(gated(), gated(seed=5))
    assert all(layer.norm_z is None for layer in found.readings)
    assert "huge_norm" not in [finding.rule for finding in judged(found)]


def test_layers_of_zeros_have_no_directions() -> None:
    found = audited(gated(down=torch.zeros(D_OUT, HIDDEN, dtype=torch.float64)))
    reading: LayerReading = found.readings[0]
    assert (reading.outputs, reading.quadratic_norm) == (None, 0)
    assert reading.units is not None
    assert reading.units.dead == HIDDEN


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="null_samples must be an integer of at least 3"):
        checked_options(2, 0)
    with pytest.raises(UsageError, match="seed must be below"):
        checked_options(3, 2**32)


def test_the_same_seed_gives_the_same_document() -> None:
    first, second = (audited(gated(activation="gelu")) for _ in range(2))
    assert first == second
    assert math.isfinite(first.readings[0].weight_norm or math.nan)


def biased(seed: int = 0, activation: str = "identity") -> GLUWeights:
    return replace(gated(seed, activation), linear=randn(D_OUT, D_IN, seed=seed + 3))


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
    old = biased()
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
    old = biased()
    new = edited(old, 1e-9)
    found = compared(old, new)
    assert found.change == pytest.approx(compared(old, edited(old, 1e-7)).change * 1e-2, rel=1e-5)  # type: ignore[operator]
    assert found.changed_units == 1


def test_classes_are_compared_against_their_mean() -> None:
    old = biased()
    new = edited(old)
    shifted = replace(new, down=new.down + 5.0)  # adds one form to all classes
    with_shift, without = compared(old, shifted, True), compared(old, new, True)
    assert with_shift.change == pytest.approx(without.change)
    assert with_shift.frobenius == pytest.approx(without.frobenius)
    assert sum(part.component for part in with_shift.output_parts) == pytest.approx(0, abs=1e-12)
    assert compared(old, shifted).change != pytest.approx(compared(old, new).change)


def test_a_map_that_is_refused_is_not_compared_but_its_weights_are() -> None:
    old = biased(activation="relu")
    found = compared(old, edited(old))
    assert found.refused is not None
    assert "below 0.9" in found.refused
    assert (found.change, found.changed_units) == (None, 1)
    assert [item.rule for item in judge("classes", Evidence(changes=(found,)))] == [
        "changed_layers"
    ]


def test_a_broken_layer_is_not_compared() -> None:
    old = subject(biased())
    broken = compare_with(old, old, None, ReadingOptions(3, 0))
    assert broken.refused == "the layer of the model cannot be read"
    model = transformer()
    model.mlps[2].down.weight.data[0, 0] = torch.inf
    found = walk_layers(
        layers_read(transformer()), baseline=layers_read(model), options=ReadingOptions(3, 0)
    )
    assert [layer.identical for layer in found.changes] == [True, True, False, True, True]
    assert found.changes[2].refused == "the layer of the baseline cannot be read"


def test_layers_are_compared_where_name_sizes_and_activation_match() -> None:
    """Broken once: a layer of another activation was left out, and all was called the same."""
    mine = [subject(biased(), "a"), subject(biased(), "b"), subject(biased(activation="silu"), "c")]
    theirs = [subject(biased(), "a"), subject(biased(), "c"), subject(biased(), "d")]
    audit = walk_layers(mine, baseline=theirs, options=ReadingOptions(3, 0))
    assert [(layer.name, layer.identical, layer.refused) for layer in audit.changes] == [
        ("a", True, None),
        ("c", False, "gated identity 6 → 9 → 4 became gated silu 6 → 9 → 4"),
    ]
    assert rule(audit, "changed_layers") == (
        "info",
        {"value": 1, "threshold": 0, "of": 2, "layers": "c"},
    )


def test_another_slope_is_another_kind_of_layer() -> None:
    one, other = (
        subject(MLPWeights(randn(4, 9), randn(9, 6), Activation("leaky_relu", slope)))
        for slope in (0.1, 0.2)
    )
    assert other_kind(one, one) is None
    assert "slope 0.1 6 → 9 → 4 became plain leaky_relu with slope 0.2" in str(
        other_kind(one, other)
    )
