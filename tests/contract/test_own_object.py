"""Guards against a claim about a copy: what is read is the module that was given, as it runs."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import bilens as bl
from bilens.base.errors import BilensError, NumericalError, UsageError
from contract.drawn import drawn
from contract.table import cell

# of torch, about functions that it will take away
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
WIDTH, HIDDEN, OUT = 4, 6, 3
SCALES = (0.1, 1.0, 5.0, 20.0)
HEADS = {"softmax": torch.softmax, "log_softmax": torch.log_softmax}


def inputs(width: int = WIDTH) -> Tensor:
    """Random rows at several scales, and zeros."""
    rows = torch.randn(40, width, generator=torch.Generator().manual_seed(7))
    return torch.cat([rows * scale for scale in SCALES] + [torch.zeros(1, width)])


def run(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module as its owner does, in evaluation."""
    training = [part.training for part in module.modules()]
    with torch.no_grad():
        y = module.eval()(x)
    for part, flag in zip(module.modules(), training, strict=True):
        part.training = flag
    return y.double()


def read(model: Any, x: Tensor) -> Tensor:
    """Run the layers that were read one behind the other, by hand."""
    assert model.network, "not read as a whole"
    y = x.double()
    for view in model.network:
        y = view.weights(torch.float64)(y)
    head = model.load_report.head
    return y if head is None else HEADS[head.lower().replace("logs", "log_s")](y, -1)


def assert_read_or_refused(module: nn.Module, width: int = WIDTH) -> bool:
    """What is read is the module; tell whether it was read."""
    try:
        model = bl.from_module(module)
    except BilensError:
        return False
    if not model.network:
        return False
    x = inputs(width)
    expected = run(module, x)
    torch.testing.assert_close(read(model, x), expected, rtol=1e-4, atol=1e-4)
    return True


def mlp(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN), *between, nn.Linear(HIDDEN, OUT))


class Dropped(nn.Module):
    """A statement in place whose result nobody uses."""

    def __init__(self, statement: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, OUT)
        self.statement = statement

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        self.statement(hidden)
        y: Tensor = self.fc2(hidden)
        return y


IN_PLACE: dict[str, Callable[[Tensor], Any]] = {
    "F.relu": lambda t: functional.relu(t, inplace=True),
    "F.relu by place": lambda t: functional.relu(t, True),
    "relu_": lambda t: t.relu_(),
    "torch.relu_": torch.relu_,
    "tanh_": lambda t: t.tanh_(),
    "silu": lambda t: functional.silu(t, inplace=True),
    "module": nn.ReLU(inplace=True),
    "twice": lambda t: (t.mul_(2), t.relu_()),
    "of a module of its own": type(
        "Rectify", (nn.Module,), {"forward": lambda _, t: t.clamp_(min=0)}
    )(),
}
CHANGED: dict[str, Callable[[Tensor], Any]] = {
    "mul_": lambda t: t.mul_(torch.relu(t)),
    "add_": lambda t: t.add_(torch.relu(t)),
    "of a view": lambda t: t.view(-1, HIDDEN).relu_(),
    "of a part": lambda t: t[..., :3].relu_(),
    "of a half": lambda t: t.chunk(2, dim=-1)[0].relu_(),
    "out": lambda t: torch.relu(t * 1, out=t) if False else torch.clamp(t, min=0, out=t),
    "copy_": lambda t: t.copy_(torch.relu(t)),
}


@cell("load module", "own object", "same function")
@pytest.mark.parametrize("name", IN_PLACE)
def test_a_statement_in_place_is_read(name: str) -> None:
    assert assert_read_or_refused(Dropped(IN_PLACE[name]))


@cell("load module", "own object")
@pytest.mark.parametrize("name", CHANGED)
def test_a_statement_in_place_is_read_or_refused(name: str) -> None:
    assert_read_or_refused(Dropped(CHANGED[name]))


