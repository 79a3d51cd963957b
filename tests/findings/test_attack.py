"""The attack of a classifier: effects against the model's own answers, proofs, refusals."""

import dataclasses
import json
from functools import cache

import pytest
import torch

import tiny
from bilens.base.errors import NotQuadraticError, ShapeError, UsageError
from bilens.findings import perturbations as subject
from bilens.findings.attack import CLIPPED_IMAGES, Judge, attack_classifier
from bilens.findings.perturbations import EPSILONS, READS, AttackRequest, Optimum, optimum
from bilens.nn import BilinearClassifier, BilinearLayer
from bilens.records.attack import Attack
from bilens.records.base import to_json

DATA = tiny.images()
TRAINING = tiny.labelled(DATA.train_images, DATA.train_labels)
TEST = tiny.labelled(DATA.test_images, DATA.test_labels)
REQUEST = AttackRequest(epsilons=(0, 0.5, 2, 4), random_perturbations=2)


def run(request: AttackRequest = REQUEST, module: BilinearClassifier | None = None) -> Attack:
    return attack_classifier(
        tiny.trained() if module is None else module, TRAINING, TEST, request, box=(0.0, 1.0)
    )


@cache
def found() -> Attack:
    return run()


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_effects_are_those_of_the_model_itself(bias: bool) -> None:
    module = tiny.classifier(1, bias=bias, residual=bias)
    findings = run(AttackRequest(target=2, epsilons=(1.0,)), module)
    (objective,) = findings.objectives
    images, labels = DATA.test_images.double(), DATA.test_labels
    images, labels = images[labels != 2], labels[labels != 2]
    assert objective.attacked_images == len(labels) == objective.clipped_images
    for perturbation in objective.perturbations:
        moved = images + torch.tensor(
            perturbation.vector, dtype=torch.float64
        )  # rounded to 5 decimals
        for effect, inputs in (
            (perturbation.effect, moved),
            (perturbation.clipped, moved.clamp(0, 1)),
        ):
            assert effect is not None
            logits = module(inputs)
            own = logits[torch.arange(len(labels)), labels]
            margin = float((own - logits[:, 2]).mean())
            assert effect.margin[0] == pytest.approx(margin, abs=1e-3)
            answers = logits.argmax(dim=1)
            near = 1.5 / len(labels)
            assert abs(effect.accuracy[0] - float((answers == labels).double().mean())) < near
            assert abs(effect.target_rate[0] - float((answers == 2).double().mean())) < near


@pytest.mark.parametrize("number", [7, 1000, 1500, 2500, 10_000])
def test_the_sample_is_of_all_images(number: int) -> None:
    """Broken once: of 1,500 images, the first 1,000, and no later class."""
    zero = torch.zeros(number, 1)
    f = tiny.classifier(d_input=1).quadratic_map()
    sample = Judge(f, zero, zero[:, 0].long(), zero, target=0).sample
    assert len(sample.unique()) == min(number, CLIPPED_IMAGES)
    quarters = torch.histc(sample.double(), 4, 0, number)
    assert bool((quarters - len(sample) / 4).abs().lt(50).all())


def test_nothing_changes_at_length_zero() -> None:
    curves = found().curves
    assert len({curve.effect.accuracy[0] for curve in curves}) == 1
    for curve in curves:
        assert curve.change[0] == 0.0
        assert curve.effect.margin[0] == pytest.approx(curves[0].effect.margin[0], rel=1e-12)


def test_the_optimal_mask_is_never_beaten_and_proven() -> None:
    findings = found()
    assert findings.holds
    assert [objective.target for objective in findings.objectives] == [0, 1, 2]
    for objective in findings.objectives:
        assert objective.proof_gap < 1e-6
        best = next(
            perturbation
            for perturbation in objective.perturbations
            if perturbation.kind == "optimal"
        )
        for perturbation in objective.perturbations:
            for own, least in zip(perturbation.change, best.change, strict=True):
                assert own >= least - 1e-9 * abs(least)
    for curve in findings.curves:
        assert min(curve.gap) >= -1e-9


def test_a_mask_that_beats_the_optimal_one_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(*arguments: object) -> Optimum:
        right = optimum(*arguments)  # type: ignore[arg-type]
        perturbation = dataclasses.replace(
            right.perturbation, deltas=0.5 * right.perturbation.deltas
        )
        return Optimum(perturbation, right.lower)

    monkeypatch.setattr(subject, "optimum", worse)
    findings = run()
    assert not findings.holds
    assert not to_json(findings)["holds"]


