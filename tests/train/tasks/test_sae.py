"""Training of sparse autoencoders: a planted dictionary is found, and each promise of a step."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import runs
import sae_runs
import tiny
from bilens.algebra.gaussian import geometric_median
from bilens.base.errors import CheckpointError, InterruptedRunError, NumericalError, UsageError
from bilens.io.load import load
from bilens.nn import TopKSAE
from bilens.train.activations import ActivationBuffer, measure_sae
from bilens.train.device import device_of
from bilens.train.loop import train
from bilens.train.tasks import sae
from bilens.train.tasks.sae import Run, SAELine, SAERecipe, SAETask, auxiliary_loss, remove_parallel

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
    task = sae_runs.Steps(recipe, activations)
    run = task.start()
    lines = list(train(run, task))
    found = run.model[0]
    assert isinstance(found, TopKSAE)
    return found, lines


def test_a_planted_dictionary_is_recovered() -> None:
    """36 directions in 24 dimensions, two at a time around a centre, and twice as many latents."""
    planted = sae_runs.Planted()
    found, lines = finished(PLANTED, planted)
    cosines = (found.decoder.detach() @ planted.directions.T).amax(dim=0)
    assert float((cosines > 0.95).double().mean()) > 0.9
    last = lines[-1]
    assert last.fvu["planted"] < 0.08
    assert 2.5 < last.l0["planted"] <= 3
    assert last.dead["planted"] < 0.6  # half of them are too many
    assert [line.epoch for line in lines] == list(range(1, 28))
    assert (last.step, last.tokens) == (27 * 8, 110_592)


def test_the_start_is_tied_scaled_and_centred() -> None:
    planted = sae_runs.Planted()
    found = sae_runs.Steps(PLANTED, planted).start().model[0]
    rows = planted.buffer(0).activations["planted"]
    mean_square = (rows * found.scale).square().sum(dim=1).mean()
    assert float(mean_square) == pytest.approx(24, rel=1e-5)
    assert torch.equal(found.encoder, found.decoder)
    median = geometric_median(rows * found.scale)
    torch.testing.assert_close(found.decoder_bias.detach(), median, rtol=1e-4, atol=1e-4)


def test_rows_keep_norm_one_and_learn_nothing_along_themselves() -> None:
    found, _ = finished(sae_runs.changed(hooks=("planted",), tokens=3000), sae_runs.Planted())
    torch.testing.assert_close(found.decoder.norm(dim=1), torch.ones(24))
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
        task = sae_runs.Steps(recipe, sae_runs.Planted())
        run = task.start()
        with torch.no_grad():
            run.model[0].encoder[12:] *= 0.01
        lines = list(train(run, task))
        shares[weight] = lines[-1].dead["planted"]
    assert shares[0.0] > 0.4
    assert shares[1 / 32] < 0.5 * shares[0.0]


def test_the_auxiliary_loss_is_what_it_says() -> None:
    """At most d_in / 2 = 3 dead latents an input; fewer dead ones in all count for less."""
    torch.manual_seed(0)
    small, x = TopKSAE(6, 20, 4).double(), torch.randn(30, 6).double()
    left = torch.randn(30, 6).double()
    for places in ([1, 4, 5, 9, 17], [3, 8]):
        dead = torch.zeros(20, dtype=torch.bool)
        dead[places] = True
        pre = small.pre_activations(x)[:, places]
        values, indices = pre.topk(min(3, len(places)), dim=1)
        code = torch.zeros_like(pre).scatter(1, indices, values.relu())
        error = (code @ small.decoder[places] - left).square().sum() / left.square().sum()
        expected = min(1, len(places) / 3) * error
        torch.testing.assert_close(auxiliary_loss(small, x, left, dead), expected)


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
        sae_runs.Steps(sae_runs.changed(hooks=Constant.hooks), Constant(row)).start()


def test_a_loss_that_is_no_number_ends_the_run_with_the_weights_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = sae_runs.Steps(PLANTED, sae_runs.Planted())
    kept: list[dict[str, torch.Tensor]] = []
    original = sae.losses

    def losses(*given: Any, **group: Any) -> Any:
        loss, sums, latents = original(*given, **group)
        return (loss * math.nan if run.step == 5 else loss), sums, latents

    def remember(now: Run) -> None:
        kept.append({name: t.clone() for name, t in now.model.state_dict().items()})

    monkeypatch.setattr(sae, "losses", losses)
    run = task.start()
    with pytest.raises(NumericalError, match=r"at planted is no longer finite at step 6 .*low"):
        list(train(run, task, remember))
    assert len(kept) == 5
    assert all(torch.equal(kept[-1][name], t) for name, t in run.model.state_dict().items())


def test_batches_of_one_and_a_perfect_fit_are_no_division_by_zero() -> None:
    """What is left over is exactly zero: the auxiliary loss has nothing to explain."""
    small = TopKSAE(4, 8, 4)
    with torch.no_grad():
        small.decoder.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        small.encoder.copy_(small.decoder)
    dead = torch.zeros(8, dtype=torch.bool)
    dead[4:] = True
    loss, sums, kept = sae.losses(small, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 2.5, dead, 1.0)
    assert math.isfinite(float(loss.detach()))
    assert sums.tolist() == [0.0, 2.5, 4.0, 1.0]
    assert sorted(kept.tolist()) == [0, 1, 2, 3]


def test_only_whole_batches_are_used() -> None:
    planted = sae_runs.Planted()
    task = sae_runs.Steps(PLANTED, planted)
    assert (task.steps, task.epochs) == (8, 27)
    with pytest.raises(UsageError, match="batch_size is 5000, but a buffer holds 4096 activations"):
        sae_runs.Steps(sae_runs.changed(batch_size=5000), planted)


def test_as_many_latents_as_are_kept_are_refused() -> None:
    with pytest.raises(UsageError, match="k is 24 and num_latents is 24"):
        sae_runs.Steps(sae_runs.changed(k=24), sae_runs.Planted()).start()


FILES = {"config.json", "model.safetensors", "README.md"}


def saes(folder: Path) -> list[torch.nn.Module]:
    return [load(folder / hook).module for hook in sae_runs.HOOKS]


@cache
def uninterrupted() -> tuple[list[torch.nn.Module], list[dict[str, Any]]]:
    """Weights and history of the run that nothing disturbs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sae_runs.go(Path(folder))
        return saes(Path(folder)), sae_runs.history(Path(folder))