class UsedBefore(nn.Module):
    """What is changed in place is used again afterwards, and so is a view of it."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        other = hidden.view(-1, HIDDEN) if self.view else hidden
        y: Tensor = self.fc2(hidden.relu_())
        return y + other


@cell("load module", "own object")
@pytest.mark.parametrize("view", [False, True])
def test_what_is_changed_in_place_is_not_used_as_it_was(view: bool) -> None:
    assert_read_or_refused(UsedBefore(view))


# ---- hooks, and other ways of being called


def standardised(module: nn.Module) -> nn.Module:
    module.register_forward_pre_hook(lambda _, given: ((given[0] - 3) / 2,))
    return module


def doubled(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda _, __, made: 2 * made)
    return module


def bounded(module: nn.Module) -> nn.Module:
    """Cut off what is half as large as the largest answer: small inputs do not show it."""
    width = next(w.shape[1] for w in module.parameters() if w.dim() == 2 and w.shape[1] > 1)
    x = inputs(width).to(next(module.parameters()).dtype)
    bound = float(run(module, x).abs().max()) / 2
    module.register_forward_hook(lambda _, __, made: made.clamp(-bound, bound))
    return module


def inner(change: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def changed(module: nn.Module) -> nn.Module:
        change(next(module.children()))
        return module

    return changed


def own_forward(module: nn.Module) -> nn.Module:
    before = module.forward
    module.forward = lambda x: before(x) + 1  # type: ignore[method-assign]
    return module


def own_call(module: nn.Module) -> nn.Module:
    kind = type(module)
    module.__class__ = type(
        "Called", (kind,), {"__call__": lambda self, x: nn.Module.__call__(self, x) + 1}
    )
    return module


def compiled_input(module: nn.Module) -> nn.Module:
    """Multiply the input of a linear map inside."""
    [*module.children()][-1].register_forward_pre_hook(lambda _, given: (given[0] * 2,))
    return module


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pre-hook": standardised,
    "hook": doubled,
    "hook far out": bounded,
    "pre-hook inside": inner(standardised),
    "hook inside": inner(doubled),
    "pre-hook behind": compiled_input,
    "forward of the instance": own_forward,
    "forward of an instance inside": inner(own_forward),
    "call": own_call,
    "call inside": inner(own_call),
}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "of torch": lambda: mlp(nn.ReLU()),
    "classifier": lambda: bl.nn.BilinearClassifier(WIDTH, HIDDEN, OUT, bias=True),
    "deep classifier": lambda: bl.nn.BilinearClassifier(WIDTH, HIDDEN, OUT, 2, residual=True),
    "gated classifier": lambda: bl.nn.BilinearClassifier(WIDTH, HIDDEN, OUT, gate="relu"),
    "layer": lambda: bl.nn.BilinearLayer(WIDTH, HIDDEN),
    "bilinear MLP": lambda: bl.nn.BilinearMLP(WIDTH, HIDDEN, OUT),
}


@cell("load module", "own object", "other function")
@cell("fit", "own object", "other function")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODULES)
def test_what_changes_the_answer_of_a_module_is_not_passed_over(name: str, way: str) -> None:
    module = MODULES[name]()
    x = inputs()
    before = run(module, x)
    changed = WAYS[way](module)
    assert not torch.allclose(before, run(changed, x))
    if not assert_read_or_refused(changed) or name != "of torch":
        with pytest.raises(BilensError):
            bl.quadratic_fit(changed, samples=100)


@cell("load module", "own object", "other function")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_difference_is_one(dtype: torch.dtype) -> None:
    module = mlp(nn.ReLU()).to(dtype)
    assert bl.from_module(module).load_report.verified
    module.register_forward_hook(lambda _, __, made: 1.0001 * made)
    with pytest.raises(BilensError, match="differs by"):
        bl.from_module(module)


@cell("load module", "own object")
@pytest.mark.parametrize("head", [nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_what_stands_behind_the_last_layer_is_run_too(head: nn.Module) -> None:
    assert assert_read_or_refused(nn.Sequential(mlp(nn.Tanh()), head))


@cell("audit", "own object")
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("way", ["pre-hook", "hook inside"])
def test_an_audit_passes_no_module_that_computes_something_else(name: str, way: str) -> None:
    module = WAYS[way](MODULES[name]())
    try:
        report = bl.audit(module, null_samples=39 if name == "classifier" else 3)
    except BilensError:
        return
    assert report.passed is False


@cell("load module", "own object", "same function")
@pytest.mark.parametrize("name", MODULES)
def test_hooks_that_look_on_are_no_reason_for_refusal(name: str) -> None:
    module, seen = MODULES[name](), list[Tensor]()
    for part in module.modules():
        part.register_forward_hook(lambda _, __, made: seen.append(made.detach().cpu().numpy()))
        part.register_forward_pre_hook(lambda _, given: seen.append(given[0].numpy(force=True)))
    assert bl.from_module(module).network
    assert bl.quadratic_fit(module, samples=100)


@cell("convert", "own object", "other function")
@pytest.mark.parametrize("name", ["of torch", "gated classifier"])
@pytest.mark.parametrize("way", ["pre-hook", "hook inside"])
def test_a_module_that_computes_something_else_is_not_converted(
    name: str, way: str, tmp_path: Path
) -> None:
    with pytest.raises(BilensError, match="hooks"):
        bl.convert_network(WAYS[way](MODULES[name]()), torch.randn(300, WIDTH), tmp_path)


# ---- weights that are computed


def normed(kind: str) -> nn.Module:
    module = mlp(nn.ReLU())
    if kind == "weight_norm":
        weight_norm(module[0])
    elif kind == "spectral_norm":
        spectral_norm(module[0])
    elif kind == "prune":
        prune.l1_unstructured(module[0], "weight", amount=0.3)
    elif kind == "parametrized weight_norm":
        parametrizations.weight_norm(module[0])
    else:
        parametrizations.orthogonal(module[0])
    return module


KINDS = ("weight_norm", "spectral_norm", "prune", "parametrized weight_norm", "orthogonal")


@cell("load module", "own object", "saved")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_computed_are_those_of_the_moment(kind: str, dtype: torch.dtype) -> None:
    with torch.no_grad():
        module, other = normed(kind).to(dtype), normed(kind).to(dtype)
        for parameter in other.parameters():
            parameter.mul_(2).add_(0.1)
    state = copy.deepcopy(other.state_dict())
    module.load_state_dict(state)
    x = inputs().to(dtype)
    model = bl.from_module(module)
    torch.testing.assert_close(read(model, x), run(module, x), rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # of the moment: views are read when they are asked
        for parameter in module.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(read(model, x), run(module, x), rtol=1e-4, atol=1e-4)


# ---- branches, randomness, state


class OfType(nn.Module):
    """Something else for tensors than for what a trace passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, OUT)

    def forward(self, x: Any) -> Tensor:
        hidden = self.fc1(x)
        hidden = torch.tanh(hidden) if isinstance(hidden, Tensor) else torch.relu(hidden)
        y: Tensor = self.fc2(hidden)
        return y


