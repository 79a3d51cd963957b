"""Figures on axes: what is drawn is what the result says, and nothing is loaded before."""

import sys
from collections.abc import Iterator

import pytest
import torch

import bilens as bl
from bilens.base.errors import MissingExtraError, ShapeError, UsageError
from builders import randn, random_map

pyplot = pytest.importorskip("matplotlib.pyplot")
F = random_map(d_out=3, d_hidden=12, d_in=9)
EIGS = bl.eigendecompose_all(F)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    pyplot.switch_backend("agg")
    pyplot.close("all")  # of other tests of this process
    yield
    pyplot.close("all")


def test_eigenvectors_are_images_a_row_for_each_form() -> None:
    ax = bl.plot.eigenvectors(EIGS, k=2, names=("a", "b", "c"))
    image = ax.images[0].get_array()
    assert image.shape == (3 * 4, 2 * 4)
    vector = EIGS.eigenvectors[1, 1].reshape(3, 3)
    drawn = torch.as_tensor(image[4:7, 4:7].data)
    torch.testing.assert_close(drawn, vector / vector.abs().max())
    assert ax.texts[3].get_text() == f"{float(EIGS.eigenvalues[1, 1]):.3g}"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    given = pyplot.subplots()[1]
    assert bl.plot.eigenvectors(EIGS[0], (1, 9), ax=given) is given
    assert len(pyplot.get_fignums()) == 2  # none of its own where axes are given


def test_a_spectrum_stands_before_the_band_of_its_direction() -> None:
    null = bl.rotation_null(F, None, num_samples=39)
    ax = bl.plot.spectrum(EIGS[2], null, direction=2)
    assert [*ax.lines[-1].get_ydata()] == sorted(EIGS[2].eigenvalues.tolist(), reverse=True)
    low, high = (float(edge[2]) for edge in null.edges())
    box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (box.y0, box.y1) == (pytest.approx(low), pytest.approx(high))
    assert ax.get_legend().get_texts()[0].get_text() == "95% of random rotations at each end"
    assert not bl.plot.spectrum(EIGS[2]).patches


def test_a_spectrum_has_the_basis_of_its_band() -> None:
    model = bl.nn.BilinearClassifier(6, 4, 2)
    eig = bl.eigendecompose(model.quadratic_map().form(0))
    layer = model.quadratic_map("embedding").detach()
    with pytest.raises(UsageError, match="in the input basis and the null in the embedding "):
        bl.plot.spectrum(eig, bl.rotation_null(layer, None, num_samples=2))
    embedding = model.embed.weight.detach()
    bl.plot.spectrum(eig, bl.rotation_null(layer, None, num_samples=2, embedding=embedding))


def test_a_truncation_ends_where_the_map_itself_is() -> None:
    x = randn(50, 9)
    label = F(x).argmax(dim=1)
    ax = bl.plot.truncation(EIGS, x, label)
    line = ax.lines[0]
    assert ax.get_ylabel() == "share of right answers, 50 inputs"
    lowest = bl.plot.truncation(bl.eigendecompose_all(F, k=2, which="smallest"), x, label)
    assert "by falling |eigenvalue|" in ax.get_xlabel()
    assert "the smallest alone" in lowest.get_xlabel()
    assert [*line.get_xdata()] == [*range(10)]
    assert line.get_ydata()[-1] == 1.0
    kept = EIGS.truncate_map(2)(x).argmax(dim=1)
    assert line.get_ydata()[2] == pytest.approx(float((kept == label).double().mean()))


def test_a_heat_map_is_the_matrix_on_a_symmetric_scale() -> None:
    q = F.form(0)
    ax = bl.plot.interactions(q, names="abcdefghi")
    torch.testing.assert_close(torch.as_tensor(ax.images[0].get_array().data), q.dense())
    low, high = ax.images[0].get_clim()
    assert -low == high == float(q.dense().abs().max())
    assert (ax.get_title(), ax.get_xlabel()) == ("interactions, input basis", "input")
    assert ax.figure.axes[1].get_ylabel() == "output per product of two inputs"


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ShapeError, match="9 inputs are no images of 2 × 4: pass shape"):
        bl.plot.eigenvectors(EIGS, (2, 4))
    with pytest.raises(ShapeError, match="9 inputs are no images of 9 × 1 × 1: pass shape"):
        bl.plot.eigenvectors(EIGS, (9, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="matrix is not symmetric"):
        bl.plot.interactions(randn(3, 3))
    with pytest.raises(UsageError, match="2 names for 3 forms"):
        bl.plot.eigenvectors(EIGS, names=("a", "b"))
    with pytest.raises(ShapeError, match=r"of one form: use eigs\[c\]"):
        bl.plot.spectrum(EIGS)
    with pytest.raises(UsageError, match="there is no direction 1: the null has 1"):
        bl.plot.spectrum(EIGS[0], bl.rotation_null(F, torch.eye(3)[:1], num_samples=2), direction=1)
    with pytest.raises(ShapeError, match="needs every class"):
        bl.plot.truncation(EIGS[0], randn(2, 9), [0, 1])
    with pytest.raises(ShapeError, match=r"\(2, 3\); a square one"):
        bl.plot.interactions(randn(2, 3))
    with pytest.raises(UsageError, match=r"eig is a QuadraticMap; expected EigenDecomposition"):
        bl.plot.spectrum(F)


def test_figures_without_matplotlib_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'bilens\[plot\]'"):
        bl.plot.spectrum(EIGS[0])
