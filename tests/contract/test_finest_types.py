"""Guards against errors that a type would not make, passed as its rounding.

Damage that it notices: what float64 may be off taken to be what float32 may be.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import bilens as bl
from bilens.base.errors import BilensError
from contract.table import cell

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MORE = 1000  # how many units of the type an answer is off


def plain() -> tuple[nn.Module, nn.Module]:
    """A network, and what of it answers."""
    found = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    return found, found


def inside() -> tuple[nn.Module, nn.Module]:
    """An MLP in something else, and the MLP."""
    mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    return nn.Sequential(nn.LayerNorm(8), mlp, nn.LayerNorm(8)), mlp


def own() -> tuple[nn.Module, nn.Module]:
    found = bl.nn.BilinearClassifier(8, 12, 4, bias=True)
    return found, found


def language() -> tuple[nn.Module, nn.Module]:
    found = bl.nn.BilinearTransformer(11, 8, 12, n_layer=2, n_head=2, n_ctx=8)
    return found, found.blocks[1].mlp


KINDS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    one.__name__: one for one in (plain, inside, own, language)
}


def compared_layers(module: nn.Module) -> int:
    """How many layers are read; one that is not what the module computes is refused."""
    try:
        return len(bl.from_module(module).layers)
    except BilensError:
        return 0


@cell("load module", "other dtype", "own object", "other function")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_type_does_not_round_is_noticed(kind: str, dtype: torch.dtype) -> None:
    """An answer that is off by 1e-7 is rounding in float32, and is none in float64."""
    torch.manual_seed(0)
    module, part = KINDS[kind]()
    module.to(dtype).eval()
    layers = compared_layers(module)
    assert layers
    off = 1 + MORE * torch.finfo(dtype).eps
    part.register_forward_hook(lambda _, __, made: off * made)
    assert compared_layers(module) == layers - 1
