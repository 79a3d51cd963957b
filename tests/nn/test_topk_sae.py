"""TopKSAE: the formula, which latents are kept, units, gradients, sparse products, refusals."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn import TopKSAE
from bilens.nn.sparse_autoencoder import code_times, code_transposed_times
from bilens.nn.topk_sae import chosen_pre_activations, largest


def drawn(sign: str = "relu", *, d_in: int = 6, num_latents: int = 20, k: int = 4) -> TopKSAE:
    """An autoencoder in float64 whose every number is far from its start."""
    sae = TopKSAE(d_in, num_latents, k, sign=sign).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        sae.scale.fill_(0.7)
    return sae


def inputs(rows: int = 30, d_in: int = 6, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d_in, generator=generator, dtype=torch.float64)


def plain_encode(sae: TopKSAE, x: Tensor) -> Tensor:
    """The docstring's formula, written out for one row at a time."""
    z = torch.zeros(len(x), sae.num_latents, dtype=x.dtype)
    for row, value in enumerate(x):
        pre = sae.encoder @ (sae.scale * value - sae.decoder_bias) + sae.encoder_bias
        for latent in sorted(range(sae.num_latents), key=lambda f: -pre[f].item())[: sae.k]:
            z[row, latent] = pre[latent].clamp(min=0) if sae.sign == "relu" else pre[latent]
    return z


@pytest.mark.parametrize("sign", ["relu", "raw"])
def test_it_computes_its_formula(sign: str) -> None:
    sae, x = drawn(sign), inputs()
    z = plain_encode(sae, x)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x), (z @ sae.decoder + sae.decoder_bias) / sae.scale)
    torch.testing.assert_close(sae(x), sae.decode(sae.encode(x)))
    pre = sae.scale * (x @ sae.encoder.T) + sae.offset
    torch.testing.assert_close(sae.pre_activations(x), pre)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (2, 3, 6), (0, 6), (2, 0, 6)])
def test_any_axes_may_stand_before_the_last(shape: tuple[int, ...]) -> None:
    sae, x = drawn(), torch.ones(shape, dtype=torch.float64)
    assert sae(x).shape == shape
    assert sae.encode(x).shape == (*shape[:-1], 20)
    assert sae.top(x).indices.shape == (*shape[:-1], 4)


def test_a_new_one_is_tied_and_has_unit_rows() -> None:
    sae = TopKSAE(5, 12, 3)
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(12))
    assert torch.equal(sae.encoder, sae.decoder)
    assert not sae.encoder_bias.any()
    assert not sae.decoder_bias.any()
    assert {*sae.state_dict()} == {*("encoder", "encoder_bias", "decoder", "decoder_bias", "scale")}


def test_folded_is_the_same_function_in_the_units_of_the_layer() -> None:
    for sign in ("relu", "raw"):
        sae, x = drawn(sign), inputs()
        folded = sae.folded()
        assert float(folded.scale) == 1
        torch.testing.assert_close(folded(x), sae(x))
        torch.testing.assert_close(folded.encode(x) * sae.scale, sae.encode(x))
        assert torch.equal(folded.decoder, sae.decoder)


def test_with_relu_a_row_without_positive_latents_is_all_zero() -> None:
    relu, raw = drawn(), drawn("raw")
    with torch.no_grad():
        for sae in (relu, raw):
            sae.encoder_bias.fill_(-100.0)
    assert not relu.encode(inputs()).any()
    assert (raw.encode(inputs()) < 0).sum(dim=1).tolist() == [4] * 30
    expected = (relu.decoder_bias / relu.scale).expand(30, 6)
    torch.testing.assert_close(relu(inputs()), expected)


def test_of_equal_pre_activations_the_first_are_kept() -> None:
    """Whatever stands beside the row, and whatever the number of equal ones."""
    sae = drawn("raw", num_latents=600, k=5)
    with torch.no_grad():
        sae.encoder.zero_()
        sae.encoder_bias.fill_(2.0)
        sae.encoder_bias[300] = 3.0
    for rows in (1, 2, 33):
        kept = sae.encode(inputs(rows)) != 0
        assert [row.nonzero().flatten().tolist() for row in kept] == [[0, 1, 2, 3, 300]] * rows


def test_half_precision_weights_choose_as_in_float32() -> None:
    sae = drawn(num_latents=64).bfloat16()
    same = drawn(num_latents=64)
    same.load_state_dict(sae.state_dict())
    x = inputs(200).float()
    assert torch.equal(sae.top(x).indices, same.float().top(x).indices)
    assert sae(x.bfloat16()).dtype == torch.float32


def test_gradients_are_those_of_the_dense_formula() -> None:
    for sign in ("relu", "raw"):
        sae, x = drawn(sign), inputs().requires_grad_()
        weights = inputs(seed=2)
        (sae(x) * weights).sum().backward()
        found = [x.grad, *(parameter.grad for parameter in sae.parameters())]
        sae.zero_grad()
        other = x.detach().requires_grad_()
        pre = sae.pre_activations(other)
        values, indices = pre.topk(4, dim=1)
        values = values.relu() if sign == "relu" else values
        dense = torch.zeros_like(pre).scatter(1, indices, values)
        (sae.decode(dense) * weights).sum().backward()
        expected = [other.grad, *(parameter.grad for parameter in sae.parameters())]
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_it_is_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    sae = drawn("raw")
    model = load(save(sae, tmp_path, provenance={"hook": "blocks.0.mlp_out"}))
    assert isinstance(model.module, TopKSAE)
    assert torch.equal(model.module(inputs()), sae(inputs()))
    assert model.module.sign == "raw"
    assert model.provenance["hook"] == "blocks.0.mlp_out"


