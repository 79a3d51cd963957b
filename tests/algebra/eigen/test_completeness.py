"""No wrong proof: what is called complete is complete, in every family of hostile forms.

Every claim is checked against matrices formed in extended precision and a dense solver, with the
rounding of both as the only allowance. BILENS_TEST_FORMS sets how many forms there are in all
(default 2,000, a tenth of them without the slow tests); 10,000 take about a minute."""

import os
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigen.lanczos_solver import first_vector
from bilens.algebra.eigen.proofs import RefinedPairs, innermost, proven_by_norm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError
from builders import seeded, vector
from hostile_forms import FAMILIES, WIDTHS, Dice

EPS = np.finfo(np.float64).eps
FORMS = int(os.environ.get("BILENS_TEST_FORMS", "2000"))
BATCH = 20
BATCHES = max(round(FORMS / BATCH / len(FAMILIES)), 1)
WIDE, WIDE_BATCH = (130, 200, 333, 600), 2
WIDE_BATCHES = max(round(FORMS / 2500), 1)
METHODS = ("lanczos", "factored", "dense", "auto")
WHICH = ("magnitude", "largest", "smallest", "both")
TOLERANCE = {"float32": 1e-6, "float64": 1e-11}
TIE = 1e-8  # sizes that agree to this are equal; the positive one comes first


class Exact:
    """The matrices of a map in extended precision, in units of their own, and their spectra.

    Attributes:
        q: (out, in, in) longdouble.
        size: (out,), ‖Q‖_F.
        spectra: (out, in), rising; within `error` of the truth.
        before: (out,), Σ|s|‖l‖‖r‖, the size before cancelling.
    """

    def __init__(self, f: QuadraticMap, directions: Tensor) -> None:
        down, left, right, rows = (
            part.double().numpy().astype(np.longdouble)
            for part in (f.tensor.down, f.tensor.left, f.tensor.right, directions)
        )
        terms = np.abs(rows) @ np.abs(down)
        down = rows @ down
        half = np.stack([(left.T * row) @ right for row in down])
        self.q = (half + half.transpose(0, 2, 1)) / 2
        unit = np.abs(self.q).max(axis=(1, 2))
        self.unit = np.where(unit > 0, unit, 1)
        scaled = self.q / self.unit[:, None, None]
        self.size = np.sqrt((scaled**2).sum(axis=(1, 2))) * self.unit
        self.spectra = np.linalg.eigvalsh(scaled.astype(np.float64)) * self.unit[:, None]
        lengths = np.sqrt((left**2).sum(axis=1)) * np.sqrt((right**2).sum(axis=1))
        self.before = terms @ lengths
        self.error = 10 * left.shape[1] * EPS * self.size

    def noise(self, c: int) -> float:
        """What rounding may do to form c: 1000 eps of it, and 10 eps of its terms.

        Rows are kept at lengths from ½ to 1, so their sizes are known within a factor of 4.
        """
        return float(1000 * EPS * self.size[c] + 40 * EPS * self.before[c] + self.error[c])


def represented(found: list[float], spectrum: list[float], allowed: float) -> bool:
    """Whether the values are different eigenvalues of a rising spectrum, each within `allowed`."""
    place = 0
    for value in sorted(found):
        while place < len(spectrum) and spectrum[place] < value - allowed:
            place += 1
        if place == len(spectrum) or spectrum[place] > value + allowed:
            return False
        place += 1
    return True


def selected(found: list[float], spectrum: list[float], which: str, allowed: float) -> bool:
    """Whether no eigenvalue that belongs to the selection is missing, up to `allowed`."""
    expected = oracles.chosen(torch.tensor(spectrum, dtype=torch.float64), len(found), which)
    if which == "magnitude":
        here, there = sorted(map(abs, found)), sorted(map(abs, expected))
        within = [allowed + TIE * size * tied(size, spectrum) for size in there]
    else:
        here, there, within = sorted(found), sorted(expected), [allowed] * len(found)
    return all(abs(a - b) <= limit for a, b, limit in zip(here, there, within, strict=True))


def tied(size: float, spectrum: list[float]) -> bool:
    """Whether eigenvalues of both signs have this size, so that the positive one comes first."""
    near = [value for value in spectrum if abs(abs(value) - size) <= TIE * size]
    return min(near) < 0 < max(near)


