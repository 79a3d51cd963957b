"""Guards against a layer that does not say what comes into it."""

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
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