def test_without_edge_pixels_there_are_no_masks_of_the_edge() -> None:
    findings = found()  # strokes in grey noise: no pixel is dark
    assert findings.edge_pixels == 0
    kinds = [curve.kind for curve in findings.curves]
    assert kinds == [kind for kind in READS if not kind.endswith("edge")]
    assert findings.objectives[0].lower_edge is None


def test_with_edge_pixels_masks_of_the_edge_change_nothing_else() -> None:
    dark = DATA.train_images.clone()
    dark[:, :6] = 0
    findings = attack_classifier(
        tiny.trained(), tiny.labelled(dark, DATA.train_labels), TEST, REQUEST
    )
    assert findings.edge_pixels == 6
    assert [curve.kind for curve in findings.curves] == list(READS)
    for objective in findings.objectives:
        for perturbation in objective.perturbations:
            if perturbation.kind.endswith("edge"):
                assert not any(perturbation.vector[6:])
                assert any(perturbation.vector[:6])
    assert findings.holds


def test_pairs_are_attacked_one_by_one() -> None:
    findings = run(AttackRequest(pairs=True, epsilons=(1.0,), random_perturbations=1, restarts=1))
    pairs = [(objective.source, objective.target) for objective in findings.objectives]
    assert sorted(pairs) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert findings.holds
    counts = torch.bincount(DATA.test_labels).tolist()
    assert all(o.attacked_images == counts[o.source or 0] for o in findings.objectives)


def test_a_source_is_led_to_every_other_class_or_to_one() -> None:
    findings = run(AttackRequest(source=1, epsilons=(1.0,)))
    assert [objective.target for objective in findings.objectives] == [0, 2]
    (one,) = run(AttackRequest(source=1, target=2, epsilons=(1.0,))).objectives
    assert (one.source, one.target) == (1, 2)


def test_the_same_seed_gives_the_same_record_and_the_model_is_left_alone() -> None:
    before = {name: value.clone() for name, value in tiny.trained().state_dict().items()}
    assert json.dumps(to_json(run())) == json.dumps(to_json(found()))
    assert run(dataclasses.replace(REQUEST, seed=1)) != found()
    for name, value in tiny.trained().state_dict().items():
        assert torch.equal(value, before[name])


def test_the_record_is_json() -> None:
    content = json.loads(json.dumps(to_json(found()), allow_nan=False))
    assert (content["schema_version"], content["kind"]) == (1, "attack")
    assert content["epsilons"] == [0.0, 0.5, 2.0, 4.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilons": ()}, "one or several finite numbers"),
        ({"epsilons": (-1.0,)}, r"at least 0, got \[-1.0\]"),
        ({"epsilons": (float("nan"),)}, "finite"),
        ({"epsilons": (1.0, float("inf"))}, "finite"),
        ({"random_perturbations": 0}, "random_perturbations"),
        ({"restarts": 0}, "restarts"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed must be below"),
    ],
)
def test_requests_that_mean_nothing_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AttackRequest(**options)  # type: ignore[arg-type]


def test_lengths_are_sorted_and_each_is_taken_once() -> None:
    assert AttackRequest(epsilons=[2, 0, 2, 1]).epsilons == (0.0, 1.0, 2.0)
    assert AttackRequest().epsilons == EPSILONS


def test_models_and_data_that_cannot_be_attacked_are_refused() -> None:
    for options in ({"n_layers": 2}, {"gate": "relu"}):
        with pytest.raises(NotQuadraticError):
            run(module=tiny.classifier(**options))
    with pytest.raises(UsageError, match="got a BilinearLayer"):
        attack_classifier(BilinearLayer(4, 2), TRAINING, TEST, REQUEST)
    with pytest.raises(UsageError, match="this model has one"):
        run(module=tiny.classifier(d_output=1))
    with pytest.raises(ShapeError, match="has shape"):
        run(module=tiny.classifier(d_input=9))
    kept = DATA.test_labels != 1
    some = tiny.labelled(DATA.test_images[kept], DATA.test_labels[kept])
    with pytest.raises(UsageError, match=r"no inputs to judge it on are of .* \[1\]"):
        attack_classifier(tiny.trained(), TRAINING, some, AttackRequest(source=1, target=0))
