"""Guards against circuits that chance makes: scores and checks that random dictionaries pass."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import bilens as bl
import traced_models
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.api.tracing import trace
from bilens.interp.behaviour import LogitDifference, Shares, Trial, eigen_change
from bilens.interp.interventions import Edit
from bilens.interp.layer_trace import latent_map, rank_latents
from bilens.interp.random_dictionaries import (
    LEVEL,
    NUM_DICTIONARIES,
    RandomDictionary,
    chance_of,
    random_dictionary,
)
from bilens.nn import BilinearTransformer, TopKSAE
from contract.drawn import drawn, fewer
from contract.table import cell

WIDTH, LATENTS, ROWS = 10, 6, 240
SEEDS = st.integers(0, 10**6)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(seed: int) -> bl.QuadraticMap:
    """A bilinear layer of random products."""
    parts = (randn(WIDTH, 24, seed=seed), *(randn(24, WIDTH, seed=seed + 1 + i) for i in range(2)))
    return bl.QuadraticMap(bl.BilinearTensor(*(part / WIDTH**0.5 for part in parts)))


def planted(seed: int) -> tuple[bl.QuadraticMap, Tensor]:
    """That layer, with one product x₀·x₁ written along a direction of its own, and that encoder."""
    base = layer(seed)
    down, left, right = base.tensor.down.clone(), base.tensor.left, base.tensor.right
    direction = randn(WIDTH, seed=seed + 7)
    direction /= direction.norm()
    down -= direction[:, None] * (direction @ down)  # nobody else writes there
    eye = torch.eye(WIDTH).double()
    tensor = bl.BilinearTensor(
        torch.cat([down, 2 * direction[:, None]], dim=1),
        torch.cat([left, eye[:1]]),
        torch.cat([right, eye[1:2]]),
    )
    encoder = randn(LATENTS, WIDTH, seed=seed + 8)
    encoder[0] = direction
    return bl.QuadraticMap(tensor), encoder


def scores(f: bl.QuadraticMap, encoder: Tensor, x: Tensor) -> Tensor:
    g = latent_map(f, encoder)
    return rank_latents(g, eigendecompose_all(g, k=2, which="both"), x).score


def null_of(f: bl.QuadraticMap, encoder: Tensor, x: Tensor, seed: int) -> list[Tensor]:
    """The scores of as many random dictionaries as a trace takes."""
    generator, active = torch.Generator().manual_seed(seed), torch.full((len(encoder),), ROWS // 20)
    return [
        scores(f, random_dictionary(encoder, encoder, f(x), active, generator).encoder, x)
        for _ in range(NUM_DICTIONARIES)
    ]


def chances(f: bl.QuadraticMap, encoder: Tensor, x: Tensor, seed: int) -> list[float]:
    best = [float(one.max()) for one in null_of(f, encoder, x, seed)]
    return [chance_of(float(score), best) for score in scores(f, encoder, x)]


@cell("trace", "same function", "permuted units", "scaled branches", "permuted outputs")
@drawn
@given(SEEDS)
def test_random_dictionaries_keep_covariance_and_activity(seed: int) -> None:
    f, encoder = layer(seed), randn(LATENTS, WIDTH, seed=seed + 5)
    decoder, x = randn(LATENTS, WIDTH, seed=seed + 6), randn(ROWS, WIDTH, seed=seed + 9)
    y = f(x)
    active = torch.randint(0, ROWS + 1, (LATENTS,), generator=torch.Generator().manual_seed(seed))

    def drawn_from(f: bl.QuadraticMap, order: Tensor) -> RandomDictionary:
        generator = torch.Generator().manual_seed(seed)
        return random_dictionary(encoder[order], decoder[order], f(x), active[order], generator)

    found = drawn_from(f, torch.arange(LATENTS))
    truth, turned = (torch.cov((y @ part.T).T) for part in (encoder, found.encoder))
    torch.testing.assert_close(turned, truth, rtol=1e-8, atol=1e-8 * float(truth.abs().max()))
    assert (found.encode(y) > 0).sum(dim=0).tolist() == active.tolist()
    assert not torch.allclose(found.encoder, encoder)
    # what a latent reads of what another one writes stays as it is
    torch.testing.assert_close(found.encoder @ found.decoder.T, encoder @ decoder.T)
    tensor, order = f.tensor, torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    same = bl.QuadraticMap(
        bl.BilinearTensor(tensor.down[:, order], 4 * tensor.right[order], tensor.left[order] / 4)
    )
    latents = torch.arange(LATENTS).flip(0)
    again = drawn_from(same, latents)
    torch.testing.assert_close(again.encoder.flip(0), found.encoder, rtol=1e-7, atol=1e-7)


@cell("trace", "other function")
@fewer(2)
@given(SEEDS)
def test_a_planted_product_is_told_from_chance(seed: int) -> None:
    f, encoder = planted(seed)
    found = chances(f, encoder, randn(ROWS, WIDTH, seed=seed + 9), seed)
    assert found[0] <= LEVEL
    assert scores(f, encoder, randn(ROWS, WIDTH, seed=seed + 9))[0] > 0.3


@cell("trace", "other function", "same function")
def test_random_dictionaries_look_like_circuits_no_more_often_than_is_said() -> None:
    count = 12
    told = 0
    for seed in range(count):
        f = layer(1000 * seed)
        encoder = randn(LATENTS, WIDTH, seed=1000 * seed + 5)
        found = chances(f, encoder, randn(ROWS, WIDTH, seed=1000 * seed + 9), seed)
        told += min(found) <= LEVEL
    # binomial: more than 3 of 12 at 5 % have a probability below 0.3 %
    assert told <= 3


def trials(f: bl.QuadraticMap, encoder: Tensor, x: Tensor, seed: int) -> tuple[Trial, list[Shares]]:
    """Removing eigenvectors of the first latent, and of the first one of random dictionaries."""
    texts = x.view(6, -1, WIDTH)
    unembed = randn(40, WIDTH, seed=seed + 3)
    active = torch.full((len(encoder),), ROWS // 10)

    def logits(edit: Edit | None) -> Tensor:
        return f(texts if edit is None else edit(texts)) @ unembed.T

    def trial(direction: Tensor) -> Trial:
        order = (f(x) @ direction).argsort(descending=True)
        effect = (unembed @ direction).argsort(descending=True).tolist()
        pairs = eigendecompose_all(f, direction[None], 2)[0]
        rest = torch.ones(texts.shape[:2], dtype=torch.bool)
        places = order[: ROWS // 10], order[-ROWS // 10 :]
        behaviour = LogitDifference(logits, rest.long(), effect[:3], effect[-3:], *places, rest)
        generator = torch.Generator().manual_seed(seed)
        return Trial.measure(behaviour, eigen_change(pairs, x, generator), texts[:, 1:])

    generator, null = torch.Generator().manual_seed(seed), []
    for _ in range(NUM_DICTIONARIES):
        turned = random_dictionary(encoder, encoder, f(x), active, generator)
        null.append(trial(turned.encoder[0]).shares())
    return trial(encoder[0]), null


def is_confirmed(f: bl.QuadraticMap, encoder: Tensor, seed: int) -> tuple[bool, bool]:
    """Whether ablation is confirmed, and whether it was by random directions alone."""
    trial, null = trials(f, encoder, randn(ROWS, WIDTH, seed=seed + 9), seed)
    checks = trial.checks(torch.Generator().manual_seed(seed), null)
    if not checks:
        return False, False
    shares = [one["ablate"] for one in null if "ablate" in one]
    assert checks[0].null_shares == tuple(shares)
    beyond_random = checks[0].share.low > checks[0].random_share.high
    reached = sum(share >= checks[0].share.value for share in shares)
    expected = beyond_random and checks[0].before.low > 0 and reached == 0
    assert checks[0].confirmed == expected
    return bool(checks[0].confirmed), beyond_random


@cell("trace", "other function")
def test_what_a_planted_product_does_is_mostly_confirmed() -> None:
    """In about one case of five a random dictionary removes as much by chance."""
    found = [is_confirmed(*planted(seed), seed)[0] for seed in range(10)]
    assert sum(found) >= 5  # fewer have a probability below 0.7 %


@cell("trace", "other function")
def test_causal_checks_confirm_random_latents_no_more_often_than_is_said() -> None:
    found = [
        is_confirmed(layer(77 * seed), randn(LATENTS, WIDTH, seed=77 * seed + 5), 77 * seed)
        for seed in range(10)
    ]
    assert sum(confirmed for confirmed, _ in found) <= 3  # more have a probability below 0.2 %
    assert sum(beyond for _, beyond in found) > 4  # what the old control called confirmed


def test_how_often_chance_reaches_a_value() -> None:
    assert chance_of(1.0, [0.5] * 19) == 0.05
    assert chance_of(1.0, [1.0] + [None] * 18) == 0.1
    assert math.isclose(chance_of(0.0, []), 1.0)


Folders = tuple[Path, Path, Path]
QUICK: dict[str, Any] = {
    "outputs": 2,
    "pairs": 3,
    "features": 3,
    "top": 3,
    "tokens": 400,
    "dictionaries": 2,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return traced_models.write_all(tmp_path_factory.mktemp("traced"))


def traced(folders: Folders, **options: Any) -> dict[str, Any]:
    given = {"input_sae": folders[1], "output_sae": folders[2], "command": "here"}
    document: dict[str, Any] = trace(folders[0], 0, **{**QUICK, **given, **options}).to_dict()
    return document


def changed(folder: Path, target: Path, change: Any) -> Path:
    """A copy of a folder whose module was changed in place."""
    module = bl.load(folder).module
    with torch.no_grad():
        change(module)
    bl.save(module, target, provenance=bl.load(folder).provenance)
    for name in ("tokenizer.json", "corpus.json"):
        if (folder / name).exists():
            (target / name).write_bytes((folder / name).read_bytes())
    return target


def assert_same(one: dict[str, Any], other: dict[str, Any], name: Any = int) -> None:
    """Compare what traces say of each latent; `name` turns a number of the first into another."""
    rows = {row["latent"]: row for row in other["ranking"]}
    for row in one["ranking"]:
        there = rows[name(row["latent"])]
        assert there["score"] == pytest.approx(row["score"], rel=1e-3, abs=1e-5)
        assert (there["p_value"], there["density"]) == (row["p_value"], row["density"])
    assert other["null"]["best"] == pytest.approx(one["null"]["best"], rel=1e-3)
    circuits = {item["latent"]: item for item in other["circuits"]}
    for item in one["circuits"]:
        checks = item["causal"]["checks"], circuits[name(item["latent"])]["causal"]["checks"]
        for before, after in zip(*checks, strict=True):
            assert after["confirmed"] == before["confirmed"]
            assert after["share"]["value"] == pytest.approx(before["share"]["value"], rel=1e-2)
            assert after["null_shares"] == pytest.approx(before["null_shares"], rel=1e-2, abs=1e-3)


@cell("trace", "permuted units", "scaled branches", "same function", "saved")
def test_the_function_written_otherwise_has_the_same_trace(
    folders: Folders, tmp_path: Path
) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))

    def rewrite(module: BilinearTransformer) -> None:
        mlp = module.mlps[0]
        left, right, down = mlp.left.weight, mlp.right.weight, mlp.down.weight
        new = 8 * right[order], left[order] / 8, down[:, order]
        for old, part in zip((left, right, down), new, strict=True):
            old.copy_(part.clone())

    model = changed(folders[0], tmp_path / "model", rewrite)
    assert_same(traced(folders), traced((model, *folders[1:])))


@cell("trace", "permuted inputs", "permuted outputs")
def test_latents_in_another_order_are_judged_alike(folders: Folders, tmp_path: Path) -> None:
    order = torch.randperm(traced_models.LATENTS, generator=torch.Generator().manual_seed(4))
    place = {int(old): new for new, old in enumerate(order)}

    def permute(module: TopKSAE) -> None:
        for part in (module.encoder, module.decoder, module.encoder_bias):
            part.copy_(part[order].clone())

    saes = [changed(folders[i], tmp_path / str(i), permute) for i in (1, 2)]
    assert_same(traced(folders), traced((folders[0], *saes)), place.__getitem__)


@cell("trace", "other dtype", "threads", "resumed")
def test_another_dtype_two_threads_and_a_second_run_say_the_same(
    folders: Folders, tmp_path: Path
) -> None:
    first = traced(folders)
    wide = changed(folders[0], tmp_path / "wide", lambda module: module.double())
    assert_same(first, traced((wide, *folders[1:])))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(first, traced(folders))
    finally:
        torch.set_num_threads(threads)


@cell("trace", "other function")
def test_a_trace_says_of_how_many_dictionaries_and_of_none_too_few(folders: Folders) -> None:
    document = traced(folders, dictionaries=3, seed=5)
    null = document["null"]
    assert (null["num"], len(null["best"]), document["seed"]) == (3, 3, 5)
    assert traced(folders, dictionaries=3, seed=6)["null"]["best"] != null["best"]
    chances = [row["p_value"] for row in document["ranking"]]
    for row, p in zip(document["ranking"], chances, strict=True):
        assert p == (1 + sum(best >= row["score"] for best in null["best"])) / 4
    assert min(chances) >= 0.25  # three cannot tell anything from chance
    checks = [check for one in document["circuits"] for check in one["causal"]["checks"]]
    assert not any(check["confirmed"] for check in checks)