class Threshold(nn.Module):
    """A ReLU but for a small gap."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.threshold(x, 0.05, 0.0)


class Noisy(nn.Module):
    """Dropout that is never off."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5, training=True)


class Moded(nn.Module):
    """Another function in training than in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() if self.training else x.relu()


@cell("load module", "own object", "other function")
@pytest.mark.parametrize("kind", [OfType, lambda: mlp(Threshold()), lambda: mlp(Noisy())])
def test_what_the_trace_does_not_see_is_refused(kind: Callable[[], nn.Module]) -> None:
    with pytest.raises(BilensError):
        bl.from_module(kind())


class Around(nn.Module):
    """A network inside a larger one, which the trace of the larger one goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.mlp(torch.cos(x)))


@cell("load module", "own object", "other function")
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("with_example", [False, True])
def test_hooks_of_a_part_around_a_layer_are_seen(before: bool, with_example: bool) -> None:
    torch.manual_seed(0)
    module, x = Around(), torch.randn(20, 4)
    (name,) = bl.from_module(module, x).layers
    if before:
        module.mlp.register_forward_pre_hook(lambda _, given: (given[0] * 2 + 1,))
    else:
        module.mlp.register_forward_hook(lambda _, __, made: made * 3)
    with pytest.raises(UsageError, match=f"{name}: what was read differs .*mlp has forward hooks"):
        bl.from_module(module, x if with_example else None)


