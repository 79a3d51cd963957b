"""Guards against a layer that does not say what comes into it."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import UsageError
from contract.table import cell


class Patches(nn.Module):
    """An MLP of the places that a convolution made ready, as vision models have it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.make = how, nn.Conv2d(2, 4, 3, stride=3)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.make(x)
        if self.how == "transposed":
            made = made.flatten(2).transpose(1, 2)
        elif self.how == "permuted":
            made = made.permute(0, 2, 3, 1)
        return self.down(torch.relu(self.up(made)))


@pytest.mark.parametrize("how", ["transposed", "permuted"])
@cell("load module", "own object")
def test_a_layer_behind_a_convolution_names_it(how: str) -> None:
    """It said nothing, as if it read the image itself."""
    module = Patches(how).double()
    (view,) = bl.from_module(module, torch.randn(2, 2, 6, 6).double()).layers.values()
    assert view.about_input.startswith("what make (Conv2d) gives, its weights included, behind ")


@cell("load module", "own object")
def test_a_layer_of_the_input_itself_needs_no_words() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    (view,) = bl.from_module(module).layers.values()
    assert (view.reads, view.about_input) == ("inputs", "")


class OwnNorm(nn.Module):
    """A norm that is written out, as many models have their own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Behind(nn.Module):
    """An MLP of what a function or a module of one's own makes of the input."""

    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.made = made
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.down(torch.relu(self.up(self.made(x))))
        return answer


MADE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "norm of one's own": (OwnNorm(), "what mul gives"),
    "function": (
        lambda x: functional.layer_norm(x, (4,)) * 100,
        "what layer_norm gives, behind mul",
    ),
    "reshaped": (lambda x: x.softmax(-1).flatten(1), "what softmax gives"),
    "curve": (torch.sin, "what sin gives"),
    "square": (lambda x: x * x, "what mul gives"),
    "torch's norm": (nn.LayerNorm(4), "what made (LayerNorm) gives, its weights included"),
    "shape alone": (lambda x: x.flatten(1).unsqueeze(1).squeeze(1), ""),
    "nothing": (nn.Identity(), ""),
}


@pytest.mark.parametrize("what", MADE)
@cell("load module", "other function")
def test_a_layer_says_what_comes_in_whatever_made_it(what: str) -> None:
    """Only a norm of torch was said: behind any other one a layer seemed to read the input."""
    made, words = MADE[what]
    (view,) = bl.from_module(Behind(made).double()).layers.values()
    assert view.about_input == words


@pytest.mark.parametrize("verb", [bl.certify_model, partial(bl.attack_model, data=None, target=1)])
@cell("certify", "other function")
@cell("attack", "other function")
def test_the_way_on_from_a_refusal_can_be_typed(verb: Callable[[object], object]) -> None:
    """`bilens decompose the Pipeline` was no command."""
    x = np.random.default_rng(0).normal(size=(60, 4))
    mlp = MLPClassifier((5,), max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make_pipeline(StandardScaler(), mlp).fit(x, x[:, 0] > 0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    for given, way in ((pipeline, "bl.from_sklearn(...)"), (module, "bl.from_module(...)")):
        with pytest.raises(UsageError, match="runs a whole model") as refused:
            verb(given)
        assert f"with {way}.layers[" in str(refused.value)
