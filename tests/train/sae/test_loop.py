"""Training of sparse autoencoders: a planted dictionary is found, and each promise of a step.

Broken once: the idle counter never set back; all latents died, and the auxiliary loss took over.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sae_runs
from bilens.algebra.rows import geometric_median
from bilens.base.errors import NumericalError, UsageError
from bilens.nn import TopKSAE
from bilens.train.activations import ActivationBuffer
from bilens.train.sae import loop
from bilens.train.sae.loop import (
    Run,
    SAELine,
    auxiliary_loss,
    num_buffers,
    remove_parallel,
    start_run,
    steps_per_buffer,
    train,
)
from bilens.train.sae.recipe import SAERecipe

PLANTED = SAERecipe(
    hooks=("planted",),
    num_latents=72,
    k=3,
    tokens=110_000,
    batch_size=512,
    buffer_size=4096,
    learning_rate=1e-2,
    dead_after=4096,
)


def finished(recipe: SAERecipe, activations: Any) -> tuple[TopKSAE, list[SAELine]]:
    run = start_run(recipe, activations)
    lines = list(train(run, activations, recipe, lambda _run: None))
    sae = run.model[0]
    assert isinstance(sae, TopKSAE)
    return sae, lines


def test_a_planted_dictionary_is_recovered() -> None:
    """36 directions in 24 dimensions, two at a time around a centre, and twice as many latents."""
    planted = sae_runs.Planted()
    sae, lines = finished(PLANTED, planted)
    cosines = (sae.decoder.detach() @ planted.directions.T).amax(dim=0)
    assert float((cosines > 0.95).double().mean()) > 0.9
    last = lines[-1]
    assert last.fvu["planted"] < 0.08
    assert 2.5 < last.l0["planted"] <= 3
    assert last.dead["planted"] < 0.6  # half of them are too many
    assert [line.epoch for line in lines] == list(range(1, 28))
    assert (last.step, last.tokens) == (27 * 8, 110_592)


def test_the_start_is_tied_scaled_and_centred() -> None:
    planted = sae_runs.Planted()
    sae = start_run(PLANTED, planted).model[0]
    rows = planted.buffer(0).activations["planted"]
    mean_square = (rows * sae.scale).square().sum(dim=1).mean()
    assert float(mean_square) == pytest.approx(24, rel=1e-5)
    assert torch.equal(sae.encoder, sae.decoder)
    median = geometric_median(rows * sae.scale)
    torch.testing.assert_close(sae.decoder_bias.detach(), median, rtol=1e-4, atol=1e-4)


def test_rows_keep_norm_one_and_learn_nothing_along_themselves() -> None:
    sae, _ = finished(sae_runs.changed(hooks=("planted",), tokens=3000), sae_runs.Planted())
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(24))
    grad, rows = torch.randn(5, 3), torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    left = grad.clone()
    remove_parallel(left, rows)
    torch.testing.assert_close((left * rows).sum(dim=1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.cross(left, rows), torch.linalg.cross(grad, rows))


def test_dead_latents_come_back_with_the_auxiliary_loss() -> None:
    """Two thirds of the latents are started with activations too small to be kept."""
    shares = {}
    for weight in (0.0, 1 / 32):
        recipe = sae_runs.changed(
            hooks=("planted",),
            num_latents=36,
            k=2,
            tokens=60_000,
            batch_size=512,
            auxiliary=weight,
            dead_after=1024,
        )
        planted = sae_runs.Planted()
        run = start_run(recipe, planted)
        with torch.no_grad():
            run.model[0].encoder[12:] *= 0.01
        lines = list(train(run, planted, recipe, lambda _run: None))
        shares[weight] = lines[-1].dead["planted"]
    assert shares[0.0] > 0.4
    assert shares[1 / 32] < 0.5 * shares[0.0]


def test_the_auxiliary_loss_is_what_it_says() -> None:
    """At most d_in / 2 = 3 dead latents an input; fewer dead ones in all count for less."""
    torch.manual_seed(0)
    sae, x = TopKSAE(6, 20, 4).double(), torch.randn(30, 6).double()
    left = torch.randn(30, 6).double()
    for places in ([1, 4, 5, 9, 17], [3, 8]):
        dead = torch.zeros(20, dtype=torch.bool)
        dead[places] = True
        pre = sae.pre_activations(x)[:, places]
        values, indices = pre.topk(min(3, len(places)), dim=1)
        code = torch.zeros_like(pre).scatter(1, indices, values.relu())
        error = (code @ sae.decoder[places] - left).square().sum() / left.square().sum()
        expected = min(1, len(places) / 3) * error
        torch.testing.assert_close(auxiliary_loss(sae, x, left, dead), expected)


class Constant:
    """Activations that are one row, again and again."""

    hooks = ("blocks.0.mlp_out",)
    rows = 128

    def __init__(self, row: torch.Tensor) -> None:
        self.row = row

    def buffer(self, _index: int) -> ActivationBuffer:
        return ActivationBuffer({self.hooks[0]: self.row.expand(128, -1)}, torch.arange(128))


@pytest.mark.parametrize(("value", "what"), [(0.0, "zero"), (3.0, "equal")])
def test_activations_without_any_variance_are_refused(value: float, what: str) -> None:
    row = torch.full((8,), value)
    with pytest.raises(NumericalError, match=rf"at blocks\.0\.mlp_out are all {what}, so there is"):
        start_run(sae_runs.changed(hooks=Constant.hooks), Constant(row))


def test_a_loss_that_is_no_number_ends_the_run_with_the_weights_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted, recipe = sae_runs.Planted(), PLANTED
    run = start_run(recipe, planted)
    kept: list[dict[str, torch.Tensor]] = []
    original = loop.losses

    def losses(*given: Any) -> Any:
        loss, sums, latents = original(*given)
        return (loss * math.nan if run.step == 5 else loss), sums, latents

    def remember(now: Run) -> None:
        kept.append({name: t.clone() for name, t in now.model.state_dict().items()})

    monkeypatch.setattr(loop, "losses", losses)
    with pytest.raises(NumericalError, match=r"at planted is no longer finite at step 6 .*low"):
        list(train(run, planted, recipe, remember))
    assert len(kept) == 5
    assert all(torch.equal(kept[-1][name], t) for name, t in run.model.state_dict().items())


def test_batches_of_one_and_a_perfect_fit_are_no_division_by_zero() -> None:
    """What is left over is exactly zero: the auxiliary loss has nothing to explain."""
    sae = TopKSAE(4, 8, 4)
    with torch.no_grad():
        sae.decoder.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        sae.encoder.copy_(sae.decoder)
    dead = torch.zeros(8, dtype=torch.bool)
    dead[4:] = True
    loss, sums, kept = loop.losses(sae, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 2.5, dead, 1.0)
    assert math.isfinite(float(loss.detach()))
    assert sums.tolist() == [0.0, 2.5, 4.0, 1.0]
    assert sorted(kept.tolist()) == [0, 1, 2, 3]


def test_only_whole_batches_are_used() -> None:
    planted = sae_runs.Planted()
    assert steps_per_buffer(PLANTED, planted) == 8
    assert num_buffers(PLANTED, planted) == 27
    with pytest.raises(UsageError, match="batch_size is 5000, but a buffer holds 4096 activations"):
        steps_per_buffer(sae_runs.changed(batch_size=5000), planted)


def test_as_many_latents_as_are_kept_are_refused() -> None:
    with pytest.raises(UsageError, match="k is 24 and num_latents is 24"):
        start_run(sae_runs.changed(k=24), sae_runs.Planted())