@cell("load module", "own object", "other function")
@pytest.mark.parametrize("form", ["tensor", "tuple", "mapping"])
def test_an_example_in_any_form_is_what_a_network_is_compared_on(form: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def limit(_: nn.Module, args: Any, kwargs: Any) -> Any:
        short = tuple(one.clamp(-1000, 1000) for one in args)
        return short, {name: one.clamp(-1000, 1000) for name, one in kwargs.items()}

    module.register_forward_pre_hook(limit, with_kwargs=True)
    assert [*bl.from_module(module).layers]  # nothing shows it on ordinary inputs
    x = torch.randn(20, 4) * 5000
    example: Any = {"tensor": x, "tuple": (x,), "mapping": {"input": x}}[form]
    with pytest.raises(UsageError, match="differs"):
        bl.from_module(module, example)


@cell("load module", "own object")
def test_each_parameter_of_a_long_network_is_read_by_one_layer() -> None:
    between = [part for _ in range(12) for part in (nn.Linear(4, 4), nn.ReLU())]
    module = nn.Sequential(*between, nn.Linear(4, 2))  # 0 to 24: "2" begins "20", "22", "24"
    layers = bl.from_module(module).layers.values()
    counted = [size for one in layers for size in one.tensors.items()]
    assert sorted(counted) == sorted((n, p.numel()) for n, p in module.named_parameters())


@cell("compare", "other function")
def test_coordinates_of_a_layer_are_made_by_all_layers_before_it() -> None:
    torch.manual_seed(0)
    between = [part for _ in range(4) for part in (nn.Linear(4, 4), nn.ReLU())]
    module = nn.Sequential(*between, nn.Linear(4, 2))
    before = [one.basis for one in bl.from_module(module).layers.values()]
    with torch.no_grad():
        module[0].weight.mul_(1.5)
    after = [one.basis for one in bl.from_module(module).layers.values()]
    assert before[0] == after[0] == "input"
    assert not {*before[1:]} & {*after[1:]}


@cell("attack", "own object", "other function")
@cell("certify", "own object", "other function")
def test_hooks_of_a_loaded_model_are_seen_by_every_job(tmp_path: Path) -> None:
    bl.save(bl.nn.BilinearClassifier(5, 6, 3), tmp_path / "model")
    model = bl.load(tmp_path / "model")
    assert model.module is not None
    model.module.register_forward_hook(lambda _, __, made: made.flip(1))
    data = torch.rand(60, 5), torch.arange(60) % 3
    for job in (bl.attack_model, bl.certify_model, bl.audit):
        with pytest.raises(NumericalError, match="forward hooks"):
            job(model, data)


@cell("load module", "own object")
def test_a_module_in_training_is_read_in_evaluation_and_left_as_it_was() -> None:
    module = mlp(Moded(), nn.Dropout(0.4)).train()
    module[1].eval()
    flags = [part.training for part in module.modules()]
    assert assert_read_or_refused(module)
    assert [part.training for part in module.modules()] == flags


class Counting(nn.Module):
    """Counts how often it was called, in an attribute and in a buffer, and keeps the last value."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last = 0, None
        self.register_buffer("count", torch.zeros(()))
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        y: Tensor = self.fc2(torch.relu(self.fc1(x)))
        self.last = y
        return y


@cell("load module", "own object")
def test_a_module_is_left_as_it_was() -> None:
    module = Counting().train()
    before = copy.deepcopy(module.state_dict())
    rng = torch.get_rng_state()
    for x in (None, torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(1))):
        bl.from_module(module, x)
    assert module.training
    assert (module.calls, module.last) == (0, None)
    assert torch.equal(torch.get_rng_state(), rng)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(not part._forward_hooks for part in module.modules())
    assert all(not part._forward_pre_hooks for part in module.modules())


class Failing(nn.Module):
    """Does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = mlp(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inside(x)
        if isinstance(y, Tensor):
            raise RuntimeError("not today")
        return y


@cell("load module", "own object")
def test_what_cannot_be_run_is_unverified_and_left_as_it_was() -> None:
    module = Failing().train()
    model = bl.from_module(module)
    assert not model.load_report.verified
    assert any("not today" in text for text in model.load_report.unverified)
    assert all(part.training for part in module.modules())
    assert all(not part._forward_hooks for part in module.modules())
    report = bl.audit(module, null_samples=3)
    assert report.passed is not True
    assert report.to_dict()["coverage"]["checked_against"] == ""


# ---- activations that an example does not tell


class Untraceable(nn.Module):
    """Two linear maps and a function; a branch on values keeps a trace out."""

    def __init__(self, function: Callable[[Tensor], Tensor], gated: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, OUT)
        self.up = nn.Linear(WIDTH, HIDDEN) if gated else None
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        if bool(torch.isnan(x).any()):
            return x
        hidden = self.function(self.fc1(x))
        y: Tensor = self.fc2(hidden if self.up is None else hidden * self.up(x))
        return y


NEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU6": nn.ReLU6(),
    "relu6": functional.relu6,
    "hardtanh": lambda t: functional.hardtanh(t, -9.0, 9.0),
    "clamp": lambda t: t.clamp(0, 30),
    "clamped GELU": lambda t: functional.gelu(t.clamp(-50, 50)),
    "late kink": lambda t: torch.relu(t) + torch.relu(t - 500),
}


@cell("load module", "own object", "other function")
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", NEAR)
def test_an_activation_is_told_only_where_it_is_known_far_out(name: str, gated: bool) -> None:
    module, example = Untraceable(NEAR[name], gated), torch.randn(8, WIDTH)
    with pytest.raises(BilensError):
        bl.from_module(module, example)


@cell("load module", "own object", "same function")
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("function", [torch.relu, functional.gelu, nn.SiLU(), torch.tanh])
def test_a_known_activation_is_still_found_by_an_example(function: Any, gated: bool) -> None:
    module = Untraceable(function, gated)
    (view,) = bl.from_module(module, torch.randn(8, WIDTH)).layers.values()
    x = inputs()
    torch.testing.assert_close(
        view.weights(torch.float64)(x.double()), run(module, x), rtol=1e-4, atol=1e-4
    )


# ---- the same function, written or answered otherwise


class Answering(nn.Module):
    """A network whose answer is wrapped, alone or with something beside it."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inside, self.answer = mlp(nn.ReLU()), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.inside(x), x)


@cell("load module", "own object")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_compiled_script_is_refused() -> None:
    with pytest.raises(BilensError, match="TorchScript"):
        bl.from_module(torch.jit.script(mlp(nn.ReLU())))


class Named(nn.Module):
    """Tokens, an embedding, a network."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inside = nn.Embedding(9, WIDTH), mlp(nn.ReLU())

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.inside(self.table(ids))
        return y


OTHERWISE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "tuple": (lambda: Answering(lambda y, _: (y,)), "inside"),
    "mapping": (lambda: Answering(lambda y, _: {"y": y}), "inside"),
    "several": (lambda: Answering(lambda y, x: (y, x)), "inside"),
    "parallel": (lambda: nn.DataParallel(mlp(nn.ReLU())), "module"),
    "compiled": (lambda: torch.compile(mlp(nn.ReLU()), backend="eager"), "_orig_mod"),
}


