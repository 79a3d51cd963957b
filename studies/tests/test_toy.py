"""Toy tasks: what is read from planted weights is the truth; training finds it; grokking is seen.

The planted solutions are exact, so each reading has one right value.
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import binom

from bilens import BilinearTensor, QuadraticMap
from bilens.nn import BilinearMLP
from bilens_studies import logic, modular
from bilens_studies.modular import FourierBlocks
from bilens_studies.published import Published, Reproduced, finding
from bilens_studies.reproduction import reproduce
from bilens_studies.study import StudyOptions


def planted_gate(gate: str) -> QuadraticMap:
    """The analytic truth of a gate on every pair, as factors: products x_i x_j and x_i · 1."""
    zero, one, other, both = map(float, logic.GATES[gate])
    n, pairs = logic.NUM_BITS, [*zip(logic.FIRST, logic.SECOND, strict=True)]
    left = torch.zeros(len(pairs), n, dtype=torch.float64)
    right, linear = left.clone(), left.clone()
    for row, (i, j) in enumerate(pairs):
        left[row, i] = right[row, j] = 1
        linear[row, i], linear[row, j] = one - zero, other - zero
    down = torch.eye(len(pairs), dtype=torch.float64) * (both - one - other + zero)
    constant = torch.full((len(pairs),), zero, dtype=torch.float64)
    return QuadraticMap(BilinearTensor(down, left, right), linear, constant)


@pytest.mark.parametrize("gate", logic.GATES)
def test_the_truth_of_a_gate_is_read_as_itself(gate: str) -> None:
    f, targets = planted_gate(gate), logic.truth_tables(gate, seed=0)
    assert torch.allclose(f(logic.all_bits().double()).T, targets.double())
    found = logic.compare_with_truth(f, targets, True, gate)
    assert found["recovery"] == pytest.approx(1)
    assert found["explained"] == found["attainable"] == pytest.approx(1)
    assert found["at_the_pair"] == pytest.approx(f.tensor.down[0, 0].item() / 2)  # ½ for AND
    half = logic.compare_with_truth(0.5 * f, targets, True, gate)
    assert half["recovery"] == pytest.approx(0.75)  # 1 − ½²


def test_without_a_bias_only_gates_without_a_constant_are_attainable() -> None:
    for gate, truth in logic.GATES.items():
        found = logic.compare_with_truth(
            planted_gate(gate), logic.truth_tables(gate, 0), False, gate
        )
        assert (found["attainable"] > 0.999) == (truth[0] == 0), gate


def test_training_recovers_gates_that_fit_in_the_products() -> None:
    wide = logic.measure(logic.OURS, 0, 300, None)["models"]  # type: ignore[arg-type]
    assert wide["AND, no bias"]["recovery"] > 0.98
    assert wide["AND, no bias"]["at_the_pair"] == pytest.approx(0.5, abs=0.05)
    assert wide["NOR, bias"]["explained"] > 0.98
    narrow = logic.measure(logic.NARROW, 0, 300, None)["models"]  # type: ignore[arg-type]
    assert narrow["AND, no bias"]["recovery"] < 0.7  # four products hold four of six
    gone = logic.measure(logic.DEFAULT, 0, 300, None)["models"]  # type: ignore[arg-type]
    assert abs(gone["AND, no bias"]["at_the_pair"]) < 0.1  # the decay is a part of the loss


def test_gates_are_judged_where_their_truth_is_attainable() -> None:
    rows = [
        {"operation": gate, "setting": setting, "bias": bias, "recovery": [share] * 3}
        | {"attainable": [-2.0] * 3, "at_the_pair": [0.5] * 3}
        for setting in logic.SETTINGS
        for gate in logic.OPERATIONS
        for bias, share in (("no bias", 1.0), ("bias", 0.5))
    ]
    study = logic.LogicStudy()
    found = study.reproduced({"rows": rows})
    assert set(found) == set(study.published)
    verdicts = {name: finding(study.published[name], one)["verdict"] for name, one in found.items()}
    assert verdicts["12 products, OR"] == "agrees"
    assert verdicts["4 products, NAND"] == "differs"  # with a bias, though the best fit is reached
    assert verdicts["NAND, no bias"] == verdicts["mixture, no bias"] == "not judged"
    assert "OR, no bias" not in verdicts
    assert "R² -2.00" in found["NAND, no bias"].note


def planted_sum(p: int, frequencies: tuple[int, ...]) -> BilinearMLP:
    """Σ_k cos(2πk(a + b − c)/p), exactly: three products for each complex one."""
    angle = 2 * math.pi * torch.arange(p).double() / p
    left, right, down = [], [], []
    zero = torch.zeros(p, dtype=torch.float64)
    for k in frequencies:
        cos, sin = (k * angle).cos(), (k * angle).sin()
        for of_a, of_b, out in (
            *((cos, cos, cos), (sin, sin, -cos)),
            *((sin, cos, sin), (cos, sin, sin)),
        ):
            left.append(torch.cat([of_a, zero]))
            right.append(torch.cat([zero, of_b]))
            down.append(out)
    model = BilinearMLP(2 * p, len(left), p).double()
    state = {"left": left, "right": right, "down": [*torch.stack(down).T]}
    model.load_state_dict({f"{name}.weight": torch.stack(rows) for name, rows in state.items()})
    return model


def test_a_sum_of_waves_lies_on_the_blocks_of_its_frequencies() -> None:
    p, frequencies = 13, (2, 5)
    model, blocks = planted_sum(p, frequencies), FourierBlocks.modulo(13)
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    logits = modular.answers(model, pairs)
    one_hot = torch.nn.functional.one_hot(pairs, p).flatten(1).double()
    assert torch.allclose(logits, model(one_hot))
    assert torch.equal(logits.argmax(dim=1), pairs.sum(dim=1) % p)
    shares = blocks.shares(model)
    assert shares.sum().item() == pytest.approx(1)
    assert shares[[1, 4]].tolist() == pytest.approx([0.5, 0.5])  # frequencies from 1
    turned = [blocks.shares(model, rotation).sum().item() for rotation in blocks.rotations]
    assert max(turned) < 0.5
    with torch.no_grad():
        model.down.weight.add_(3.0)  # the same to every answer: the softmax does not see it
    assert blocks.shares(model).sum().item() == pytest.approx(1)


def test_shares_are_those_of_the_dense_tensor() -> None:
    p = 5
    model = BilinearMLP(2 * p, 7, p).double()
    P, L, R = (part.weight.detach() for part in (model.down, model.left, model.right))
    P = P - P.mean(dim=0)
    B = torch.einsum("ch,hi,hj->cij", P, L, R)
    B = (B + B.mT) / 2
    blocks = FourierBlocks.modulo(p)
    inside = sum(
        torch.einsum("uc,cij,vi,wj->uvw", wave, B, both, both).square().sum()
        for wave in blocks.outputs
        for both in [torch.block_diag(wave, wave)]
    )
    assert blocks.share_of_all(model) == pytest.approx(float(inside / B.square().sum()))
    for half in (slice(0, p), slice(p, None)):  # of one number only one entry is 1
        B[:, half, half] *= torch.eye(p)
    for k, share in enumerate(blocks.shares(model)):
        waves = blocks.outputs[k]  # (2, p)
        inside = torch.einsum("uc,cij,vi,wj->uvw", waves, B[:, :p, p:], waves, waves)
        assert share.item() == pytest.approx(float(2 * inside.square().sum() / B.square().sum()))


def test_a_level_counts_from_where_it_is_kept() -> None:
    looks = [
        {"step": 10 * i, "share": share, "null_edge": 0.1, "held_out_accuracy": right}
        for i, (share, right) in enumerate([(0.2, 0.0), (0.05, 0.6), (0.3, 0.4), (0.95, 1.0)])
    ]
    seen = modular.seen_at(looks, chance=0.3)
    assert seen["chance"] == {"weights": 20, "accuracy": 10}
    assert seen["half"] == {"weights": 30, "accuracy": 30}
    assert modular.seen_at(looks[:2], 0.7)["all"] == {"weights": None, "accuracy": None}


def test_the_weights_are_first_where_they_are_in_every_seed() -> None:
    def seen(*pairs: tuple[int | None, int | None]) -> Reproduced:
        return modular.first_seen(
            [dict(zip(("weights", "accuracy"), x, strict=True)) for x in pairs]
        )

    first = seen((5, 15), (5, 20), (5, None))
    assert (first.values, first.holds, first.runs) == ((10.0, 15.0), True, 3)
    assert first.note.endswith("5 / 15, 5 / 20, 5 / never")
    for other in ((20, 15), (15, 15), (None, 15), (None, None)):
        late = seen((5, 15), (5, 15), (5, 15), other)
        assert late.holds is False
        assert finding(Published("q", "s", claim="first"), late)["verdict"] == "differs"


def test_chance_is_as_rare_for_the_weights_as_for_the_accuracy() -> None:
    for pairs, p in ((34, 13), (6385, 113)):
        least = modular.by_chance(pairs, p) * pairs
        above, at = (float(binom.sf(least - k, pairs, 1 / p)) for k in (1, 2))
        assert above <= 1 / (modular.ROTATIONS + 1) < at


def test_both_shares_stand_in_one_row_and_a_delay_is_told() -> None:
    look = {"held_out_accuracy": 1.0, "share": 0.95}
    level = {"weights": 5, "accuracy": 15}
    row = {
        "looks": [look],
        "share_of_all": 0.8,
        "learnt": 15,
        "seen": dict.fromkeys(modular.LEVELS, level),
    }
    found = modular.ModularStudy().reproduced({"113": [row] * 3})
    assert found["blocks"].values == (0.95,) * 3
    assert found["blocks"].note == "of all of B 0.8000 [0.8000, 0.8000]"
    assert set(found) == {
        key for key in modular.ModularStudy().published if not key.endswith("-13")
    }
    assert modular.delay([row, {**row, "learnt": 5}]) == "15 / 15, 5 / 15, 0 to 10 steps later"


def test_the_toy_studies_run_quickly_and_say_what_they_did_not_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {13: dataclasses.replace(modular.RECIPES[13], d_hidden=16)}
    monkeypatch.setattr(modular, "RECIPES", short)
    document = reproduce(["toy"], tmp_path, StudyOptions(seeds=1, steps=20, quick=True))
    verdicts = {
        name: [row["verdict"] for row in study["findings"]]
        for name, study in document["studies"].items()
    }
    measured = ["not measured"] * 5 + ["not judged: --quick"] * 3  # mod 113 is no part of --quick
    assert verdicts["toy/modular"] == measured
    page = (tmp_path / "index.html").read_text()
    assert "Gates on pairs of bits" in page
    assert page.count("<svg") == 2
