"""Guards against rows that judge what was made of them, and seeds and draws that do not count.

Damage that it notices: a penalty chosen on rows that were fitted, R² on rows of the fit, copies of
a row on both sides, a seed that is dropped on the way, the first rows in place of drawn ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import bilens.sklearn as bls
import tiny
from bilens.api.classifier import attack_model, certify_model, halves
from bilens.api.quadratic_fit import fit_on_inputs
from contract.compared_models import generator_of
from contract.table import cell


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


# ---- rows that judge


@cell("train table", "other function")
@pytest.mark.parametrize("seed", range(3))
def test_on_noise_no_penalty_looks_better_than_guessing(seed: int) -> None:
    """More features than rows learn any noise by heart, which rows that were fitted reward."""
    x, noise = randn(80, 14, seed=seed).numpy(), randn(80, seed=seed + 9).numpy()
    small = {"alpha": 1e-3, "quadratic_scale": 0.1, "column_scale": "standard"}
    assert bls.BilinearRegressor(**small).fit(x, noise).score(x, noise) > 0.9
    fitted = bls.BilinearRegressor(random_state=seed).fit(x, noise)
    guess = float(np.mean((noise - noise.mean()) ** 2)) / float(noise.var()) / 2
    best = min(fitted.choice_.tried, key=lambda one: one.loss)
    assert best.loss > 0.95 * guess
    assert best.alpha > 10


@cell("fit", "own object", "other function")
def test_r_squared_of_a_layer_is_of_documents_that_nothing_was_fitted_to() -> None:
    """By hand, from the map that the rows of the fit alone give."""
    torch.manual_seed(0)
    parts = nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)
    network = nn.Sequential(*parts).double().eval()
    inputs = bl.layer_inputs(network, 2 * randn(400, 4, seed=1))
    fits = {one.name: one for one in fit_on_inputs(inputs).fits}
    assert fits.keys() == inputs.sites.keys()
    for name, site in inputs.sites.items():
        x, held_out = (inputs.rows(name, part).x for part in ("fit", "held_out"))
        assert len(held_out) == 80
        f = bl.quadratic_fit(site.view, data=x, held_out=held_out).quadratic_map
        with torch.no_grad():
            truth, said = site.view.weights(torch.float64)(held_out.double()), f(held_out.double())
        lost = (truth - said).square().sum() / (truth - truth.mean(dim=0)).square().sum()
        assert fits[name].scores.quadratic.value == pytest.approx(1 - float(lost), abs=1e-6)


@cell("attack", "repeated rows")
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_a_row_are_on_one_side(seed: int) -> None:
    different = randn(30, 4, seed=seed)
    times = torch.randint(1, 5, (30,), generator=generator_of(seed))
    which = torch.arange(30).repeat_interleave(times)
    which = which[torch.randperm(len(which), generator=generator_of(seed))]
    labels = torch.arange(30)[which] % 3
    one, other = (which[side] for side in halves(different[which], labels, seed))
    assert not {*one.tolist()} & {*other.tolist()}
    assert len(one) + len(other) == len(which)
    assert min(len({*one.tolist()}), len({*other.tolist()})) >= 12


# ---- seeds and draws


def attacked(data: Any, seed: int) -> list[Any]:
    asked = {"target": 1, "epsilons": [0, 1], "restarts": 1, "random_perturbations": 2}
    (found,) = attack_model(
        tiny.loaded(tiny.classifier(0)), data, seed=seed, **asked
    ).record.objectives
    return [one for one in found.perturbations if "random" in one.kind]


@cell("attack", "other function", "same function")
@pytest.mark.parametrize("given", ["a data set", "rows"])
def test_another_seed_of_an_attack_draws_other_perturbations(given: str) -> None:
    data = tiny.images()
    rows = data.test_images, data.test_labels
    found = [attacked(data if given == "a data set" else rows, seed) for seed in (0, 1, 1)]
    assert found[1] == found[2]
    for one, other in zip(*found[:2], strict=True):
        assert one.vector != other.vector


@cell("train table", "other function")
def test_each_option_of_a_corpus_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilens.api.train.train_language", lambda _, read, *__, **___: read)
    options = {"column": "c", "split": "s", "held_out": 0.3, "limit": 7, "stream": True}
    read: Any = bl.train_language("grammar", tmp_path / "m", corpus_seed=5, steps=2, **options)
    assert {name: getattr(read, name) for name in options} == options
    assert read.seed == 5


@cell("audit", "sorted rows")
def test_radii_of_sorted_rows_are_those_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw of them has the median of all, up to chance; those in front have radii near 0."""
    monkeypatch.setattr("bilens.findings.given_inputs.RADII", 60)
    model = tiny.classifier(0)
    x = randn(200, tiny.PIXELS, seed=1)
    x[:70] *= 1e-3
    data = x, model(x).argmax(dim=1)
    proven = certify_model(model, data, samples=200).record.l2
    assert proven is not None
    every = np.array([one.radius for one in proven.inputs])
    found = bl.audit(model, data, null_samples=39).record.inputs
    assert found is not None
    assert found.test is not None
    assert found.test.radius is not None
    assert found.test.num_radii == 60
    assert 0.25 < float((every < found.test.radius).mean()) < 0.75
