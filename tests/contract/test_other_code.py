"""Guards against code that nobody has read and that may act elsewhere than where it was looked at.

Each was seen to pass as exact, or as the same as its baseline: another class without weights, a
setting called p, a hook that did nothing yet, a class of somebody's own that bounds far out.
"""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import BilensError
from bilens.report.sections.difference import alignment_sentences
from bilens.report.text import load_catalogue
from contract.table import cell

FEW = {"null_samples": 3}
BOUND = 1e9  # farther out than any input that is tried


class Plain(nn.Module):
    """Gives what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Far(nn.Module):
    """Gives what it is given, but far out."""

    def __init__(self, p: float = BOUND) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-self.p, self.p)


class Privately(nn.Module):
    def __init__(self, bound: float) -> None:
        super().__init__()
        self._bound = {"of inputs": bound}

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self._bound["of inputs"])


class Called(nn.Module):
    def __init__(self, bound: float) -> None:
        super().__init__()
        self.act = lambda x: x.clamp(max=bound)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act(x)
        return found


class FarDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-BOUND, BOUND)


def around(part: nn.Module) -> nn.Module:
    """A model that is not wholly read, with a part in it."""
    torch.manual_seed(0)
    last = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))
    return nn.Sequential(part, nn.LayerNorm(6), last)


OTHERS: dict[str, tuple[nn.Module, nn.Module]] = {
    "another class": (Far(), Plain()),
    "another class than torch's": (Far(), nn.Identity()),
    "a setting of one's own called p": (Far(), Far(2 * BOUND)),
    "a setting that is not public": (Privately(BOUND), Privately(2 * BOUND)),
    "what a function holds": (Called(BOUND), Called(2 * BOUND)),
    "a class of dropout": (FarDropout(), nn.Dropout()),
}


@cell("compare", "own object", "other function")
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("turned", [False, True])
def test_parts_of_other_code_are_not_told_as_the_same(name: str, turned: bool) -> None:
    model, baseline = map(around, OTHERS[name][:: -1 if turned else 1])
    report = bl.audit(model, baseline=baseline, fail_on=["changed_layers"], **FEW)
    assert report.record.difference.around == "parts"
    assert report.passed is False
    assert {one.rule: one.outcome for one in report.record.verdict}["changed_layers"] == "warn"
    said = "\n".join(alignment_sentences(load_catalogue("en"), report.record.difference))
    assert "Parts of other code" in said
    assert "not shown beyond" in said
    assert "0 (" in said, "it is named"


@cell("compare", "own object", "same function")
@pytest.mark.parametrize("part", [Far, lambda: Privately(2.0), lambda: Called(2.0), nn.Dropout])
def test_parts_of_the_same_code_are_the_same(part: Callable[[], nn.Module]) -> None:
    found = bl.audit(around(part()), baseline=around(part()), fail_on=["changed_layers"], **FEW)
    assert found.record.difference.around == ""
    assert found.passed is not False


@cell("compare", "own object", "same function")
def test_how_much_is_dropped_in_training_is_no_difference() -> None:
    found = bl.audit(around(nn.Dropout(0.1)), baseline=around(nn.Dropout(0.9)), **FEW)
    assert found.record.difference.around == ""


class Holding(nn.Module):
    """Gives what it is given, and holds a setting of any kind."""

    def __init__(self, setting: object) -> None:
        super().__init__()
        self.setting = setting

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(slots=True)
class Slots:
    bound: float


@dataclass
class Tensors:
    bound: Tensor


class Bound:
    def __init__(self, far: float) -> None:
        self.far, self.own = far, self

    def act(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.far)


SETTINGS: dict[str, Callable[[int], object]] = {
    "slots": lambda n: Slots(float(n)),
    "tensors of a record": lambda n: Tensors(torch.arange(n)),
    "a set": lambda n: frozenset([n]),
    "a range": range,
    "a window": lambda n: slice(0, n),
    "a queue": lambda n: deque([n]),
    "a fraction": lambda n: Fraction(1, n),
    "a type": lambda n: (torch.float16, torch.float32, torch.float64)[n - 1],
    "the object of a method": lambda n: Bound(n).act,
    "not a number": lambda n: [math.nan, n],
    "objects in objects": lambda n: {"a": {"b": {"c": {"d": [n]}}}},
}


@cell("compare", "own object", "same function", "other function")
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_every_kind_are_compared(kind: str) -> None:
    made = SETTINGS[kind]
    one, same, other = (around(Holding(made(n))) for n in (2, 2, 3))
    assert bl.audit(one, baseline=same, **FEW).record.difference.around == ""
    assert bl.audit(one, baseline=other, **FEW).record.difference.around == "parts"


@cell("compare", "own object", "same function")
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_is_the_same_as_itself_compiled_or_from_disk(tied: bool, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 50}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, **heads, tie_word_embeddings=tied, max_position_embeddings=64)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    compiled, checkpointed = copy.deepcopy(model), copy.deepcopy(model)
    compiled.compile()
    checkpointed.config.use_cache = False
    others = [model, compiled, checkpointed, LlamaForCausalLM.from_pretrained(tmp_path)]
    pairs = [(one, model) for one in others]
    pairs += [(torch.compile(around(nn.Identity())), around(nn.Identity()))]
    for one, baseline in pairs:
        found = bl.audit(one, baseline=baseline, fail_on=["changed_layers"], **FEW)
        assert found.record.difference.around == ""
        assert found.passed is not False


class Distance(nn.Module):
    """The distance from 0, of which p is the norm: of two numbers one of which is 0, any."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.norm, self.mlp = nn.PairwiseDistance(p, eps=0.0), around(Plain())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.mlp(x)
        zero = torch.zeros_like(x[:, :1])
        return found * (1 + self.norm(x[:, :1], zero)[:, None])