@cell("load module", "own object", "same function")
@pytest.mark.parametrize("name", OTHERWISE)
def test_a_network_is_read_inside_of_what_holds_it(name: str) -> None:
    build, path = OTHERWISE[name]
    module = build()
    model = bl.from_module(module)
    assert model.load_report.verified
    (view,) = model.layers.values()
    x = inputs()
    inside = run(module.get_submodule(path), x)
    torch.testing.assert_close(
        view.weights(torch.float64)(x.double()), inside, rtol=1e-4, atol=1e-4
    )


@cell("load module", "own object")
def test_what_a_module_reads_is_told_by_an_example() -> None:
    module = Named()
    assert not bl.from_module(module).load_report.verified
    assert bl.from_module(module, torch.arange(9)[None]).load_report.verified
    standardised(module.inside)
    with pytest.raises(BilensError, match="inside has forward hooks"):
        bl.from_module(module, torch.arange(9)[None])


@cell("load module", "permuted units", "scaled branches", "saved", "other dtype")
@cell("fit", "permuted units", "other dtype")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_same_network_written_otherwise_reads_the_same(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    module = mlp(nn.ReLU()).to(dtype).double()  # numbers that each dtype holds
    x, same = inputs().double(), copy.deepcopy(module)
    order = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        same[0].weight.copy_(4 * module[0].weight[order])
        same[0].bias.copy_(4 * module[0].bias[order])
        same[2].weight.copy_(module[2].weight[:, order] / 4)
    torch.save(same.to(dtype).state_dict(), tmp_path / "saved.pt")
    again = mlp(nn.ReLU()).to(dtype)
    again.load_state_dict(torch.load(tmp_path / "saved.pt"))
    expected = run(module, x)
    fits = []
    for one in (module, again):
        model = bl.from_module(one)
        assert model.load_report.verified
        torch.testing.assert_close(read(model, x), expected)
        fits.append(bl.quadratic_fit(one, samples=100).quadratic_map(x))
    torch.testing.assert_close(fits[0], fits[1])


@cell("load module", "threads")
def test_threads_that_read_one_module_leave_it_as_it_was() -> None:
    module = mlp(Moded(), nn.Dropout(0.4)).train()
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(read_as_a_whole(module))) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [True] * 4
    assert all(part.training for part in module.modules())
    assert all(not part._forward_hooks for part in module.modules())


