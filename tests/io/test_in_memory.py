"""Modules and fitted estimators of other people become models that say how exactly."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import NonFiniteError, UsageError
from builders import randn


class Scattered(nn.Module):
    """What cannot be traced: the branch taken depends on a value."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)
        self.up = nn.Linear(4, 6) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            return x
        hidden = torch.nn.functional.gelu(self.fc1(x))
        y: Tensor = self.fc2(hidden if self.up is None else hidden * self.up(x))
        return y


@pytest.mark.parametrize("gated", [False, True])
def test_what_cannot_be_traced_is_watched(gated: bool) -> None:
    module = nn.Sequential(nn.LayerNorm(4), Scattered(gated)).bfloat16()
    with pytest.raises(UsageError, match=r"no MLP is found in the Sequential.*pass example="):
        bl.from_module(module)
    model = bl.from_module(module, randn(3, 5, 4))
    (name,) = model.layers
    view = model.layers[name]
    assert (name, view.gated, view.activation.name) == ("1", gated, "gelu")
    assert view.dtype == torch.bfloat16
    assert view.reads == "activations"
    x = randn(7, 4)
    with torch.no_grad():
        expected = module[1].double()(x)
    torch.testing.assert_close(view.weights(torch.float64)(x), expected)
    assert model.load_report is not None
    assert model.load_report.worst.relative_error < 0.01  # as the module rounds, in bfloat16
    around = "the module itself: what it does around its parts cannot be traced"
    assert model.load_report.left_out == (around, "0 (LayerNorm)")


class ReGLU(Scattered):
    """The product of both branches, whichever of them runs first."""

    def __init__(self, gate_first: bool) -> None:
        super().__init__(gated=True)
        self.gate_first = gate_first

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            return x
        first, second = self.fc1(x), self.up(x)
        product = first.relu() * second if self.gate_first else first * second.relu()
        y: Tensor = self.fc2(product)
        return y


@pytest.mark.parametrize("gate_first", [False, True])
def test_a_gate_that_ran_above_zero_alone_is_none_for_sure(gate_first: bool) -> None:
    """ReLU and no activation fit what ran there, the second one with the branches swapped, too."""
    module = ReGLU(gate_first)
    example, bias = 9 * randn(3, 4), module.fc1.bias if gate_first else module.up.bias
    (view,) = bl.from_module(module, example).layers.values()
    assert (view.activation.name, view.gated) == ("relu", True)
    torch.nn.init.constant_(bias, 99.0)
    with pytest.raises(UsageError, match="no MLP is found"):
        bl.from_module(module, example)


@pytest.mark.parametrize("example", [torch.zeros(2, 5), (1, 2), {"y": torch.zeros(2, 4)}])
def test_an_example_that_does_not_run_is_refused(example: Any) -> None:
    with pytest.raises(UsageError, match="does not run through the Scattered"):
        bl.from_module(Scattered(False), example)


def test_the_error_of_a_module_is_told_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Scattered, x: Tensor) -> Tensor:
        raise RuntimeError(f"{x.ndim} axes:\n  no")

    monkeypatch.setattr(Scattered, "forward", fail)
    with pytest.raises(UsageError, match=r"\(RuntimeError: 2 axes: no\)"):
        bl.from_module(Scattered(False), randn(2, 4))