def wrong_claims(
    exact: Exact, eigs: EigenDecomposition, k: int, which: str, tolerance: float
) -> list[str]:
    """What is claimed about some forms and does not hold."""
    wrong = []
    for c, single in enumerate(eigs):
        values, vectors = single.eigenvalues.tolist(), single.eigenvectors
        rows = vectors.numpy().astype(np.longdouble)
        lambdas = single.eigenvalues.numpy().astype(np.longdouble)
        true = np.sqrt((((rows @ exact.q[c]) - lambdas[:, None] * rows) ** 2).sum(axis=1))
        noise = exact.noise(c)
        residuals = single.residuals.numpy()
        if single.status is not Status.OK:
            wrong.append(f"form {c} has status {single.status}")
        if not bool((np.abs(true - residuals) <= noise).all()):
            wrong.append(f"form {c}: residuals {residuals}, in truth {true}")
        if bool((true[single.converged.numpy()] > tolerance * exact.size[c] + 2 * noise).any()):
            wrong.append(f"form {c}: converged with residuals {true} of {exact.size[c]}")
        overlap = vectors @ vectors.T - torch.eye(k, dtype=torch.float64)
        if float(overlap.abs().max()) > 1e-12:
            wrong.append(f"form {c}: vectors are not orthonormal")
        if bool(single.complete) is (single.proof is Proof.NONE):
            wrong.append(f"form {c}: complete {single.complete} with {single.proof}")
        allowed = float(true.max()) + noise
        if float(single.rounding_bound) > 2 * (tolerance * exact.size[c] + noise):
            wrong.append(f"form {c}: noise {single.rounding_bound}")
        spectrum = exact.spectra[c].astype(np.float64).tolist()
        if not represented(values, spectrum, allowed):
            wrong.append(f"form {c}: {values} are not among {spectrum}")
        if bool(single.complete) and not selected(values, spectrum, which, allowed):
            wrong.append(f"form {c}: {values} called complete in {spectrum}")
    return wrong