def test_each_hook_point_has_a_model_folder(tmp_path: Path) -> None:
    result = sae_runs.go(tmp_path, provenance={"command": "here"})
    assert len(result.history) == 5
    assert {item.name for item in tmp_path.iterdir()} == {
        *("run.json", "history.jsonl", "checkpoints", *sae_runs.HOOKS)
    }
    for hook in sae_runs.HOOKS:
        assert {item.name for item in (tmp_path / hook).iterdir()} == FILES
        model = load(tmp_path / hook)
        said = model.provenance
        assert (said["hook"], said["model"], said["model_sha256"]) == (hook, "here", "0" * 64)
        assert (said["command"], said["data_source"]) == ("here", "random tokens")
        assert json.loads(said["recipe"]) == sae_runs.RECIPE.to_dict()
        read = sae_runs.read_model()
        assert isinstance(model.module, TopKSAE)
        measured = measure_sae(read.model, model.module, hook, read.held_out)
        assert json.loads(said["metrics"]) == pytest.approx(measured.to_dict())
    job = SAETask(sae_runs.RECIPE, sae_runs.read_model())
    assert [*job.measured(tmp_path)] == [*sae_runs.HOOKS]


def test_an_autoencoder_is_measured_where_the_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SAETask(sae_runs.RECIPE, sae_runs.read_model())
    run = task.start()  # on the CPU, as one that was divided
    task.read.model.to("meta")

    def measured(model: nn.Module, one: nn.Module, *_: object) -> None:
        assert device_of(one) == device_of(model)
        raise runs.Break

    monkeypatch.setattr(sae, "measure_sae", measured)
    with pytest.raises(runs.Break):
        task.save(run, tmp_path, {})


def test_the_run_folder_of_several_says_which_there_are(tmp_path: Path) -> None:
    sae_runs.go(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds 2 models, .*blocks\.0\."):
        load(tmp_path)


def test_with_one_hook_point_the_run_folder_is_the_model_folder(tmp_path: Path) -> None:
    hook = sae_runs.HOOKS[1]
    sae_runs.go(tmp_path, sae_runs.changed(hooks=(hook,)))
    assert {item.name for item in tmp_path.iterdir()} == {
        *("run.json", "history.jsonl", "checkpoints", *FILES)
    }
    assert load(tmp_path).provenance["hook"] == hook


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 14, 15])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, steps: int) -> None:
    """Broken off within a buffer, at its end, in the first and in the last one."""
    with runs.interrupted_after(steps), pytest.raises(InterruptedRunError, match=r"buffer . of 5"):
        sae_runs.go(tmp_path)
    sae_runs.go(tmp_path, resume=True)
    expected, lines = uninterrupted()
    for ours, theirs in zip(saes(tmp_path), expected, strict=True):
        assert tiny.same_weights(ours, theirs)
    assert sae_runs.history(tmp_path) == lines


