"""Guards against files of another function than the module that was saved has."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import UsageError
from contract.table import cell

MODULES: dict[str, Callable[[], nn.Module]] = {
    "classifier": lambda: bl.nn.BilinearClassifier(6, 8, 3, n_layers=2, residual=True),
    "layer": lambda: bl.nn.BilinearLayer(6, 8, gate="relu"),
    "MLP": lambda: bl.nn.BilinearMLP(6, 8, bias=True),
    "transformer": lambda: transformer(),
    "SAE": lambda: bl.nn.TopKSAE(6, 12, 3),
    "thresholds": lambda: bl.nn.ThresholdSAE(6, 12, d_out=5, skip=True),
}


def transformer() -> bl.nn.BilinearTransformer:
    return bl.nn.BilinearTransformer(11, 8, 12, n_layer=2, n_head=2, n_ctx=8)


def flip_answers(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, __, made: made.flip(-1) + 1)


def flip_first_part(module: nn.Module) -> None:
    part = next(one for one in module.modules() if not [*one.children()] and one is not module)
    part.register_forward_hook(lambda _, __, made: -3 * made)


def own_forward(module: nn.Module) -> None:
    before = module.forward
    module.forward = lambda x: 2 * before(x)


def scaled_forward(self: nn.Linear, x: Tensor) -> Tensor:
    return 3 * nn.functional.linear(x, self.weight, self.bias)


def subclassed_part(module: nn.Module) -> None:
    kind = type("Scaled", (nn.Linear,), {"forward": scaled_forward})
    next(one for one in module.modules() if isinstance(one, nn.Linear)).__class__ = kind


ALTERED = [flip_answers, flip_first_part, own_forward, subclassed_part]


@cell("load file", "saved", "own object")
@pytest.mark.parametrize("change", ALTERED)
@pytest.mark.parametrize("kind", MODULES)
def test_what_runs_otherwise_is_not_saved(
    kind: str, change: Callable[[nn.Module], None], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = MODULES[kind]()
    if change in (flip_first_part, subclassed_part) and kind in ("SAE", "thresholds"):
        return  # it has no parts
    bl.save(module, tmp_path / "plain")
    change(module)
    with pytest.raises(UsageError, match="computes something else"):
        bl.save(module, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@cell("load file", "saved", "own object")
@pytest.mark.parametrize("change", ALTERED)
def test_no_llama_is_written_of_what_runs_otherwise(
    change: Callable[[nn.Module], None], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = transformer()
    module.save_huggingface(tmp_path / "plain")
    change(module)
    with pytest.raises(UsageError, match="computes something else"):
        module.save_huggingface(tmp_path / "model")


@cell("load file", "saved", "own object", "other dtype")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MODULES)
def test_a_hook_that_watches_is_no_reason(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, seen = MODULES[kind]().to(dtype), list[Tensor]()
    module.register_forward_hook(lambda _, __, made: seen.append(made))
    module.train()
    bl.save(module, tmp_path / "model")
    assert module.training
    read = bl.load(tmp_path / "model").module
    assert read is not None
    for name, tensor in module.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor)