class Noisy(nn.Module):
    """Adds noise whether it is trained or not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(torch.relu(self.fc1(x) + torch.randn(6)))
        return y


def test_noise_is_not_taken_for_a_bias() -> None:
    with pytest.raises(UsageError, match="no MLP is found in the Noisy"):
        bl.from_module(Noisy())
    with pytest.raises(UsageError, match="no MLP is found in the Noisy"):
        bl.from_module(Noisy(), randn(3, 4))


def language_model(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 9, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8}
    common = {**sizes, "intermediate_size": 12, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "llama":
        config = transformers.LlamaConfig(**common, num_key_value_heads=2)
        model = transformers.LlamaForCausalLM(config)
    elif kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2)
        model = transformers.GPT2LMHeadModel(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(**common))
    assert isinstance(model, nn.Module)
    return model


NAMES = {
    "llama": ("model.layers.{}.mlp", "silu"),
    "gpt2": ("transformer.h.{}.mlp", "gelu_tanh"),
    "bert": ("encoder.layer.{}", "gelu"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_whole_language_model_is_read(kind: str) -> None:
    module = language_model(kind)
    example = torch.arange(6)[None] if kind == "bert" else None
    model = bl.from_module(module, example)
    name, activation = NAMES[kind]
    for index in range(2):
        assert model.layers[name.format(index)].activation.name == activation
    assert not model.network
    with pytest.raises(UsageError, match=r"not its layers one behind the other.*--layer"):
        bl.quadratic_fit(model)
    fit = bl.quadratic_fit(model.layers[name.format(1)], samples=200)
    assert fit.r_squared.quadratic.overall > fit.r_squared.linear.overall


def test_a_network_is_fitted_end_to_end() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2), nn.Softmax(-1)
    )
    model = bl.from_module(module)
    assert [view.gives for view in model.network] == ["neurons", "logits"]
    assert model.load_report is not None
    assert model.load_report.head == "Softmax"
    x = randn(500, 4)
    fit = bl.quadratic_fit(model, data=x)
    with torch.no_grad():
        logits = module[:-1].double()(x)
    rest = (logits - fit.quadratic_map(x)).square().sum()
    spread = (logits - logits.mean(dim=0)).square().sum()
    assert fit.r_squared.quadratic.overall == pytest.approx(1 - float(rest / spread), abs=0.05)
    other = bl.from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh()))
    assert other.weights_sha256 != model.weights_sha256
    assert other.load_report is not None
    assert "Largest difference from the module itself, as it runs" in "\n".join(
        other.load_report.lines()
    )


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_a_classifier_has_the_layers_that_its_folder_has(n_layers: int) -> None:
    module = bl.nn.BilinearClassifier(6, 4, 3, n_layers)
    expected = [f"layers.{index}" for index in range(n_layers)]
    assert [*bl.from_module(module).layers] == expected
    inside = nn.Sequential(nn.LayerNorm(6), module)  # every layer has a holder of its own
    assert [*bl.from_module(inside).layers][1:] == [f"1.{name}" for name in expected][1:]


def test_what_needs_a_module_of_ours_is_refused() -> None:
    model = bl.from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh()))
    with pytest.raises(UsageError, match="the layers alone are read"):
        model.module_for("a trace")


ROWS, COLUMNS = 60, 4
X = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
TARGETS: dict[str, Any] = {
    "two classes": np.where(X[:, 0] > 0, "yes", "no"),
    "three classes": np.digitize(X[:, 0], [-0.5, 0.5]),
    "three labels": (X[:, :3] > 0).astype(int),
    "one number": X[:, 0],
    "two numbers": X[:, :2],
}


def networks() -> Any:
    return pytest.importorskip("sklearn.neural_network")


def fitted(target: str, hidden: tuple[int, ...] = (6, 5), **options: Any) -> Any:
    kind = networks().MLPRegressor if "number" in target else networks().MLPClassifier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in three steps
        return kind(hidden_layer_sizes=hidden, max_iter=3, random_state=0, **options).fit(
            X, TARGETS[target]
        )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_the_layers_are_the_estimator(target: str, activation: str) -> None:
    estimator = fitted(target, activation=activation)
    model = bl.from_sklearn(estimator)
    y = torch.tensor(X)
    for view in model.network:
        y = view.weights()(y)
    if "number" in target:
        expected = estimator.predict(X).reshape(ROWS, -1)
    else:
        y = y.softmax(dim=-1) if "classes" in target else y.sigmoid()
        expected = estimator.predict_proba(X)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert model.load_report is not None
    assert model.load_report.worst.max_error < 1e-12
    wanted = {"identity": "identity", "logistic": "sigmoid"}.get(activation, activation)
    assert {view.activation.name for view in model.layers.values()} == {wanted}
    assert model.network[-1].classes == ("classes" in target)  # labels have no common gauge


def test_two_classes_have_two_logits_and_their_names() -> None:
    estimator = fitted("two classes")
    model = bl.from_sklearn(estimator)
    assert model.output_names == ("no", "yes")
    assert model.network[-1].sizes.d_out == 2
    assert model.network[-1].gives == "logits"
    assert model.load_report is not None
    assert "z the one logit" in str(model.load_report.head)


def test_columns_keep_their_names() -> None:
    pandas = pytest.importorskip("pandas")
    estimator = fitted("one number")
    assert bl.from_sklearn(estimator).input_names is None
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(table, X[:, 0])
    assert bl.from_sklearn(estimator).input_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5, 4)])
def test_any_number_of_hidden_layers(hidden: tuple[int, ...]) -> None:
    model = bl.from_sklearn(fitted("three classes", hidden))
    assert len(model.network) == max(len(hidden), 1)


def test_an_estimator_is_fitted_end_to_end() -> None:
    estimator = fitted("one number", activation="tanh")
    fit = bl.quadratic_fit(estimator, data=torch.tensor(X))
    assert fit.r_squared.quadratic.overall > 0.9


def broken() -> Any:
    estimator = fitted("one number")
    estimator.coefs_[1][2, 3] = np.nan
    return estimator


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "not fitted": (lambda: networks().MLPClassifier(), UsageError, "is not fitted: call its fit"),
    "a number": (lambda: 3, UsageError, "a int is no MLP of scikit-learn; expected a fitted"),
    "the class": (lambda: networks().MLPClassifier, UsageError, "a ABCMeta is no MLP"),
    "a path": (lambda: "model.pkl", UsageError, "a str is no MLP of scikit-learn"),
    "NaN": (broken, NonFiniteError, r"coefs_\[1\] holds 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_fitted_mlp_is_refused(name: str) -> None:
    build, error, words = BAD[name]
    with pytest.raises(error, match=words):
        bl.from_sklearn(build())


@pytest.mark.parametrize("target", ["two classes", "two numbers"])
def test_affine_steps_of_a_pipeline_join_the_first_layer(target: str) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    decomposition = pytest.importorskip("sklearn.decomposition")
    kind = networks().MLPRegressor if "number" in target else networks().MLPClassifier
    steps = (preprocessing.StandardScaler(), decomposition.PCA(3), kind((5,), max_iter=3))
    if "number" in target:
        steps = (*steps[:2], kind(hidden_layer_sizes=(5,), max_iter=3))
    pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(*steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(3 * X + 1, TARGETS[target])
    model = bl.from_sklearn(pipeline)
    assert model.network[0].sizes.d_in == COLUMNS
    y = model.network[0].weights(torch.float64)(torch.tensor(X))
    expected = pipeline.predict_proba(X) if "classes" in target else pipeline.predict(X)
    np.testing.assert_allclose(y.softmax(-1) if "classes" in target else y, expected, atol=1e-9)
    assert model.load_report is not None
    assert "the Pipeline's own outputs" in model.load_report.worst.source


@pytest.mark.parametrize("scale", [1, 1e3, 1e5])
def test_a_step_that_is_not_affine_is_refused(scale: float) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    scaler = preprocessing.MinMaxScaler(clip=True)
    pipeline = pytest.importorskip("sklearn.pipeline").make_pipeline(
        scaler, networks().MLPRegressor(max_iter=2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.fit(scale * X, X[:, 0])
    with pytest.raises(UsageError, match=r"step MinMaxScaler .* is not affine.*pipeline\[-1\]"):
        bl.from_sklearn(pipeline)


def test_steps_that_give_tables_are_read_and_those_that_fail_are_refused() -> None:
    pytest.importorskip("pandas")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    make = pytest.importorskip("sklearn.pipeline").make_pipeline
    steps = preprocessing.StandardScaler(), preprocessing.PowerTransformer(method="box-cox")
    pipelines = [make(step, networks().MLPRegressor(max_iter=2)) for step in steps]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = pipelines[0].set_output(transform="pandas").fit(X, X[:, 0])
        pipelines[1].fit(np.exp(X), X[:, 0])
    assert bl.from_sklearn(tables).network[0].sizes.d_in == COLUMNS
    with pytest.raises(UsageError, match=r"step PowerTransformer .*pipeline\[-1\]"):
        bl.from_sklearn(pipelines[1])


class Envoy:
    """A wrapper that is no module, as that of nnsight."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module


def test_a_module_is_read_out_of_a_wrapper() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert [*bl.from_module(Envoy(module)).layers] == ["0"]


def test_a_llama_without_an_activation_is_exact() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "linear"}
    model = bl.from_module(
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **counts))
    )
    assert [*model.layers] == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert all(view.exact for view in model.layers.values())


def test_what_holds_numbers_says_where() -> None:
    module = bl.nn.BilinearClassifier(6, 4, 3)
    model, f = bl.from_module(module), module.quadratic_map()
    null = bl.rotation_null(f.detach(), None, num_samples=1)
    one = next(iter(model.layers.values()))
    for result in (model, one, bl.hosvd(f), bl.cp_decompose(f, 2), null):
        assert result.device == torch.device("cpu")
