"""The training loop: a plain twin, every option at work, bit-equal weights for a seed."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tiny
from bilens.base.errors import NumericalError, UsageError
from bilens.nn import BilinearClassifier
from bilens.train.loop import train
from bilens.train.randomness import ORDER, stream
from bilens.train.tasks.image import EpochMetrics, ImageRecipe, ImageTask, Run, accuracy

QUIET = dataclasses.replace(tiny.RECIPE, noise=0.0)
DATA = tiny.images()


def run_of(recipe: ImageRecipe) -> Run:
    return ImageTask(DATA, recipe).start()


def train_all(
    recipe: ImageRecipe,
    run: Run | None = None,
    after_step: Callable[[Run], None] = lambda _run: None,
) -> tuple[BilinearClassifier, list[EpochMetrics]]:
    run = run_of(recipe) if run is None else run
    history = list(train(run, ImageTask(DATA, recipe), after_step))
    return run.model, history


def plain_twin(recipe: ImageRecipe) -> BilinearClassifier:
    """The loop for a recipe without noise, with AdamW from its paper (arXiv:1711.05101, alg. 2)."""
    model = run_of(recipe).model
    weights = list(model.parameters())
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    t = 0
    for epoch in range(recipe.epochs):
        rate = recipe.learning_rate * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
        order = torch.randperm(tiny.NUM_TRAIN, generator=stream(recipe.seed, ORDER, epoch))
        for batch in order[: tiny.STEPS * recipe.batch_size].split(recipe.batch_size):
            logits, labels = model(DATA.train_images[batch]), DATA.train_labels[batch]
            gradients = torch.autograd.grad(functional.cross_entropy(logits, labels), weights)
            t += 1
            with torch.no_grad():
                for weight, gradient, (m, v) in zip(weights, gradients, moments, strict=True):
                    m.mul_(0.9).add_(gradient, alpha=0.1)
                    v.mul_(0.999).add_(gradient**2, alpha=0.001)
                    step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
                    weight.sub_(rate * (step + recipe.weight_decay * weight))
    return model


@pytest.mark.parametrize("options", [{}, {"bias": True, "residual": True, "n_layers": 2}])
def test_without_noise_the_loop_is_a_plain_one(options: dict[str, Any]) -> None:
    """18 steps in float32; the fused AdamW rounds in another order."""
    recipe = dataclasses.replace(QUIET, **options)
    model, _ = train_all(recipe)
    expected = plain_twin(recipe).state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)


CHANGES: dict[str, Any] = {  # another value for each option
    "d_hidden": 9,
    "n_layers": 2,
    "bias": True,
    "residual": True,
    "gate": "gelu",
    "epochs": 4,
    "batch_size": 31,
    "learning_rate": 0.021,
    "weight_decay": 0.2,
    "noise": 0.2,
    "model_noise": 0.1,
    "dropout": 0.1,
    "augmentations": ("translation:0.1",),
    "seed": 1,
    "precision": "bfloat16",
}


def test_every_option_is_tried() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(ImageRecipe)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_weights(name: str) -> None:
    before, _ = train_all(tiny.RECIPE)
    after, _ = train_all(dataclasses.replace(tiny.RECIPE, **{name: CHANGES[name]}))
    assert not tiny.same_weights(before, after)
    assert all(weight.isfinite().all() for weight in after.state_dict().values())
    assert {weight.dtype for weight in after.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_recipe_gives_the_same_weights_bit_for_bit(precision: Any) -> None:
    recipe = dataclasses.replace(tiny.RECIPE, precision=precision, **tiny.EVERYTHING)
    (first, history), (second, again) = train_all(recipe), train_all(recipe)
    assert tiny.same_weights(first, second)
    assert [{**line.to_dict(), "seconds": 0} for line in history] == [
        {**line.to_dict(), "seconds": 0} for line in again
    ]
    other, _ = train_all(dataclasses.replace(recipe, seed=5))
    assert not tiny.same_weights(first, other)


def test_the_global_generators_are_left_alone() -> None:
    before, numpy_before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    train_all(dataclasses.replace(tiny.RECIPE, **tiny.EVERYTHING))
    assert torch.equal(torch.get_rng_state(), before)
    assert str(np.random.get_state()) == numpy_before  # noqa: NPY002


def test_the_state_of_the_global_generator_does_not_matter() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, _ = train_all(tiny.RECIPE)
        torch.manual_seed(2)
        second, _ = train_all(tiny.RECIPE)
    assert tiny.same_weights(first, second)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learning_happens(precision: Any) -> None:
    """Three strokes in a little grey: chance is a third."""
    _, history = train_all(dataclasses.replace(tiny.RECIPE, epochs=8, precision=precision))
    assert history[-1].train_loss < history[0].train_loss / 3
    assert history[-1].train_accuracy > 0.9
    assert history[-1].test_accuracy > 0.9


def test_the_learning_rate_falls_by_a_cosine() -> None:
    """½(1 + cos(π·e/4)) is 1, (2 + √2)/4, ½ and (2 − √2)/4 for e = 0 to 3."""
    rates: list[float] = []
    _, history = train_all(
        dataclasses.replace(tiny.RECIPE, epochs=4, learning_rate=0.01),
        after_step=lambda run: rates.append(run.optimizer.param_groups[0]["lr"]),
    )
    expected = [0.01, 0.01 * (2 + 2**0.5) / 4, 0.005, 0.01 * (2 - 2**0.5) / 4]
    assert [line.learning_rate for line in history] == pytest.approx(expected, rel=1e-12)
    assert rates[:: tiny.STEPS] == pytest.approx(expected, rel=1e-12)  # what AdamW really had
    assert [line.epoch for line in history] == [1, 2, 3, 4]


def clean_logits(model: BilinearClassifier, x: Tensor) -> Tensor:
    """What a copy without any hook computes."""
    twin = tiny.classifier(bias=model.layers[0].has_bias, residual=model.residual)
    twin.load_state_dict(model.state_dict())
    return twin.float()(x)


@pytest.mark.parametrize("options", [{}, {"noise": 0.0}, tiny.EVERYTHING])
def test_the_metrics_are_those_of_the_logits(options: dict[str, Any]) -> None:
    recipe = dataclasses.replace(tiny.RECIPE, epochs=2, **options)
    run, logits = run_of(recipe), []
    handle = run.model.register_forward_hook(
        lambda module, _inputs, output: logits.append(output.detach()) if module.training else None
    )
    for epoch, metrics in enumerate(train(run, ImageTask(DATA, recipe))):
        order = torch.randperm(tiny.NUM_TRAIN, generator=stream(recipe.seed, ORDER, epoch))
        labels = DATA.train_labels[order[: tiny.STEPS * recipe.batch_size]]
        seen = torch.cat(logits)
        logits.clear()
        assert len(seen) == len(labels) == 192  # 6 whole batches of 32 out of 200 images
        assert metrics.train_accuracy == int((seen.argmax(dim=1) == labels).sum()) / 192
        loss = functional.cross_entropy(seen.double(), labels)
        assert metrics.train_loss == pytest.approx(float(loss), rel=1e-6)
        right = clean_logits(run.model, DATA.test_images).argmax(dim=1) == DATA.test_labels
        assert metrics.test_accuracy == int(right.sum()) / tiny.NUM_TEST
    handle.remove()


def test_an_epoch_takes_each_image_at_most_once_and_in_a_new_order() -> None:
    seen: list[Tensor] = []
    run = run_of(QUIET)
    run.model.register_forward_hook(
        lambda module, inputs, _output: seen.append(inputs[0]) if module.training else None
    )
    train_all(QUIET, run)
    images = {tuple(image.tolist()): place for place, image in enumerate(DATA.train_images)}
    order = [images[tuple(image.tolist())] for batch in seen for image in batch]
    epochs = [order[start : start + 192] for start in (0, 192, 384)]
    assert [len(set(epoch)) for epoch in epochs] == [192, 192, 192]
    assert epochs[0] != epochs[1] != epochs[2]


def test_accuracy_is_counted_in_pieces_and_leaves_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.classifier(dtype=torch.float32).train()
    whole = accuracy(model, DATA.test_images, DATA.test_labels)
    monkeypatch.setattr("bilens.train.tasks.image.EVALUATION_BATCH", 7)  # 60 = 8 · 7 + 4
    assert accuracy(model, DATA.test_images, DATA.test_labels) == whole
    assert model.training


@pytest.mark.parametrize("place", [1, 5, 6, 7, 12])
def test_a_run_that_was_broken_off_goes_on_to_the_same_weights(place: int) -> None:
    """A step, the last but one, the end of an epoch, the first of the next, the end again."""
    recipe = dataclasses.replace(tiny.RECIPE, **tiny.EVERYTHING)
    expected, history = train_all(recipe)
    steps = 0

    def stop(_run: Run) -> None:
        nonlocal steps
        steps += 1
        if steps == place:
            raise KeyboardInterrupt

    run = run_of(recipe)
    with pytest.raises(KeyboardInterrupt):
        train_all(recipe, run, stop)
    assert not any(module._forward_hooks for module in run.model.modules())
    model, rest = train_all(recipe, run)
    assert tiny.same_weights(model, expected)
    assert rest[-1].train_loss == history[-1].train_loss
    assert len(rest) == recipe.epochs - (place - 1) // tiny.STEPS


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    recipe = dataclasses.replace(tiny.RECIPE, learning_rate=1e30)
    with pytest.raises(NumericalError, match=r"no longer finite in epoch 1: lower .*1e\+30"):
        train_all(recipe)


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 200), (32, 6), (199, 1), (200, 1)])
def test_only_whole_batches_count(batch_size: int, steps: int) -> None:
    recipe = dataclasses.replace(tiny.RECIPE, batch_size=batch_size)
    assert ImageTask(DATA, recipe).steps == steps


def test_a_batch_that_is_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size is 201, but there are 200 training images"):
        train_all(dataclasses.replace(tiny.RECIPE, batch_size=201))


SIZES = ("d_hidden", "n_layers", "epochs", "batch_size")
AMOUNTS = ("weight_decay", "noise", "model_noise", "dropout", "learning_rate")
UNUSUAL = ImageRecipe(
    d_hidden=7,
    n_layers=2,
    bias=True,
    residual=True,
    gate="silu",
    epochs=5,
    batch_size=3,
    learning_rate=0.25,
    weight_decay=0.0,
    noise=0.125,
    model_noise=0.5,
    dropout=0.75,
    augmentations=("blur:0.5", "correlated-noise:0.3:4"),
    seed=9,
    precision="bfloat16",
)


def test_the_defaults_are_those_of_the_paper() -> None:
    """App. C of 2410.08417: AdamW 1e-3, weight decay 1, batch 2048, input noise 0.5, no bias."""
    recipe = ImageRecipe()
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch_size) == (1e-3, 1.0, 2048)
    assert (recipe.noise, recipe.n_layers, recipe.bias, recipe.residual) == (0.5, 1, False, False)
    assert (recipe.gate, recipe.model_noise, recipe.dropout) == (None, 0.0, 0.0)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_a_size_is_a_positive_whole_number(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be an integer of at least 1, got "):
        ImageRecipe(**{name: value})


def test_integers_of_numpy_can_be_written_as_json() -> None:
    recipe = ImageRecipe(**{name: np.int64(3) for name in (*SIZES, "seed")})
    assert json.loads(json.dumps(recipe.to_dict()))["seed"] == 3


@pytest.mark.parametrize("value", [-1, 0.5, None])
def test_a_seed_is_a_whole_number_from_0(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^seed must be an integer of at least 0, got "):
        ImageRecipe(seed=value)


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_an_amount_is_a_finite_number_from_0(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be a finite number of at least 0, got "):
        ImageRecipe(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, r"^learning_rate must be above 0"),
        ({"dropout": 1.0}, r"^dropout must be below 1, got 1\.0"),
        ({"precision": "float16"}, r"^precision='float16' .*auto, float32, bfloat16"),
        ({"gate": "tanh"}, r"^gate='tanh' is not known: use one of None, relu, gelu, silu"),
        ({"bias": "no"}, r"^bias must be True or False, got 'no'"),
        ({"residual": 1}, r"^residual must be True or False, got 1"),
        ({"augmentations": ("spin:3",)}, r"^'spin:3' is not a known augmentation"),
        ({"augmentations": ("rotation:x",)}, r"^'rotation:x' cannot be read"),
        ({"augmentations": ("rotation:181",)}, r"^'rotation:181': max_degrees must be"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageRecipe(**options)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ImageRecipe().seed = 1  # type: ignore[misc]


def test_no_field_of_the_unusual_recipe_has_its_default() -> None:
    """Else the round trip below would prove nothing about that field."""
    default = ImageRecipe()
    for field in dataclasses.fields(ImageRecipe):
        assert getattr(UNUSUAL, field.name) != getattr(default, field.name), field.name


@pytest.mark.parametrize("recipe", [ImageRecipe(), UNUSUAL])
def test_a_recipe_comes_back_from_json_as_it_was(recipe: ImageRecipe) -> None:
    assert ImageRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    recipe = ImageRecipe(seed=3).resolved()
    assert recipe.precision == expected
    assert dataclasses.replace(recipe, precision="auto") == ImageRecipe(seed=3)


def test_auto_is_float32_where_torch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert ImageRecipe().resolved().precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_given_stays(precision: Any) -> None:
    recipe = ImageRecipe(precision=precision)
    assert recipe.resolved() is recipe
