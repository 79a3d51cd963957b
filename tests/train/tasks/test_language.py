"""The loop of language models: a plain twin, every option at work, bit-equal weights for a seed."""

import json
import math
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import language_runs
import runs
import tiny
from bilens.base.errors import (
    CheckpointError,
    DataError,
    InterruptedRunError,
    MemoryLimitError,
    NumericalError,
    UsageError,
)
from bilens.nn.transformer import BilinearTransformer
from bilens.train.corpus import CorpusDescription, open_model_bundle
from bilens.train.loop import learning_rate, train
from bilens.train.recipes import GRAMMAR_RECIPE, TEXT_RECIPE, LanguageRecipe, default_recipe
from bilens.train.tasks import language
from bilens.train.tasks.language import BETAS, held_out_loss, start_run, train_step

QUIET = language_runs.changed(dropout=0.0)


def plain_twin(recipe: LanguageRecipe) -> BilinearTransformer:
    """The loop without dropout, with AdamW from its paper (arXiv:1711.05101, alg. 2)."""
    model = start_run(recipe, language_runs.tokenizer().vocab_size).model
    weights = list(model.parameters())
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    batches = language_runs.task(recipe).batches
    assert recipe.steps is not None
    for step in range(recipe.steps):
        rising = math.ceil(recipe.warmup * recipe.steps)
        done = (step - rising) / (recipe.steps - rising)
        rate = recipe.learning_rate * (1 - done if step >= rising else (step + 1) / rising)
        texts = batches.batch(step)
        logits = model(texts[:, :-1])
        loss = functional.cross_entropy(logits.transpose(1, 2), texts[:, 1:])
        gradients = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        with torch.no_grad():
            for weight, raw, (m, v) in zip(weights, gradients, moments, strict=True):
                gradient = raw * min(1.0, recipe.clip / (norm + 1e-6))
                m.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
                v.mul_(BETAS[1]).add_(gradient**2, alpha=1 - BETAS[1])
                corrected = m / (1 - BETAS[0] ** (step + 1))
                size = (v / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8
                weight.mul_(1 - rate * recipe.weight_decay).sub_(rate * corrected / size)
    return model


def test_the_loop_is_what_its_plain_twin_computes() -> None:
    recipe = language_runs.changed(dropout=0.0, warmup=0.3, clip=0.5)
    expected = plain_twin(recipe).state_dict()
    for name, value in language_runs.trained(recipe).model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    first, second = language_runs.trained(), language_runs.trained()
    assert tiny.same_weights(first.model, second.model)
    other = language_runs.trained(language_runs.changed(seed=1))
    assert not tiny.same_weights(first.model, other.model)


OPTIONS: dict[str, dict[str, Any]] = {
    "gate": {"gate": "silu"},
    "mlp_type": {"mlp_type": "ordinary"},
    "steps": {"steps": 13},
    "epochs": {"steps": None, "epochs": 1.0},
    "batch_size": {"batch_size": 16},
    "learning_rate": {"learning_rate": 0.01},
    "schedule": {"schedule": "cosine"},
    "warmup": {"warmup": 0.5},
    "weight_decay": {"weight_decay": 0.5},
    "clip": {"clip": 0.01},
    "dropout": {"dropout": 0.2},
    "precision": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_weights(name: str) -> None:
    changed = language_runs.trained(language_runs.changed(**OPTIONS[name])).model.state_dict()
    usual = language_runs.trained().model.state_dict()
    assert any(
        changed[key].shape != usual[key].shape or not torch.equal(changed[key], usual[key])
        for key in usual
    )


def test_how_often_is_measured_changes_no_weight() -> None:
    often = language_runs.trained(language_runs.changed(evaluations=14))
    assert tiny.same_weights(often.model, language_runs.trained().model)


def test_the_lines_of_the_history_say_what_was_done() -> None:
    training = language_runs.task()
    run = training.start()
    lines = list(train(run, training))
    assert [line.step for line in lines] == [3, 7, 10, 14]
    assert [line.epoch for line in lines] == [1, 2, 3, 4]
    assert lines[-1].tokens == 14 * 32 * 15
    rates = [learning_rate(0.02, "linear", 0.05, line.step - 1, 14) for line in lines]
    assert [line.learning_rate for line in lines] == rates
    last = lines[-1]
    data = language_runs.tokens()
    assert last.held_out_loss == held_out_loss(run, data.held_out, 15)
    assert last.held_out_bits_per_byte == data.bits_per_byte(last.held_out_loss)
    assert last.held_out_loss < lines[0].held_out_loss < math.log(90)
    assert last.tokens_per_second == pytest.approx(4 * 32 * 15 / last.seconds)


def test_more_lines_than_steps_are_as_many_as_steps() -> None:
    training = language_runs.task(language_runs.changed(steps=3, evaluations=10))
    assert [line.step for line in train(training.start(), training)] == [1, 2, 3]


@torch.no_grad()
def test_the_held_out_loss_is_the_mean_over_all_predictions() -> None:
    """Written out: each token behind the first, given those before it in its text."""
    with torch.enable_grad():
        run = language_runs.trained(QUIET)
    tokens = language_runs.tokens().held_out[:76]  # five texts
    logs = []
    for start in range(0, 75, 15):
        text = tokens[start : start + 16]
        chances = run.model.eval()(text[None, :-1])[0].log_softmax(dim=-1)
        logs += [float(chances[place, text[place + 1]]) for place in range(15)]
    assert held_out_loss(run, tokens, 15) == pytest.approx(-sum(logs) / len(logs), rel=1e-5)


def test_dropout_is_off_where_the_loss_is_measured() -> None:
    training = language_runs.task(language_runs.changed(dropout=0.5, steps=2, evaluations=1))
    run = training.start()
    (line,) = train(run, training)
    assert line.held_out_loss == held_out_loss(run, language_runs.tokens().held_out, 15)
    hooks = [module._forward_hooks for module in run.model.modules()]
    assert not any(hooks)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    run = start_run(QUIET, language_runs.tokenizer().vocab_size)
    with torch.no_grad():
        run.model.unembed.weight.fill_(3e38)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    texts = language_runs.task(QUIET).batches.batch(0)
    with pytest.raises(NumericalError, match=r"no longer finite at step 6 .*lower the learning"):
        train_step(run, texts, QUIET, 5)
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())


def test_a_model_that_cannot_fit_is_refused_before_it_is_built() -> None:
    with pytest.raises(MemoryLimitError, match="choose a smaller model"):
        start_run(language_runs.changed(d_model=1 << 20), 1 << 20)


@cache
def uninterrupted(precision: str = "float32") -> tuple[Any, list[dict[str, Any]]]:
    """Weights and history of the run that nothing disturbs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        language_runs.go(Path(folder), language_runs.changed(precision=precision))
        return open_model_bundle(Path(folder)).model, language_runs.history(Path(folder))


@pytest.mark.parametrize("steps", [1, 3, 5, 9, 13, 14])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_uninterrupted_one(steps: int, precision: str, tmp_path: Path) -> None:
    """Wherever it is broken off: within a line of the history, at its end, in the second pass."""
    recipe = language_runs.changed(precision=precision)
    with runs.interrupted_after(steps), pytest.raises(InterruptedRunError):
        language_runs.go(tmp_path, recipe)
    language_runs.go(tmp_path, recipe, resume=True)
    model, lines = uninterrupted(precision)
    assert tiny.same_weights(open_model_bundle(tmp_path).model, model)
    assert language_runs.history(tmp_path) == lines


def test_ctrl_c_says_where_it_was_and_how_to_go_on(tmp_path: Path) -> None:
    def interrupt(line: Any) -> None:
        if line.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError, match=r"in part 3 of 4; .*--resume") as caught:
        language_runs.go(tmp_path, on_epoch=interrupt)
    assert caught.value.exit_code == 130
    said: list[str] = []
    language_runs.go(tmp_path, resume=True, say=said.append)
    assert said == [f"Continuing {tmp_path} after part 2 of 4, step 1."]
    assert tiny.same_weights(open_model_bundle(tmp_path).model, uninterrupted()[0])


def test_a_loss_that_is_no_longer_finite_keeps_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = language.train_step

    def bad(run: Any, texts: Any, recipe: Any, number: int, *how: Any) -> None:
        if number == 8:
            with torch.no_grad():
                run.model.embed.weight[0, 0] = float("nan")
        step(run, texts, recipe, number, *how)

    monkeypatch.setattr(language, "train_step", bad)
    with runs.checkpoint_every_epoch(), pytest.raises(NumericalError) as caught:
        language_runs.go(tmp_path)
    kept = tmp_path / "checkpoints" / "ckpt-000002-000000"
    assert "no longer finite at step 9 (loss nan" in str(caught.value)
    assert str(caught.value).endswith(f"The state before it is kept: {kept}.")
    assert runs.checkpoints(tmp_path)[-1] == kept.name
    assert not (tmp_path / "config.json").exists()
    monkeypatch.undo()
    language_runs.go(tmp_path, resume=True)
    assert tiny.same_weights(open_model_bundle(tmp_path).model, uninterrupted()[0])


def test_a_short_run_keeps_its_first_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time between checkpoints is not up when the loss stops being a number."""
    step = language.train_step

    def bad(run: Any, texts: Any, recipe: Any, number: int, *how: Any) -> None:
        if number == 8:
            raise NumericalError("not finite.")
        step(run, texts, recipe, number, *how)

    monkeypatch.setattr(language, "train_step", bad)
    with pytest.raises(NumericalError, match=r"state before it is kept: .*ckpt-000001-000000"):
        language_runs.go(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    language_runs.go(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    words[-1], words[-2] = words[-2], words[-1]
    content["model"]["vocab"] = {word: place for place, word in enumerate(words)}
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is not the one that the model was trained with"):
        open_model_bundle(tmp_path)


def test_a_finished_folder_holds_all_that_later_commands_need(tmp_path: Path) -> None:
    language_runs.go(tmp_path, provenance={"command": "here"})
    opened = open_model_bundle(tmp_path)
    assert opened.tokenizer.sha256 == language_runs.tokenizer().sha256
    assert opened.corpus.load() == language_runs.corpus()
    assert not opened.model.training
    content = json.loads((tmp_path / "corpus.json").read_text())
    assert content["options"]["corpus"] == "grammar"
    assert content["num_held_out"] == len(language_runs.corpus().held_out)
    assert {item.name for item in tmp_path.iterdir()} - {"checkpoints"} == {
        *("config.json", "model.safetensors", "tokenizer.json", "corpus.json", "README.md"),
        *("run.json", "history.jsonl"),
    }


def test_other_text_is_not_gone_on_with(tmp_path: Path) -> None:
    with runs.interrupted_after(2), pytest.raises(InterruptedRunError):
        language_runs.go(tmp_path)
    about = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**about, "data": "0" * 64}))
    with pytest.raises(UsageError, match="was started on other text"):
        language_runs.go(tmp_path, resume=True)


