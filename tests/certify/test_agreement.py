"""A certified prediction is that of the whole map: no false certificate, and some true ones."""

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, NumericalError, ShapeError, UsageError
from bilens.certify.truncation import certified_agreement
from builders import randn, random_map


def fading_map(seed: int) -> QuadraticMap:
    """Five classes whose neurons get smaller, so that truncation is worth something."""
    f = random_map(seed, d_out=5, d_hidden=12, d_in=15)
    fading = f.tensor.down * 0.6 ** torch.arange(12, dtype=torch.float64)
    return QuadraticMap(BilinearTensor(fading, f.tensor.left, f.tensor.right), f.linear, f.constant)


@pytest.mark.parametrize("seed", range(4))
def test_no_certificate_is_false(seed: int) -> None:
    """20,000 inputs and every k; the classes of both maps come from their dense logits."""
    f, x = fading_map(seed), randn(20_000, 15, seed=seed)
    eigs = eigendecompose_all(f, k=None)
    shares = []
    for k in range(16):
        found = certified_agreement(f, k, x, eigs)
        kept = eigs.eigenvectors[:, :k]
        dense = torch.einsum("ck,cki,ckj->cij", eigs.eigenvalues[:, :k], kept, kept)
        short = torch.einsum("cij,bi,bj->bc", dense, x, x) + x @ f.linear.T + f.constant  # type: ignore[union-attr]
        classes = f(x).argmax(dim=1)
        assert torch.equal(found.predicted, short.argmax(dim=1))
        assert torch.equal(found.agrees, found.predicted == classes)
        assert not bool((found.certified & (found.predicted != classes)).any())
        logits = f(x)
        true_margin = logits.gather(1, found.predicted[:, None])[:, 0] - logits.scatter(
            1, found.predicted[:, None], -torch.inf
        ).amax(dim=1)
        assert bool((found.margin <= true_margin + 1e-9).all())
        assert found.certified_share <= found.agreeing_share
        shares.append(found.certified_share)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert shares[6] > 0.1


def test_part_of_the_spectrum_and_centred_forms_certify_too() -> None:
    f, x = fading_map(7), randn(500, 15)
    whole = certified_agreement(f, 6, x)
    part = certified_agreement(f, 6, x, eigendecompose_all(f, k=9, verify=True))
    assert torch.equal(part.certified, whole.certified)
    centred = f.compose_output(centred_directions(5))
    found = certified_agreement(centred, 6, x)
    assert found.certified_share > 0.1
    assert torch.equal(f(x).argmax(dim=1)[found.certified], found.predicted[found.certified])


def test_single_precision_is_read_exactly() -> None:
    f, x = fading_map(8).to(torch.float32), randn(100, 15).float()
    found = certified_agreement(f, 8, x)
    same = certified_agreement(f.to(torch.float64), 8, x.double())
    assert torch.equal(found.margin, same.margin)


def test_what_does_not_belong_together_is_refused() -> None:
    f, x = fading_map(9), randn(10, 15)
    with pytest.raises(UsageError, match="other linear or constant terms"):
        certified_agreement(f, 2, x, eigendecompose_all(fading_map(10), k=None))
    other = QuadraticMap(fading_map(10).tensor, f.linear, f.constant)
    with pytest.raises(NumericalError, match="not those of f"):
        certified_agreement(f, 15, randn(500, 15), eigendecompose_all(other, k=None))
    with pytest.raises(ShapeError, match="one form for each output"):
        certified_agreement(f, 2, x, eigendecompose_all(f, k=None)[0])
    with pytest.raises(UsageError, match="two classes"):
        certified_agreement(random_map(d_out=1), 1, randn(2, 5))
    with pytest.raises(UsageError, match=r"^f is a QuadraticForm; .*use the layer's quadratic_map"):
        certified_agreement(f.form(randn(len(f.tensor.down))), 2, x)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no input"):
        certified_agreement(f, 2, x[:0])
    with pytest.raises(UsageError, match="k=16"):
        certified_agreement(f, 16, x)
    with pytest.raises(NonFiniteError):
        certified_agreement(f, 2, x * torch.nan)