def read_as_a_whole(module: nn.Module) -> bool:
    """Tell whether a module is read as a whole and verified."""
    model = bl.from_module(module)
    return bool(model.network) and model.load_report.verified


# ---- drawn networks


BETWEEN: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "relu in place": lambda _: nn.ReLU(inplace=True),
    "gelu": lambda _: nn.GELU(),
    "tanh": lambda _: nn.Tanh(),
    "relu6": lambda _: nn.ReLU6(),
    "silu in place": lambda _: nn.SiLU(inplace=True),
    "batch norm": lambda width: nn.Sequential(normalised(width), nn.ReLU()),
    "noise": lambda _: Noisy(),
    "dropout": lambda _: nn.Sequential(nn.Tanh(), nn.Dropout(0.5)),
    "threshold": lambda _: Threshold(),
    "in place, dropped": lambda _: InPlace(),
    "leaky": lambda _: nn.LeakyReLU(0.3),
}
READ = {*BETWEEN} - {"relu6", "noise", "threshold"}


class InPlace(nn.Module):
    """A function in place that returns what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        functional.relu(x, inplace=True)
        return x


def normalised(width: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(width)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    return norm


class Residual(nn.Module):
    """x + inner(x), or the same in place."""

    def __init__(self, inside: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.inside, self.in_place = inside, in_place

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inside(x)
        if self.in_place:
            y += x
            return y
        return x + y


@cell("load module", "own object", "same function", "other function")
@drawn
@given(
    names=st.lists(st.sampled_from([*BETWEEN]), min_size=1, max_size=3),
    widths=st.lists(st.integers(2, 9), min_size=4, max_size=4),
    residual=st.sampled_from(["", "new", "in place"]),
    weights=st.sampled_from(["", *KINDS]),
    hook=st.sampled_from(["", "", "looks on", *WAYS]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1 << 30),
)
def test_any_network_is_read_as_it_runs_or_refused(
    names: list[str],
    widths: list[int],
    residual: str,
    weights: str,
    hook: str,
    dtype: torch.dtype,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    width = widths[0]
    for name, wide in zip(names, widths[1:], strict=False):
        back = width if residual else wide
        inside = nn.Sequential(nn.Linear(width, wide), BETWEEN[name](wide), nn.Linear(wide, back))
        if weights and not parts:
            inside[0] = rewritten(weights, inside[0])
        parts.append(Residual(inside, residual == "in place") if residual else inside)
        width = back
    module = nn.Sequential(*parts).to(dtype)
    if hook == "looks on":
        module.register_forward_hook(lambda *_: None)
    elif hook:
        WAYS[hook](module)
    module.train(bool(seed % 2))
    flags = [part.training for part in module.modules()]
    try:
        model = bl.from_module(module)
    except BilensError:
        assert not {*names} <= READ or hook in WAYS, "an ordinary network was refused"
        return
    finally:
        assert [part.training for part in module.modules()] == flags
    if not model.network:  # layer by layer, the rest left out
        assert not {*names} <= READ or hook in WAYS
        return
    x = inputs(widths[0]).to(dtype)
    expected = run(module, x)
    error = (read(model, x) - expected).abs().max() / expected.abs().max()
    assert error < 1e-4


def rewritten(kind: str, layer: nn.Module) -> nn.Module:
    if kind == "prune":
        return prune.l1_unstructured(layer, "weight", amount=0.3)
    if kind == "orthogonal":
        return parametrizations.orthogonal(layer)
    if kind == "parametrized weight_norm":
        return parametrizations.weight_norm(layer)
    return (weight_norm if kind == "weight_norm" else spectral_norm)(layer)


# ---- what may act where nothing was compared, and what is made of other parameters


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.c = nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(self.a(x) * self.b(x))
        return y


def far_out(x: Tensor, y: Tensor) -> Tensor:
    """Return an answer that is another one where the input is large."""
    return torch.where(x.norm(dim=-1, keepdim=True) > 300, -y, y)


def returning_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, given, made: far_out(given[0], made))


def hook_in_place(module: nn.Module) -> None:
    def change(_: nn.Module, given: Any, made: Tensor) -> None:
        made.copy_(far_out(given[0], made))

    module.register_forward_hook(change)


def hook_before(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _, given: (far_out(given[0], given[0]),))


def own_method(module: nn.Module) -> None:
    before = module.forward
    module.forward = lambda x: far_out(x, before(x))  # type: ignore[method-assign]


@cell("load module", "own object", "other function")
@cell("audit", "own object")
@pytest.mark.parametrize("change", [returning_hook, hook_in_place, hook_before, own_method])
def test_what_may_act_elsewhere_is_not_verified(change: Callable[[nn.Module], None]) -> None:
    module = Product()
    change(module)
    model = bl.from_module(module)
    assert not model.load_report.verified
    assert "inputs other than those compared" in " ".join(model.load_report.lines())
    record = bl.audit(model, null_samples=39).record
    assert record.coverage is not None
    assert record.coverage.checked_against == ""
    (found,) = (one for one in record.verdict if one.rule == "layout")
    assert found.outcome == "warn"


@cell("load module", "own object")
def test_a_hook_that_only_looks_on_leaves_a_module_verified() -> None:
    module, seen = Product(), list[Tensor]()
    module.a.register_forward_hook(lambda _, __, made: seen.append(made))
    hooks = [*module.a._forward_hooks.values()]
    assert bl.from_module(module).load_report.verified
    assert [*module.a._forward_hooks.values()] == hooks
    assert seen


@cell("audit", "same function", "own object")
@pytest.mark.parametrize(
    "make",
    [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm],
)
def test_parameters_behind_a_parametrisation_are_read(
    make: Callable[[nn.Module], nn.Module],
) -> None:
    module = Product()
    make(module.a)
    model = bl.from_module(module)
    record = bl.audit(model, null_samples=39).record
    assert record.coverage is not None
    assert record.coverage.exact == record.coverage.parameters
    assert not model.load_report.left_out


OWN_MODULES: dict[str, Callable[[], Any]] = {
    "classifier": lambda: bl.nn.BilinearClassifier(WIDTH, HIDDEN, OUT),
    "deep classifier": lambda: bl.nn.BilinearClassifier(WIDTH, HIDDEN, OUT, 2),
    "MLP": lambda: bl.nn.BilinearMLP(WIDTH, HIDDEN),
}


@cell("audit", "own object", "other function")
@cell("load module", "own object", "other function")
@pytest.mark.parametrize("change", [returning_hook, hook_in_place, hook_before, own_method])
@pytest.mark.parametrize("name", OWN_MODULES)
def test_what_may_act_elsewhere_is_no_module_of_ours(
    name: str, change: Callable[[nn.Module], None]
) -> None:
    module = OWN_MODULES[name]()
    change(module)
    why = "forward of its own" if change is own_method else "hooks that give another answer"
    with pytest.raises(UsageError, match=f"more than its layers say.*{why}"):
        bl.audit(module, null_samples=39)
    if name != "deep classifier":
        with pytest.raises(BilensError, match=f"{why}|another function"):
            module.quadratic_map()


class LargeAnswers(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        return torch.where(x.norm(dim=-1, keepdim=True) > 1e12, -y, y)


@cell("audit", "own object", "other function")
def test_a_part_with_another_forward_is_named() -> None:
    module = OWN_MODULES["classifier"]()
    head = LargeAnswers(HIDDEN, OUT, bias=False)
    module.head = head
    with pytest.raises(UsageError, match=r"head is a LargeAnswers with a forward of its own"):
        bl.audit(module, null_samples=39)
    parametrizations.weight_norm(plain := OWN_MODULES["classifier"]().embed)
    module = OWN_MODULES["classifier"]()
    module.embed = plain
    bl.audit(module, null_samples=39)


@cell("audit", "own object", "other function")
def test_hooks_of_all_modules_are_seen() -> None:
    module, product = OWN_MODULES["classifier"](), Product()

    def change(part: nn.Module, given: Any, made: Tensor) -> Tensor | None:
        return far_out(given[0], made) if part in (module, product) else None

    handle = nn.modules.module.register_module_forward_hook(change)
    try:
        with pytest.raises(UsageError, match="each module of torch has hooks"):
            bl.audit(module, null_samples=39)
        assert not bl.from_module(product).load_report.verified
    finally:
        handle.remove()
    assert bl.from_module(product).load_report.verified