@cell("compare", "own object", "other function")
def test_a_norm_called_p_is_a_setting() -> None:
    found = bl.audit(Distance(1.0), baseline=Distance(3.0), **FEW)
    assert found.record.difference.around == "parts"


# ---- hooks that did nothing yet


def far_hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    return (given[0].clamp(max=1.0),) if float(given[0].abs().max()) > BOUND else None


def classifier() -> Any:
    torch.manual_seed(0)
    return bl.nn.BilinearClassifier(6, 5, 3)


HOOKED: dict[str, Callable[[], Any]] = {
    "whole": classifier,
    "not wholly read": lambda: around(Plain()),
    "of torch": lambda: nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3)),
}


@cell("audit", "own object", "other function")
@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_hook_that_did_not_act_is_said_on_page_one(name: str, language: str) -> None:
    module = HOOKED[name]()
    before = bl.audit(module, null_samples=39)
    part = next(path for path, one in module.named_modules() if isinstance(one, nn.Linear))
    module.get_submodule(part).register_forward_pre_hook(far_hook)
    found = bl.audit(module, null_samples=39)
    assert found.passed == before.passed, "it is no reason"
    said = load_catalogue(language)("decision.hooks", names=part)
    assert said in found.to_html(lang=language)
    assert said not in before.to_html(lang=language)


@cell("load module", "own object", "other function")
def test_a_hook_that_did_not_act_is_in_the_report_of_loading() -> None:
    module = HOOKED["of torch"]()
    assert not any("hook" in line for line in bl.from_module(module).load_report.lines())
    module[0].register_forward_pre_hook(far_hook)
    report = bl.from_module(module).load_report
    assert report.verified
    assert any("Hooks at 0: what they do" in line for line in report.lines())


@cell("compare", "own object", "other function")
@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("turned", [False, True])
def test_a_hook_of_one_of_two_models_is_said(name: str, turned: bool) -> None:
    both = [HOOKED[name](), HOOKED[name]()]
    both[0].register_forward_pre_hook(far_hook)
    model, baseline = both[::-1] if turned else both
    record = bl.audit(model, baseline=baseline, null_samples=39).record
    kinds = [one.kind for one in record.difference.aligned]
    assert kinds == ["baseline_hooks" if turned else "hooks"]


# ---- classes of somebody's own that are layers of ours


class FarForward(bl.nn.BilinearLayer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-BOUND, BOUND))


class FarBranch(bl.nn.BilinearLayer):
    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return FarLinear.of(found) if name == "left" else found


class FarLinear(nn.Linear):
    @staticmethod
    def of(linear: Any) -> nn.Linear:
        found = FarLinear(linear.in_features, linear.out_features, bias=False)
        found.weight = linear.weight
        return found

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-BOUND, BOUND))


class FarMLP(bl.nn.BilinearMLP):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-BOUND, BOUND))


class FarClassifier(bl.nn.BilinearClassifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-BOUND, BOUND))


def far_head() -> Any:
    module = classifier()
    module.head = FarLinear.of(module.head)
    return module


class Called2(bl.nn.BilinearClassifier):
    def _call_impl(self, *given: Any) -> Any:
        return super()._call_impl(given[0].clamp(-BOUND, BOUND))


class Wrapping(nn.ModuleList):
    def __iter__(self) -> Iterator[nn.Module]:
        for layer in super().__iter__():
            yield nn.Sequential(nn.Hardtanh(-BOUND, BOUND), layer)


def wrapping_list() -> Any:
    module = classifier()
    module.layers = Wrapping([*module.layers])
    return module


OWN: dict[str, Callable[[], Any]] = {
    "list": wrapping_list,
    "forward": lambda: FarForward(6, 5),
    "attribute": lambda: FarBranch(6, 5),
    "MLP": lambda: FarMLP(6, 5),
    "classifier": lambda: FarClassifier(6, 5, 3),
    "part": far_head,
    "call": lambda: Called2(6, 5, 3),
}


@cell("attribute", "own object", "other function")
@cell("audit", "own object", "other function")
@pytest.mark.parametrize("name", OWN)
def test_a_class_of_ones_own_is_not_exact_by_its_base(name: str) -> None:
    module = OWN[name]()
    with pytest.raises(BilensError):
        module.quadratic_map()
    try:
        report = bl.audit(module, null_samples=39)
    except BilensError:
        return
    assert report.record.coverage.checked_against == ""


class Named(bl.nn.BilinearClassifier):
    """Nothing that takes part in the forward pass is another."""

    def __init__(self) -> None:
        super().__init__(6, 5, 3)

    def describe(self) -> str:
        return "mine"


class Moved(Named):
    """Seen: it "does more than its layers say", with a `to` of its own."""

    def to(self, *given: Any, **named: Any) -> Any:
        return super().to(*given, **named)

    def train(self, mode: bool = True) -> Any:
        return super().train(mode)

    def parameters(self, recurse: bool = True) -> Any:
        return super().parameters(recurse)

    def state_dict(self, *given: Any, **named: Any) -> Any:
        return super().state_dict(*given, **named)


@cell("attribute", "own object", "same function")
@pytest.mark.parametrize("kind", [Named, Moved])
def test_a_class_that_adds_nothing_to_the_forward_pass_has_its_map(kind: Any) -> None:
    module = kind()
    x = torch.randn(8, 6)
    torch.testing.assert_close(module.quadratic_map()(x), module(x), rtol=1e-4, atol=1e-5)
    assert bl.audit(module, null_samples=39).record.exactness
