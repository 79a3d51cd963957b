"""Guards against a closed form that is not what it stands for: the same, counted one by one.

Damage that it notices: attributions that do not sum to what they explain; an angle called
guaranteed that a change exceeds; a trimmed R² that single rows decide.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import bilens as bl
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.certify.stability import spectrum_stability
from contract.compared_models import classifier, generator_of
from contract.drawn import drawn
from contract.table import cell

SEEDS = st.integers(0, 2**20)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=torch.float64)


@cell("attribute", "own object")
@drawn
@given(seed=SEEDS, outputs=st.sampled_from([None, [0], [2, 1]]))
def test_attributions_to_a_background_are_the_mean_over_its_rows(
    seed: int, outputs: list[int] | None
) -> None:
    """They sum to what the model itself answers, less its mean answer on the background."""
    module = classifier(seed)
    f = bl.quadratic_fit(module).quadratic_map
    x, background = randn(5, 6, seed=seed + 1), 2 + randn(9, 6, seed=seed + 2)
    mean, spread = background.mean(dim=0), torch.cov(background.T, correction=0)
    found = bl.attribute_to_background(f, x, mean, spread, outputs=outputs)
    one_by_one = [bl.attribute(f, x, row, outputs=outputs) for row in background]
    torch.testing.assert_close(found, torch.stack(one_by_one).mean(dim=0))
    with torch.no_grad():
        moved = module(x) - module(background).mean(dim=0)
    moved = moved if outputs is None else moved[:, outputs]
    torch.testing.assert_close(found.sum(dim=2), moved)


# ---- angles of eigenvectors


def form_of(matrix: np.ndarray) -> bl.QuadraticForm:
    eye = torch.eye(len(matrix), dtype=torch.float64)
    full = torch.from_numpy(matrix) @ eye
    parts = bl.InteractionMatrix(eye, full, torch.ones(len(matrix), dtype=torch.float64))
    return bl.QuadraticForm(parts, eye[0] * 0, eye[0, 0] * 0)


@cell("certify", "own object", "other function")
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.49])
@pytest.mark.parametrize("turn", [0.3, 0.9, 1.4])
def test_no_change_turns_an_eigenvector_by_more_than_is_guaranteed(
    share: float, turn: float
) -> None:
    """Of a gap of 1: among changes of one size in all directions, the worst is within the bound."""
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    before = spin @ np.diag([2.0, 1.0]) @ spin.T
    worst = 0.0
    for angle in np.linspace(0, np.pi, 181):
        c, s = np.cos(angle), np.sin(angle)
        change = share * spin @ np.array([[c, s], [s, -c]]) @ spin.T
        leading = np.linalg.eigh(before + change)[1][:, -1]
        worst = max(worst, abs(float(leading @ spin[:, 1])))
    found = spectrum_stability(form_of(before), form_of(before + change))
    assert found.change == pytest.approx(share, rel=1e-6)
    assert worst <= float(found.sine[0]) <= 1
    assert float(found.sine[0]) < 1, "something is guaranteed"


# ---- R² that leaves rows out


@cell("fit", "own object", "repeated rows", "shuffled rows")
@pytest.mark.parametrize("count", [500, 4000])
@pytest.mark.parametrize("sinks", [0, 1, 40])
def test_rows_that_are_far_off_decide_no_trimmed_r_squared(count: int, sinks: int) -> None:
    """As of tokens that carry a thousand times the rest: by hand, without them all."""
    y, said = randn(count, 3, seed=0), 0.5 * randn(count, 3, seed=1)
    said = said + 0.8 * y
    y[:sinks] *= 1000
    order = torch.randperm(count, generator=generator_of(2))
    left_out = max(sinks, -(-count // 1000))
    few = np.argsort(np.linalg.norm(y.numpy(), axis=1))[: count - left_out]
    part, of_part = y.numpy()[few], said.numpy()[few]
    truth = 1 - ((part - of_part) ** 2).sum() / ((part - part.mean(axis=0)) ** 2).sum()
    for rows in (torch.arange(count), order):
        assert r_squared_on(y[rows], said[rows]).trimmed == pytest.approx(truth, abs=1e-12)