def test_overwriting_takes_the_files_of_a_language_model_away_too(tmp_path: Path) -> None:
    language_runs.go(tmp_path)
    runs.go(tmp_path, overwrite=True)
    runs.assert_as_uninterrupted(tmp_path)


def test_a_folder_of_images_is_no_language_model(tmp_path: Path) -> None:
    runs.go(tmp_path)
    with pytest.raises(UsageError, match="holds a BilinearClassifier; expected a language model"):
        open_model_bundle(tmp_path)


def test_a_corpus_that_changed_or_moved_is_noticed(tmp_path: Path) -> None:
    language_runs.go(tmp_path)
    path = tmp_path / "corpus.json"
    content = json.loads(path.read_text())
    content["options"]["seed"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="grammar holds other documents than the model was trained"):
        CorpusDescription.read_from(tmp_path).load()
    path.write_text('{"options": {"corpse": "grammar"}}')
    with pytest.raises(CheckpointError, match="not the description of a corpus"):
        CorpusDescription.read_from(tmp_path)


def test_a_corpus_of_a_file_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stories = [f"Anna had {number} balls." for number in range(30)]
    (tmp_path / "stories.txt").write_text("\n\n".join(stories))
    monkeypatch.chdir(tmp_path)
    options = language_runs.CorpusOptions("stories.txt")
    corpus = options.load()
    CorpusDescription.describe(options, corpus).write(tmp_path)
    (tmp_path / "moved").mkdir()
    monkeypatch.chdir(tmp_path / "moved")
    assert CorpusDescription.read_from(tmp_path).load().documents == corpus.documents
    moved = (tmp_path / "stories.txt").rename(tmp_path / "moved" / "stories.txt")
    with pytest.raises(DataError, match="does not exist"):
        CorpusDescription.read_from(tmp_path).load()
    assert CorpusDescription.read_from(tmp_path).load(str(moved)).documents == corpus.documents


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"d_model": 0}, "d_model must be"),
    ({"n_ctx": 1}, "n_ctx must be"),
    ({"steps": 0}, "steps must be"),
    ({"batch_size": 1.5}, "batch_size must be"),
    ({"seed": -1}, "seed must be"),
    ({"epochs": 0}, "epochs must be above 0"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
    ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ({"clip": 0}, "clip must be above 0"),
    ({"weight_decay": -0.1}, "weight_decay must be a finite number"),
    ({"dropout": 1.0}, "dropout must be below 1"),
    ({"warmup": 1.0}, "warmup must be below 1"),
    ({"tied": 1}, "tied must be True or False"),
    ({"gate": "swish"}, "gate='swish' is not known: use one of None, relu, gelu, silu"),
    ({"mlp_type": "wide"}, "mlp_type='wide' is not known"),
    ({"tokenizer": "bpe"}, "tokenizer='bpe' is not known: use one of byte-bpe"),
    ({"schedule": "step"}, "schedule='step' is not known"),
    ({"precision": "float16"}, "precision='float16' is not known"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LanguageRecipe(**fields)


@pytest.mark.parametrize("recipe", [TEXT_RECIPE, GRAMMAR_RECIPE, language_runs.RECIPE])
def test_a_recipe_survives_json(recipe: LanguageRecipe) -> None:
    assert LanguageRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_whole_numbers_and_fractions_that_are_equal_are_the_same_recipe() -> None:
    """Else a run with --epochs 2 could not be resumed with --epochs 2.0."""
    assert json.dumps(LanguageRecipe(epochs=2).to_dict()) == json.dumps(
        LanguageRecipe(epochs=2.0).to_dict()
    )


def test_auto_is_resolved_to_what_this_machine_does() -> None:
    assert LanguageRecipe().resolved().precision in ("float32", "bfloat16")
    assert LanguageRecipe(precision="float32").resolved().precision == "float32"


def test_the_grammar_has_a_recipe_of_its_own() -> None:
    assert default_recipe("grammar") is GRAMMAR_RECIPE
    assert default_recipe("stories.txt") is TEXT_RECIPE