def draw(
    family: str, batch: int, num: int = BATCH, widths: tuple[int, ...] = WIDTHS
) -> tuple[Dice, QuadraticMap]:
    seed = 1000 * list(FAMILIES).index(family) + batch
    dice = Dice(seeded(seed), lambda n: first_vector(n, 0), widths)
    return dice, FAMILIES[family](dice, num)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_called_complete_is_complete(family: str, sweep_share: float) -> None:
    num_batches = max(round(sweep_share * BATCHES), 1)
    wrong, proven, claims = [], Counter[str](), 0
    for batch in range(num_batches):
        dice, f = draw(family, batch)
        exact = Exact(f, torch.eye(BATCH))
        for method, precision in product(METHODS, TOLERANCE):
            which = WHICH[dice.integer(0, 3)]
            k = dice.integer(1, min(f.sizes.d_in, 4))
            if dice.integer(0, 9) == 0:
                k = f.sizes.d_in
            verify = dice.integer(0, 4) == 0 and method == "lanczos"
            eigs = eigendecompose_all(
                f, k=k, which=which, method=method, precision=precision, verify=verify
            )
            what = f"{family} {batch} {method} {precision} {which} k={k} verify={verify}"
            tolerance = TOLERANCE[precision]
            wrong += [f"{what}: {w}" for w in wrong_claims(exact, eigs, k, which, tolerance)]
            if (verify or method in ("dense", "factored")) and not bool(eigs.complete.all()):
                wrong.append(f"{what}: not everything was verified")
            claims += BATCH
            proven[method] += int(eigs.complete.sum())
    print(f"{family}: {num_batches * BATCH} forms, {claims} answers, proven {dict(proven)}")  # noqa: T201
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_in_float32_prove_nothing_that_is_wrong(
    family: str, sweep_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in float32, and norms from the Gram matrix however few the forms are."""
    num_batches = max(round(sweep_share * BATCHES), 1)
    monkeypatch.setattr("bilens.algebra.eigen.proofs.norm_by_columns", lambda *_: torch.inf)
    wrong = []
    for batch in range(num_batches):
        dice, f = draw(family, batch)
        try:
            f = f.to(torch.float32)
        except NonFiniteError:  # its scale is beyond float32
            continue
        exact = Exact(f, torch.eye(BATCH))
        which, k = WHICH[dice.integer(0, 3)], dice.integer(1, min(f.sizes.d_in, 4))
        eigs = eigendecompose_all(f, k=k, which=which, method="lanczos", precision="float32")
        found = wrong_claims(exact, eigs, k, which, TOLERANCE["float32"])
        wrong += [f"{family} {batch} {which} k={k}: {w}" for w in found]
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("family", FAMILIES)
def test_wide_forms_along_centred_directions(family: str) -> None:
    """Widths at which the iteration ends long before its basis is full; common parts cancel."""
    wrong, rows = [], centred_directions(WIDE_BATCH)
    for batch in range(WIDE_BATCHES):
        dice, f = draw(family, 500 + batch, WIDE_BATCH, WIDE[: 2 + batch])
        exact = Exact(f, rows)
        for precision in TOLERANCE:
            which, k = WHICH[dice.integer(0, 3)], min(dice.integer(1, 4), f.sizes.d_in)
            eigs = eigendecompose_all(
                f, rows, k=k, which=which, method="lanczos", precision=precision
            )
            what = f"{family} {batch} {precision} {which} k={k}"
            found = wrong_claims(exact, eigs, k, which, TOLERANCE[precision])
            wrong += [f"{what}: {w}" for w in found]
    assert not wrong, "\n".join(wrong[:20])


NAN = torch.nan


def pairs(values: Tensor, residual: float = 0.0, noise: float = 0.0) -> RefinedPairs:
    """One form with these values; the vectors do not enter a proof."""
    values = values[None]
    vectors = torch.zeros(1, values.shape[1], 1).double()
    return RefinedPairs(values, vectors, torch.full_like(values, residual), vector(noise))


def proven(found: RefinedPairs, mass: float, which: str = "magnitude", error: float = 0.0) -> bool:
    return bool(proven_by_norm(found, vector(mass), vector(error), which))


@pytest.mark.parametrize(
    ("mass", "expected"),
    [
        (9 + 4 + 3.9, True),  # an eigenvalue of √3.9 < 2 at most
        (9 + 4 + 4.0, False),  # one of 2 would be as large as the second
        (9 + 4 + 4.1, False),
        (9 + 4 + 0.0, True),
    ],
)
def test_a_mass_that_leaves_no_room_is_a_proof(mass: float, expected: bool) -> None:
    assert proven(pairs(vector(3, -2)), mass) is expected


def test_the_rounding_of_the_mass_counts_against_the_proof() -> None:
    assert proven(pairs(vector(3, -2)), 16.9)
    assert not proven(pairs(vector(3, -2)), 16.9, error=0.1)


def test_residuals_count_against_the_proof_twice() -> None:
    """δ = 0.1 √2: Σ(|θ| − δ)² = 8.172 + 3.454 leaves 1.835², the bar is 1.859 for a mass of 15.
    For 15.3 it leaves 1.915²; without either correction both would be proven."""
    assert proven(pairs(vector(3, -2), residual=0.1), 15.0)
    assert not proven(pairs(vector(3, -2), residual=0.1), 15.3)
    assert proven(pairs(vector(3, -2)), 15.3)


def test_noise_counts_against_the_proof() -> None:
    """δ = 0.1: 8.41 + 3.61 leaves 1.887² for 15.58, the bar is 1.9; 1.905² for 15.65."""
    assert proven(pairs(vector(3, -2), noise=0.1), 15.58)
    assert not proven(pairs(vector(3, -2), noise=0.1), 15.65)


@pytest.mark.parametrize(
    ("values", "which", "mass", "expected"),
    [
        ((3, 2), "largest", 9 + 4 + 3.9, True),
        ((3, 2), "largest", 9 + 4 + 4.1, False),
        ((3, -2), "largest", 9 + 4 + 0.1, False),  # 0.3 would belong between 3 and −2
        ((3, 0), "largest", 9 + 0.1, False),
        ((-3, -2), "smallest", 9 + 4 + 3.9, True),
        ((-3, 2), "smallest", 9 + 4 + 0.1, False),
        ((3, -2), "both", 9 + 4 + 3.9, True),
        ((3, -2), "both", 9 + 4 + 4.1, False),
        ((2, -3), "both", 9 + 4 + 4.1, False),
        ((3, 2), "both", 9 + 4 + 0.1, False),  # 2 is not the smallest if −0.3 is there
        ((4, 3, -2), "both", 16 + 9 + 4 + 3.9, True),
        ((4, -3, -2), "both", 16 + 9 + 4 + 0.1, False),
    ],
)
def test_at_an_end_the_innermost_value_must_lie_on_its_own_side_of_zero(
    values: tuple[float, ...], which: str, mass: float, expected: bool
) -> None:
    assert proven(pairs(vector(*values)), mass, which) is expected


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
def test_a_form_of_zeros_is_proven(which: str) -> None:
    assert proven(pairs(vector(0, 0)), 0.0, which)


def test_what_is_smaller_than_the_noise_cannot_be_missed() -> None:
    """‖Q‖ below the noise: no eigenvalue can be told from zero."""
    assert proven(pairs(vector(0, 0), noise=1e-3), 1e-7)
    assert not proven(pairs(vector(0, 0), noise=1e-3), 1e-5)


@pytest.mark.parametrize("part", ["values", "residuals", "mass", "error"])
def test_nothing_is_proven_about_nan(part: str) -> None:
    found = pairs(vector(3, NAN if part == "values" else 2), NAN if part == "residuals" else 0.0)
    mass, error = (NAN if part == name else 0.0 for name in ("mass", "error"))
    assert not proven(found, 13 + mass, error=error)


def test_forms_are_judged_one_by_one() -> None:
    values = torch.stack([vector(3, 2), vector(3, 2), vector(30, 20)])
    found = RefinedPairs(values, values[..., None], 0 * values, vector(0, 0, 0))
    norms = vector(14, 18, 1400)
    assert proven_by_norm(found, norms, 0 * norms, "magnitude").tolist() == [True, False, True]


def test_the_innermost_value_of_each_end() -> None:
    values = vector(5, -4, 3, -2)[None]
    assert innermost(values, "magnitude").item() == 2
    assert innermost(values, "largest").item() == -4  # negative: nothing is proven by it
    assert innermost(values, "smallest").item() == -5
    assert innermost(values, "both").item() == 2
    assert innermost(values[:, :3], "both").item() == 3  # 5 and 3 above, −4 below
