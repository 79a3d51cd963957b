"""Guards against readings of an estimator that start elsewhere than at the mean of its rows.

Damage that it notices: class weights that move the mean that attributions and effects start from.
"""

import numpy as np
import pytest

import bilens as bl
from contract.table import cell


def drawn(weights: object) -> tuple[bl.sklearn.BilinearClassifier, np.ndarray, np.ndarray]:
    """A classifier of two classes that are apart, one of them rare."""
    rng = np.random.default_rng(0)
    y = (np.arange(80) % 8 == 0).astype(int)
    x = rng.normal(size=(80, 3)) * [1.0, 20.0, 0.1] + 2.0 * y[:, None]
    return bl.sklearn.BilinearClassifier(class_weight=weights).fit(x, y), x, y


@pytest.mark.parametrize("weights", [None, "balanced", {0: 1.0, 1: 30.0}])
@cell("attribute", "own object")
def test_a_reading_starts_at_the_mean_of_the_rows(weights: object) -> None:
    """What starts at zero effect is the mean row, whatever the classes weigh in the fit."""
    model, x, _ = drawn(weights)
    mean, deviation = x.mean(axis=0), x.std(axis=0)

    def centred(rows: np.ndarray) -> np.ndarray:
        second = model.decision_function(rows)  # second − first
        return np.stack([-second / 2, second / 2], axis=1)

    told = model.attribute(x[:5]).sum(axis=2)
    np.testing.assert_allclose(told, centred(x[:5]) - centred(mean[None]), atol=1e-9)
    step = 1e-3
    for _, one in model.effects_.iterrows():
        column, place = int(one.column.removeprefix("x")), int(one.output)
        rows = np.stack([mean, mean, mean])
        rows[1, column] += step * deviation[column]
        rows[2, column] -= step * deviation[column]
        at, above, below = centred(rows)[:, place]
        assert one.linear == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8)
        assert one.square == pytest.approx((above + below - 2 * at) / (2 * step**2), abs=1e-5)
    saved = model.loaded_model()
    assert saved.input_mean == pytest.approx(tuple(mean))
    assert saved.input_scale == pytest.approx(tuple(deviation))