def test_a_scale_that_cannot_be_divided_by_is_refused(tmp_path: Path) -> None:
    sae = drawn()
    with torch.no_grad():
        sae.scale.zero_()
    with pytest.raises(UsageError, match="scale is 0 at one place; expected a positive number"):
        save(sae, tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((4, 8, 8), "k is 8 and num_latents is 8: an input keeps fewer latents than there are"),
        ((4, 8, 9), "k is 9 and num_latents is 8"),
        ((4, 8, 0), "k must be an integer of at least 1, got 0"),
        ((4, 1, 1), "num_latents must be an integer of at least 2, got 1"),
        ((0, 8, 2), "d_in must be an integer of at least 1, got 0"),
        ((4.0, 8, 2), "d_in must be an integer of at least 1, got 4.0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TopKSAE(*sizes)


def test_a_sign_is_never_guessed() -> None:
    with pytest.raises(UsageError, match='sign=None is not known: use "relu" or "raw"'):
        TopKSAE(4, 8, 2, sign=None)  # type: ignore[arg-type]


def test_inputs_that_do_not_fit_are_refused() -> None:
    sae = drawn()
    with pytest.raises(ShapeError, match=r"shape \(3, 5\); \(\.\.\., 6\) was expected"):
        sae(torch.zeros(3, 5))
    with pytest.raises(ShapeError, match=r"shape \(3, 6\); \(\.\.\., 20\) was expected"):
        sae.decode(torch.zeros(3, 6))
    broken = inputs()
    broken[4, 2] = torch.nan
    for read in (sae, sae.encode, sae.top, sae.pre_activations):
        with pytest.raises(NonFiniteError, match=r"index \(4, 2\).* NaN would be chosen before"):
            read(broken)


def test_its_width_may_be_the_number_of_latents() -> None:
    """Shapes cannot tell encoder from decoder there; the numbers do."""
    sae, x = drawn(num_latents=6), inputs()
    torch.testing.assert_close(sae.encode(x), plain_encode(sae, x))


ROWS, K, LATENTS, WIDTH = 9, 3, 7, 5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def code() -> tuple[Tensor, Tensor, Tensor]:
    """Values, their places, and the dense code."""
    values, indices = normal(ROWS, LATENTS).topk(K, dim=1)
    return values, indices, torch.zeros(ROWS, LATENTS).double().scatter(1, indices, values)


def test_products_are_those_of_the_dense_code() -> None:
    values, indices, dense = code()
    matrix, x = normal(LATENTS, WIDTH, seed=1), normal(ROWS, WIDTH, seed=2)
    torch.testing.assert_close(code_times(values, indices, matrix), dense @ matrix)
    torch.testing.assert_close(code_transposed_times(values, indices, x, LATENTS), dense.T @ x)


def test_a_latent_that_no_row_keeps_gets_zeros() -> None:
    values, indices = torch.ones(2, 2).double(), torch.tensor([[0, 4], [4, 0]])
    product = code_transposed_times(values, indices, normal(2, WIDTH), LATENTS)
    assert not product[[1, 2, 3, 5, 6]].any()
    torch.testing.assert_close(product[0], normal(2, WIDTH).sum(dim=0))


def test_gradients_are_right() -> None:
    values, indices, _ = code()
    matrix = normal(LATENTS, WIDTH, seed=1)
    assert torch.autograd.gradcheck(
        lambda v, m: code_times(v, indices, m), (values.requires_grad_(), matrix.requires_grad_())
    )
    x, encoder, bias = (
        normal(ROWS, WIDTH, seed=2).requires_grad_(),
        normal(LATENTS, WIDTH, seed=3).requires_grad_(),
        normal(LATENTS, seed=4).requires_grad_(),
    )
    assert torch.autograd.gradcheck(
        lambda *given: chosen_pre_activations(*given, K)[0], (x, encoder, bias)
    )


def test_only_what_needs_a_gradient_gets_one() -> None:
    values, indices, _ = code()
    matrix = normal(LATENTS, WIDTH, seed=1).requires_grad_()
    code_times(values, indices, matrix).sum().backward()
    assert values.grad is None
    assert matrix.grad is not None


SIZES = [(5, 2), (64, 3), (100, 7), (512, 16), (1024, 31), (1000, 30), (4096, 30), (3, 2)]


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_it_finds_the_values_of_a_full_sort(n: int, k: int) -> None:
    rows = torch.randn(40, n, generator=torch.Generator().manual_seed(n))
    values, indices = largest(rows, k)
    assert torch.equal(values, rows.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(rows.gather(1, indices), values)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_of_equals_it_takes_those_that_come_first(n: int, k: int) -> None:
    rows = torch.randint(4, (40, n), generator=torch.Generator().manual_seed(n)).float()
    expected = rows.sort(dim=1, descending=True, stable=True)
    values, indices = largest(rows, k)
    assert torch.equal(values, expected.values[:, :k])
    assert torch.equal(indices, expected.indices[:, :k])


def test_negative_rows_and_infinite_ones_are_ranked_too() -> None:
    rows = torch.tensor([[-3.0, -1.0, -2.0, -torch.inf], [-torch.inf] * 4])
    values, indices = largest(rows, 2)
    assert values.tolist() == [[-1.0, -2.0], [-torch.inf] * 2]
    assert indices.tolist() == [[1, 2], [0, 1]]
