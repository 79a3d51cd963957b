"""All entries, streamed in blocks: against dense matrices."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats
from torch import Tensor

import bilens
import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor, FactorSizes
from bilens.algebra.directions import raw_directions
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.interactions import direct_interactions as module
from bilens.algebra.interactions.direct_interactions import (
    BLOCK,
    SPARE,
    StreamMemory,
    cross_chunks,
    direct_interactions,
    num_blocks,
    plan_memory,
    self_values,
)
from bilens.algebra.interactions.feature_factors import FeatureFactors, interaction_submatrix
from bilens.algebra.interactions.record import DirectInteractions, Interactions
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_map, vector
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, NOT_FINITE, SOUND, Odd, poisoned
from peak_memory import OVERHEAD, Largest, peak_of

NUM = 13
F = random_map()
DICTIONARY = randn(D_IN, NUM, seed=9)
DIRECTIONS = randn(2, D_OUT, seed=4)
BIAS = randn(D_IN, seed=5)
BLOCKS = [1, 2, 5, 12, NUM, 1000]


def dense(u: Tensor, f: QuadraticMap = F, dictionary: Tensor = DICTIONARY) -> Tensor:
    tensor = f.tensor
    return oracles.feature_interactions(tensor.down, tensor.left, tensor.right, u, dictionary)


def kinds(result: DirectInteractions) -> tuple[Interactions, Interactions]:
    return result.self_interactions, result.cross_interactions


def same_lists(first: DirectInteractions, second: DirectInteractions) -> bool:
    """Bit for bit."""
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(kinds(first), kinds(second), strict=True)
        for name in ("first", "second", "values")
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_everything_kept_is_that_of_the_whole_matrix(block: int) -> None:
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, top=7, bins=9, block=block)
    assert result.status == (Status.OK, Status.OK)
    for c, u in enumerate(DIRECTIONS):
        s = dense(u)
        for found in kinds(result[c]):
            entries = oracles.entries_of_kind(s, found.kind)
            values = np.array([value for value, _, _ in entries])
            listed = zip(found.first.tolist(), found.second.tolist(), strict=True)
            assert [*listed] == [(m, n) for _, m, n in entries[:7]]
            assert found.values.tolist() == pytest.approx(values[:7], rel=1e-10)
            moments = found.moments
            assert int(moments.count) == len(values)
            assert float(moments.mean) == pytest.approx(values.mean(), rel=1e-9)
            assert float(moments.std) == pytest.approx(values.std(), rel=1e-10)
            assert float(moments.skewness) == pytest.approx(stats.skew(values), rel=1e-8)
            assert float(moments.excess_kurtosis) == pytest.approx(stats.kurtosis(values), rel=1e-8)
            assert float(moments.minimum) == pytest.approx(values.min(), rel=1e-10)
            assert float(moments.maximum) == pytest.approx(values.max(), rel=1e-10)
            below, counts, above = oracles.histogram(
                values.tolist(), found.histogram.edges.tolist()
            )
            assert found.histogram.counts.tolist() == counts
            assert (int(found.histogram.below), int(found.histogram.above)) == (below, above)
        norm = float(oracles.norm(s))
        assert float(result.norm[c]) == pytest.approx(norm, rel=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("precision", [torch.float64, torch.float32], ids=str)
def test_the_block_changes_no_bit_of_the_lists(block: int, precision: torch.dtype) -> None:
    """float32 products find the candidates; the values come from float64 in either case."""
    expected = direct_interactions(F, DICTIONARY, DIRECTIONS)
    found = direct_interactions(F, DICTIONARY, DIRECTIONS, block=block, precision=precision)
    assert same_lists(found, expected)


@pytest.mark.parametrize("block", [7, 64])
def test_a_wide_dictionary_with_twins_gives_the_same_list_in_any_block(block: int) -> None:
    """Equal columns make equal entries: the pair of smaller features stands first."""
    f, dictionary = random_map(d_hidden=19, d_in=11), randn(11, 150, seed=2)
    dictionary[:, 100:110] = dictionary[:, 20:30]
    expected = direct_interactions(f, dictionary, top=50)
    found = direct_interactions(f, dictionary, top=50, block=block)
    assert same_lists(found, expected)
    cross = found[0].cross_interactions
    ties = cross.values[1:] == cross.values[:-1]
    assert bool(ties.any())
    keys = cross.first * 150 + cross.second
    assert bool((keys[1:] > keys[:-1])[ties].all())


@pytest.mark.parametrize("top", range(1, 9))
def test_what_float32_cannot_tell_apart_is_told_apart(top: int) -> None:
    """Each feature has a twin that is larger by 1e-10; the list may end between the two."""
    dictionary = torch.cat([DICTIONARY, DICTIONARY * (1 + 1e-10)], dim=1)
    expected = direct_interactions(F, dictionary, DIRECTIONS, top=top)
    found = direct_interactions(F, dictionary, DIRECTIONS, top=top, precision=torch.float32)
    assert same_lists(found, expected)


@st.composite
def whole_numbers(draw: st.DrawFn, *shape: int) -> Tensor:
    """Entries whose products and sums are exact, so that ties are ties."""
    total = int(np.prod(shape))
    flat = draw(st.lists(st.integers(-2, 2), min_size=total, max_size=total))
    return torch.tensor(flat, dtype=torch.float64).reshape(shape)


@given(st.data())
def test_ties_are_broken_by_the_features(data: st.DataObject) -> None:
    hidden, d_in, num = (data.draw(st.integers(1, 4)) for _ in range(3))
    parts = [data.draw(whole_numbers(*s)) for s in ((1, hidden), (hidden, d_in), (hidden, d_in))]
    dictionary = data.draw(whole_numbers(d_in, num))
    f = QuadraticMap(BilinearTensor(*parts))
    block, top = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 8))
    result = direct_interactions(f, dictionary, top=top, block=block)[0]
    s = dense(vector(1), f, dictionary)
    for found in kinds(result):
        expected = oracles.entries_of_kind(s, found.kind)[:top]
        listed = zip(
            found.values.tolist(), found.first.tolist(), found.second.tolist(), strict=True
        )
        assert [*listed] == expected


def test_the_affine_terms_are_those_of_the_composed_map() -> None:
    composed = F.compose_input(DICTIONARY, BIAS).compose_output(DIRECTIONS)
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, bias=BIAS)
    torch.testing.assert_close(result.linear, composed.linear)
    torch.testing.assert_close(result.constant, composed.constant)


def test_entries_and_terms_add_up_to_the_output() -> None:
    """Coefficients of z_m z_n: twice the entry off the diagonal."""
    z = randn(NUM, seed=8)
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, bias=BIAS, top=NUM**2)
    for c, u in enumerate(DIRECTIONS):
        one = result[c]
        total = one.linear @ z + one.constant
        for found in kinds(one):
            total = total + (found.coefficients * z[found.first] * z[found.second]).sum()
        torch.testing.assert_close(total, F(DICTIONARY @ z + BIAS) @ u)


def test_the_shares_of_all_entries_add_up_to_one() -> None:
    everything = direct_interactions(F, DICTIONARY, DIRECTIONS, top=NUM**2)
    torch.testing.assert_close(
        everything.self_share + everything.cross_share, torch.ones(2, dtype=torch.float64)
    )
    some = direct_interactions(F, DICTIONARY, DIRECTIONS, top=3)
    s = dense(DIRECTIONS[0])
    largest = sum(v**2 for v, _, _ in oracles.entries_of_kind(s, "cross")[:3])
    assert float(some.cross_share[0]) == pytest.approx(2 * largest / float(oracles.norm(s)) ** 2)


def test_every_output_is_read_where_no_direction_is_given() -> None:
    expected = direct_interactions(F, DICTIONARY, raw_directions(D_OUT))
    assert same_lists(direct_interactions(F, DICTIONARY), expected)


def test_the_features_that_appear_show_their_surroundings() -> None:
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, top=2)[0]
    features = result.features()
    small = interaction_submatrix(F, DICTIONARY, DIRECTIONS[0], features)
    for found in kinds(result):
        assert {*found.first.tolist(), *found.second.tolist()} <= {*features.tolist()}
        rows = torch.searchsorted(features, found.first)
        columns = torch.searchsorted(features, found.second)
        torch.testing.assert_close(small[rows, columns], found.values)


def test_one_feature_has_no_cross_interactions() -> None:
    result = direct_interactions(F, DICTIONARY[:, :1], DIRECTIONS)
    assert result.status == (Status.OK, Status.OK)
    assert result.self_interactions.values.shape == (2, 1)
    cross = result.cross_interactions
    assert cross.values.shape == (2, 0)
    assert cross.moments.count.tolist() == [0, 0]
    assert int(cross.histogram.counts.sum()) == 0
    assert result.cross_share.tolist() == [0, 0]
    torch.testing.assert_close(result.self_share, torch.ones(2, dtype=torch.float64))


def test_more_entries_than_there_are_cannot_be_listed() -> None:
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, top=10**15)
    assert result.self_interactions.values.shape == (2, NUM)
    assert result.cross_interactions.values.shape == (2, NUM * (NUM - 1) // 2)


def test_a_direction_of_zeros_has_zeros() -> None:
    result = direct_interactions(F, DICTIONARY, torch.zeros(1, D_OUT).double(), top=2)[0]
    assert result.status is Status.OK
    cross = result.cross_interactions
    assert cross.values.tolist() == [0, 0]
    assert (cross.first.tolist(), cross.second.tolist()) == ([0, 0], [1, 2])
    assert float(result.norm) == float(result.cross_share) == float(result.self_share) == 0


def test_edges_of_ones_own_lose_nothing() -> None:
    edges, self_edges = vector(-2, 0, 1), vector(0, 5)
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, bins=edges, self_bins=self_edges)[0]
    s = dense(DIRECTIONS[0])
    for found, own in zip(kinds(result), (self_edges, edges), strict=True):
        values = [value for value, _, _ in oracles.entries_of_kind(s, found.kind)]
        below, counts, above = oracles.histogram(values, own.tolist())
        assert torch.equal(found.histogram.edges, own)
        assert found.histogram.counts.tolist() == counts
        assert (int(found.histogram.below), int(found.histogram.above)) == (below, above)


def test_automatic_edges_hold_what_they_promise() -> None:
    """One entry a thousand times the others: at most 1/64 of the cross entries lie outside."""
    dictionary = randn(D_IN, 60, seed=1)
    dictionary[:, :2] *= 40
    result = direct_interactions(F, dictionary, DIRECTIONS)
    own, cross = kinds(result)
    assert own.histogram.below.tolist() == own.histogram.above.tolist() == [0, 0]
    outside = cross.histogram.below + cross.histogram.above
    assert bool((outside > 0).all())
    assert bool((outside <= cross.moments.count / 64).all())
    assert bool((cross.histogram.counts.sum(dim=1) + outside == cross.moments.count).all())


@pytest.mark.parametrize("exponent", [-120, 120])
def test_the_scale_of_the_features_does_not_matter(exponent: int) -> None:
    """S is multiplied by 2^240: its fourth powers are far outside float64."""
    plain = direct_interactions(F, DICTIONARY, DIRECTIONS, precision=torch.float32)
    scaled = direct_interactions(F, DICTIONARY * 2.0**exponent, DIRECTIONS, precision=torch.float32)
    factor = 2.0 ** (2 * exponent)
    for a, b in zip(kinds(plain), kinds(scaled), strict=True):
        assert torch.equal(a.values * factor, b.values)
        assert torch.equal(a.moments.std * factor, b.moments.std)
        assert torch.equal(a.moments.excess_kurtosis, b.moments.excess_kurtosis)
    torch.testing.assert_close(plain.cross_share, scaled.cross_share)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e308], ids=str)
def test_a_bad_direction_is_flagged_and_the_others_are_read(bad: float) -> None:
    rows = torch.stack([DIRECTIONS[0], vector(bad, bad, bad), DIRECTIONS[1]])
    seen: list[tuple[int, int]] = []
    result = direct_interactions(
        F, DICTIONARY, rows, top=4, bias=BIAS, progress=lambda *done: seen.append(done)
    )
    assert result.status == (Status.OK, Status.NOT_FINITE, Status.OK)
    expected = direct_interactions(F, DICTIONARY, DIRECTIONS, top=4, bias=BIAS)
    assert same_lists(result[0], expected[0])
    assert same_lists(result[2], expected[1])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    flagged = result[1]
    for found in kinds(flagged):
        assert bool(found.values.isnan().all() & found.moments.mean.isnan())
        assert found.first.tolist() == found.second.tolist() == [-1] * 4
        assert int(found.moments.count) == int(found.histogram.counts.sum()) == 0
    for number in (flagged.norm, flagged.linear, flagged.constant, flagged.cross_share):
        assert bool(number.isnan().all())
    assert flagged.features().tolist() == []


def test_directions_that_cannot_be_read_are_flagged() -> None:
    for scale in (1e200, 1e-200):
        result = direct_interactions(F, DICTIONARY * scale, DIRECTIONS)
        assert result.status == (Status.NOT_FINITE, Status.NOT_FINITE)
    result = direct_interactions(F, DICTIONARY, DIRECTIONS, bias=BIAS * 1e200)
    assert result.status == (Status.NOT_FINITE, Status.NOT_FINITE)
    rows = torch.stack([vector(torch.nan, 0, 0), DIRECTIONS[0]])
    assert direct_interactions(F, DICTIONARY, rows).status == (Status.NOT_FINITE, Status.OK)


def test_a_status_is_that_of_every_other_batch() -> None:
    assert direct_interactions(F, DICTIONARY).status == eigendecompose_all(F, k=2).status
    assert direct_interactions(F, DICTIONARY).status[0] is bilens.Status.OK


@pytest.mark.parametrize("odd", [*NOT_FINITE, *NOT_DENSE_FLOAT], ids=str)
def test_an_odd_dictionary_is_refused(odd: Odd) -> None:
    message = odd.message.replace(r"\((0|\))", "")  # where the place is said for any shape
    with pytest.raises(odd.error, match=message) as caught:
        direct_interactions(F, odd.of(DICTIONARY), DIRECTIONS)
    assert str(caught.value).startswith("dictionary ")


@pytest.mark.parametrize("odd", NOT_DENSE_FLOAT, ids=str)
def test_odd_directions_are_refused(odd: Odd) -> None:
    with pytest.raises(odd.error, match=rf"^directions .*({odd.message})"):
        direct_interactions(F, DICTIONARY, odd.of(DIRECTIONS))


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_but_sound_tensors_give_the_same(odd: Odd) -> None:
    expected = direct_interactions(F, DICTIONARY, DIRECTIONS, bias=BIAS)
    found = direct_interactions(F, odd.of(DICTIONARY), odd.of(DIRECTIONS), bias=odd.of(BIAS))
    assert same_lists(found, expected)
    assert not found.linear.requires_grad


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_is_promoted(dtype: torch.dtype) -> None:
    low = F.to(dtype), DICTIONARY.to(dtype), DIRECTIONS.to(dtype)
    found = direct_interactions(*low)
    expected = direct_interactions(low[0].to(torch.float64), low[1].double(), low[2].double())
    assert found.norm.dtype == torch.float64
    assert same_lists(found, expected)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"f": F.tensor}, UsageError, r"f is a BilinearTensor; .*: use the layer's quadratic_map\(\)"),
    ({"dictionary": DICTIONARY.T}, ShapeError, r"shape \(13, 5\).*\(5, features\) was expected"),
    ({"dictionary": DICTIONARY[:, :0]}, ShapeError, r"dictionary has shape \(5, 0\)"),
    ({"dictionary": DICTIONARY[0]}, ShapeError, "dictionary has shape .*; 2 axes"),
    ({"directions": randn(2, 4)}, ShapeError, r"directions has shape \(2, 4\); .*\(num, 3\)"),
    ({"directions": randn(0, D_OUT)}, ShapeError, r"directions has shape \(0, 3\)"),
    ({"directions": randn(D_OUT)}, ShapeError, "directions has shape .*; 2 axes"),
    ({"bias": randn(4)}, ShapeError, r"bias has shape \(4,\); expected \(5,\)"),
    ({"bias": poisoned(torch.nan)(BIAS)}, NonFiniteError, "bias holds 1 non-finite"),
    ({"top": 0}, UsageError, "top must be an integer of at least 1, got 0"),
    ({"bins": 0, "self_bins": 2}, UsageError, "^bins must be an integer of at least 1, got 0"),
    ({"bins": vector(1, 0)}, UsageError, "bins must rise"),
    ({"self_bins": 1.5}, UsageError, "self_bins must be an integer"),
    ({"block": 0}, UsageError, "block must be an integer of at least 1, got 0"),
    ({"precision": torch.float16}, UsageError, "precision=torch.float16 .*: use torch.float64 or"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    right = {"f": F, "dictionary": DICTIONARY, "directions": DIRECTIONS}
    with pytest.raises(error, match=message):
        direct_interactions(**{**right, **wrong})


def test_nothing_that_was_passed_is_changed() -> None:
    parts = [DICTIONARY.clone(), DIRECTIONS.clone(), BIAS.clone()]
    direct_interactions(F, parts[0], parts[1], bias=parts[2])
    for part, original in zip(parts, (DICTIONARY, DIRECTIONS, BIAS), strict=True):
        assert torch.equal(part, original)


def test_an_interrupt_ends_it_and_breaks_nothing() -> None:
    expected = direct_interactions(F, DICTIONARY, DIRECTIONS)

    def interrupt(done: int, total: int) -> None:
        assert total == 2 * 6
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        direct_interactions(F, DICTIONARY, DIRECTIONS, block=5, progress=interrupt)
    assert torch.is_grad_enabled()
    assert same_lists(direct_interactions(F, DICTIONARY, DIRECTIONS), expected)


def test_a_result_is_a_batch_or_one_of_it() -> None:
    result = direct_interactions(F, DICTIONARY, DIRECTIONS)
    assert len(result) == 2
    assert result[-1].status is Status.OK
    assert torch.equal(result[1].linear, result.linear[1])
    for misuse in (lambda: len(result[0]), lambda: result[0][0], lambda: result.features()):
        with pytest.raises(ShapeError):
            misuse()


@pytest.mark.parametrize("block", [8, 25])
def test_no_tensor_is_made_that_is_larger_than_the_block(block: int) -> None:
    """Not even a dictionary of the kind that the map has: it is read in blocks."""
    num, top = 200, 3
    dictionary = randn(D_IN, num, seed=1).float()
    need = StreamMemory(FactorSizes(D_OUT, D_HIDDEN, D_IN), num, 1, top + SPARE, torch.float64)
    limit = need.fixed() + need.blocks(block)
    with Largest() as seen:
        result = direct_interactions(
            F, dictionary, DIRECTIONS[:1], top=top, block=block, memory_limit=limit
        )
    assert seen.numel <= max(block**2, 4 * (top + SPARE) * D_HIDDEN)
    assert same_lists(result, direct_interactions(F, dictionary, DIRECTIONS[:1], top=top))


def test_a_tight_limit_makes_small_blocks_and_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = direct_interactions(F, DICTIONARY, DIRECTIONS)
    need = StreamMemory(F.sizes, NUM, 2, 20 + SPARE, torch.float64)
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, str(need.fixed() + need.blocks(4)))
    steps: list[int] = []
    found = direct_interactions(
        F, DICTIONARY, DIRECTIONS, progress=lambda _, total: steps.append(total)
    )
    assert steps[0] == 2 * 10  # 13 features in blocks of 4: 4 · 5 / 2 blocks for each direction
    assert same_lists(found, expected)
    torch.testing.assert_close(
        found.cross_interactions.moments.std, expected.cross_interactions.moments.std
    )


def test_a_limit_that_leaves_no_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, "1k")
    with pytest.raises(MemoryLimitError, match="reading 13 features of 5 inputs along 2 direction"):
        direct_interactions(F, DICTIONARY, DIRECTIONS)


FEW = 7
SMALL = randn(5, FEW, seed=9)
FORM = F.form(torch.ones(D_OUT, dtype=torch.float64))
EXPECTED = oracles.feature_interactions(
    F.tensor.down, F.tensor.left, F.tensor.right, torch.ones(D_OUT).double(), SMALL
)


@pytest.mark.parametrize("strip", [1, 4, 2**17])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("block", [1, 2, 3, 6, 7, 100])
def test_the_pieces_make_up_the_upper_triangle(
    block: int, keep: bool, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STRIP", strip)
    factors = FeatureFactors.from_map(F, SMALL, block=block, keep=keep)
    weight, unit = factors.balanced(FORM.matrix.weight)
    seen, num = {}, 0
    for block_chunks in cross_chunks(factors, weight, block):
        num += 1
        for chunk in block_chunks:
            keys = chunk.locate(torch.arange(len(chunk.values))).tolist()
            assert seen.keys().isdisjoint(keys)
            seen.update(zip(keys, (chunk.values * unit).tolist(), strict=True))
    assert num == num_blocks(FEW, block)
    assert sorted(seen) == [m * FEW + n for m in range(FEW) for n in range(m + 1, FEW)]
    for key, value in seen.items():
        assert value == pytest.approx(float(EXPECTED[key // FEW, key % FEW]), abs=1e-12)
    diagonal = self_values(factors, weight, block) * unit
    torch.testing.assert_close(diagonal, EXPECTED.diagonal())


def test_float32_rows_give_float64_pieces() -> None:
    factors = FeatureFactors.from_map(F, SMALL, precision=torch.float32, keep=True)
    assert factors.rows(slice(0, 2)).dtype == torch.float32
    weight, unit = factors.balanced(FORM.matrix.weight)
    ((chunk, *_),) = cross_chunks(factors, weight, 10)
    assert chunk.values.dtype == torch.float64
    above = EXPECTED[torch.ones(FEW, FEW, dtype=torch.bool).triu(1)]
    torch.testing.assert_close(chunk.values * unit, above, rtol=1e-5, atol=1e-5)


NEED = StreamMemory(FactorSizes(3, 64, 32), 5000, 2, 52, torch.float64)


CODE = """
import torch
from bilens.algebra.interactions.direct_interactions import direct_interactions
from builders import random_map
f = random_map(0, {sizes}).to(torch.float32)
dictionary = torch.randn({d_in}, {num}, generator=torch.Generator().manual_seed(0))
measure(lambda: direct_interactions(
    f, dictionary, torch.eye({d_out})[:1], block={block}, memory_limit={limit}
))
"""


def test_rows_are_given_up_before_the_block_and_the_block_before_the_fit() -> None:
    enough = NEED.fixed() + NEED.blocks(BLOCK) + NEED.bytes_of_rows()
    for limit, asked, block, keep in (
        (2**40, None, BLOCK, True),
        (2**40, 10**6, 5000, True),  # no wider than the dictionary
        (enough, None, BLOCK, True),
        (enough - 1, None, BLOCK, False),
        *(
            (NEED.fixed() + NEED.blocks(b), a, b, False)
            for b in (1, 64, BLOCK // 2)
            for a in (None, b)
        ),
    ):
        plan = plan_memory(NEED, asked, limit)
        assert (plan.block, plan.keep) == (block, keep)
    for asked, message in (
        (None, "1 needs"),
        (1, "1 needs"),
        (64, "64 .*: .* pass a smaller block"),
    ):
        with pytest.raises(
            MemoryLimitError, match=f"reading 5000 features .* in blocks of {message}"
        ):
            plan_memory(NEED, asked, NEED.fixed() + NEED.blocks(asked or 1) - 1)


@pytest.mark.parametrize(
    ("sizes", "num", "block", "keep"),
    [
        pytest.param(FactorSizes(2, 1024, 128), 2048, 1024, False, marks=pytest.mark.slow),
        (FactorSizes(1, 16, 64), 2048, 2048, False),
        pytest.param(FactorSizes(1, 512, 128), 4096, 64, True, marks=pytest.mark.slow),
    ],
    ids=["many hidden units", "a large block", "kept rows"],
)
def test_no_more_than_was_counted_is_taken(
    sizes: FactorSizes, num: int, block: int, keep: bool
) -> None:
    need = StreamMemory(sizes, num, 1, 52, torch.float64)
    limit = need.fixed() + need.blocks(block) + keep * need.bytes_of_rows()
    code = CODE.format(
        sizes=f"{sizes.d_out}, {sizes.d_hidden}, {sizes.d_in}",
        d_in=sizes.d_in,
        d_out=sizes.d_out,
        num=num,
        block=block,
        limit=limit,
    )
    assert peak_of(code) <= limit + OVERHEAD