def test_trained_together_they_are_as_trained_alone(tmp_path: Path) -> None:
    """The first one draws the same start; the other's gradient is clipped on its own."""
    sae_runs.go(tmp_path, sae_runs.changed(hooks=sae_runs.HOOKS[:1]))
    assert tiny.same_weights(load(tmp_path).module, uninterrupted()[0][0])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    sae_runs.go(tmp_path)
    before = (tmp_path / sae_runs.HOOKS[0] / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    result = sae_runs.go(tmp_path, resume=True, say=said.append)
    assert any("is finished" in text for text in said)
    assert len(result.history) == 5
    assert (tmp_path / sae_runs.HOOKS[0] / "model.safetensors").stat().st_mtime_ns == before


def test_an_earlier_run_is_kept_until_the_new_one_is_done(tmp_path: Path) -> None:
    sae_runs.go(tmp_path)
    other = sae_runs.changed(hooks=sae_runs.HOOKS[:1], seed=1)
    with pytest.raises(runs.Break):
        sae_runs.go(tmp_path, other, overwrite=True, on_epoch=runs.break_at(2))
    for ours, theirs in zip(saes(tmp_path), uninterrupted()[0], strict=True):
        assert tiny.same_weights(ours, theirs)
    sae_runs.go(tmp_path, other, overwrite=True)
    assert load(tmp_path).provenance["hook"] == sae_runs.HOOKS[0]
    assert not (tmp_path / sae_runs.HOOKS[1]).exists()


def test_other_texts_or_another_model_are_not_resumed(tmp_path: Path) -> None:
    with runs.interrupted_after(2), pytest.raises(InterruptedRunError):
        sae_runs.go(tmp_path)
    read = sae_runs.read_model()
    object.__setattr__(read, "weights_sha256", "1" * 64)
    with pytest.raises(UsageError, match="was started on other activations"):
        sae_runs.go(tmp_path, resume=True, read=read)
    with pytest.raises(UsageError, match="was started with k=3; this command says k=4"):
        sae_runs.go(tmp_path, sae_runs.changed(k=4), resume=True)


def test_a_loss_that_is_no_number_names_the_state_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sae.losses
    steps: list[int] = []

    def losses(*given: Any, **group: Any) -> Any:
        loss, *others = original(*given, **group)
        steps.append(1)
        return (loss * float("nan") if len(steps) > 16 else loss, *others)

    monkeypatch.setattr(sae, "losses", losses)
    with (
        runs.checkpoint_every_epoch(),
        pytest.raises(NumericalError, match=r"at step 9 .*kept: .*ckpt-000002-000000"),
    ):
        sae_runs.go(tmp_path)
    monkeypatch.setattr(sae, "losses", original)
    sae_runs.go(tmp_path, resume=True)
    for ours, theirs in zip(saes(tmp_path), uninterrupted()[0], strict=True):
        assert tiny.same_weights(ours, theirs)


def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    for changes, message in (
        ({"hooks": ("blocks.9.mlp_out",)}, r"'blocks\.9\.mlp_out' is no hook point"),
        ({"k": 24}, "k is 24 and num_latents is 24"),
        ({"batch_size": 1000}, "batch_size is 1000, but a buffer holds 110 activations"),
    ):
        with pytest.raises(UsageError, match=message):
            sae_runs.go(tmp_path / "run", sae_runs.changed(**changes))
    assert not (tmp_path / "run").exists()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a text as hooks": (
        {"hooks": "blocks.0.mlp_in"},
        "hooks is 'blocks.0.mlp_in'; expected one or",
    ),
    "no hooks": ({"hooks": ()}, r"hooks is \(\); expected one or more"),
    "a hook twice": ({"hooks": ("a", "b", "a")}, "one of them is given twice"),
    "no latents": ({"num_latents": 0}, "num_latents must be an integer of at least 2"),
    "k of a half": ({"k": 0.5}, "k must be an integer of at least 1, got 0.5"),
    "no tokens": ({"tokens": 0}, "tokens must be an integer of at least 1"),
    "a negative seed": ({"seed": -1}, "seed must be an integer of at least 0"),
    "a rate of zero": ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    "an infinite rate": ({"learning_rate": float("inf")}, "learning_rate must be a finite number"),
    "a rate that is true": ({"learning_rate": True}, "learning_rate must be a finite number"),
    "all warm-up": ({"warmup": 1.0}, "warmup must be below 1, got 1.0"),
    "a negative weight": ({"auxiliary": -1}, "auxiliary must be a finite number of at least 0"),
    "another sign": ({"sign": "abs"}, "sign='abs' is not known: use one of relu, raw"),
    "another schedule": ({"schedule": "flat"}, "schedule='flat' is not known: use one of linear"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_that_makes_no_sense_is_refused(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        SAERecipe(**{"hooks": ("blocks.0.mlp_out",), **changes})


def test_it_survives_json() -> None:
    recipe = SAERecipe(hooks=("blocks.0.mlp_in", "blocks.0.mlp_out"), num_latents=64, sign="raw")
    assert SAERecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_dictionary_is_four_times_the_width_unless_said() -> None:
    assert SAERecipe(hooks=("a",)).latents_for(128) == 512
    assert SAERecipe(hooks=("a",), num_latents=100).latents_for(128) == 100
