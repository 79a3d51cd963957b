"""What a layer reads and gives is changed while its model runs: against the same by hand.

Broken once: with a gated layer whose second branch keeps its input, with steering done twice, with
a control of another length, with positions counted from the wrong end, with a hook left behind.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.api.running_model import random_basis
from bilens.base.errors import NonFiniteError, ShapeError, UsageError


class Gated(nn.Module):
    """A gated MLP whose branches run in the order that is not that of their names."""

    def __init__(self, width: int = 6, hidden: int = 10) -> None:
        super().__init__()
        self.b_gate = nn.Linear(width, hidden)
        self.a_up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.b_gate(x)) * self.a_up(x))


class Blocks(nn.Module):
    """Two MLPs on a residual stream; the first block is parallel to another map of its input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.beside, self.first, self.norm = nn.Linear(6, 6), Gated(), nn.LayerNorm(6)
        self.second = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.beside(x) + self.first(x)
        return x + self.second(self.norm(x))

    def changed(self, x: Tensor, layer: str, at: str, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what the model gives with one end of a layer changed."""

        def run(name: str, part: nn.Module, given: Tensor) -> Tensor:
            made: Tensor = part(edit(given) if (name, at) == (layer, "input") else given)
            return edit(made) if (name, at) == (layer, "output") else made

        x = x + self.beside(x) + run("first", self.first, x)
        return x + run("second", self.second, self.norm(x))


@pytest.fixture
def model() -> Blocks:
    return Blocks().double().eval()


X = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
D = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
PLACES = [("first", "input"), ("second", "input"), ("second", "output")]


def projection(rows: Tensor) -> Tensor:
    return rows.T @ torch.linalg.inv(rows @ rows.T) @ rows


@pytest.mark.parametrize(("layer", "at"), PLACES)
def test_each_change_is_the_one_by_hand(model: Blocks, layer: str, at: Any) -> None:
    p, mean = projection(D), torch.arange(6.0, dtype=torch.float64)
    other = X.flip(0)
    cases: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
        (bl.ablate(model, layer, D, at=at), lambda x: x - x @ p),
        (bl.ablate(model, layer, D, at=at, mean=mean), lambda x: x - (x - mean) @ p),
        (bl.ablate(model, layer, D[0], at=at), lambda x: x - x @ projection(D[:1])),
        (bl.steer(model, layer, D, 2.0, at=at), lambda x: x + 2 * D.sum(dim=0)),
        (
            bl.steer(model, layer, D, torch.tensor([1.0, -3.0]), at=at),
            lambda x: x + D[0] - 3 * D[1],
        ),
        (bl.patch(model, layer, other, at=at), lambda _: other),
        (bl.patch(model, layer, other, D, at=at), lambda x: x + (other - x) @ p),
    ]
    before = model(X)
    for change, edit in cases:
        with change as found:
            made = model(X)
        torch.testing.assert_close(made, model.changed(X, layer, at, edit), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(made, before)
        assert (found.runs, found.rows) == (1, 15)
    assert torch.equal(model(X), before)


@pytest.mark.parametrize(("layer", "at"), PLACES)
def test_a_run_is_recorded_as_the_layer_sees_it(model: Blocks, layer: str, at: Any) -> None:
    met: list[Tensor] = []
    with bl.record(model, layer, at=at) as found:
        before = model(X)
        model(X[:1])
    model.changed(X, layer, at, lambda x: (met.append(x), x)[1])
    torch.testing.assert_close(found.runs[0], met[0])
    assert [len(one) for one in found.runs] == [3, 1]
    assert found.rows.shape == (20, 6)
    torch.testing.assert_close(found.mean, found.rows.mean(dim=0))
    assert torch.equal(model(X), before)


def test_some_positions_alone(model: Blocks) -> None:
    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, [1, 4]] += D[0]
        return x

    with bl.steer(model, "second", D[0], 1.0, positions=[1, -1]) as found:
        made = model(X)
    torch.testing.assert_close(made, model.changed(X, "second", "input", edit))
    assert found.rows == 6
    assert found.norm == pytest.approx(float(D[0].norm()))
    with bl.record(model, "second", positions=-1) as last:
        model(X)
    assert last.runs[0].shape == (3, 1, 6)


def test_a_control_changes_each_row_as_much_elsewhere(model: Blocks) -> None:
    for change in (
        lambda **more: bl.ablate(model, "second", D, **more),
        lambda **more: bl.steer(model, "second", D[0], 2.0, **more),
        lambda **more: bl.patch(model, "second", X.flip(0), **more),
    ):
        differences = []
        for more in ({}, {"control": 3}, {"control": 3}, {"control": 4}):
            with bl.record(model, "second") as before:
                model(X)
            with change(**more), bl.record(model, "second") as after:
                model(X)
            differences.append(after.runs[0] - before.runs[0])
        real, turned, again, other = differences
        torch.testing.assert_close(turned.norm(dim=-1), real.norm(dim=-1))
        assert torch.equal(turned, again)
        assert not torch.allclose(turned, real)
        assert not torch.allclose(turned, other)


def test_a_direction_of_the_weights_is_what_counts() -> None:
    """With its eigenvectors taken out, an exact layer gives what its other terms say."""
    torch.manual_seed(5)
    classifier = bl.nn.BilinearClassifier(6, 8, 3).double()
    read = bl.from_module(classifier)
    (name,) = read.layers
    form = read.layers[name].quadratic_map.form(0)
    pairs = bl.eigendecompose(form)
    x = X.flatten(0, 1)
    with bl.ablate(read, name, pairs.eigenvectors[:2]):
        made = classifier(x)[:, 0]
    rest = x - x @ projection(pairs.eigenvectors[:2])
    torch.testing.assert_close(made, form(rest))


def test_gradients_pass_and_low_precision_is_kept(model: Blocks) -> None:
    x = X.clone().requires_grad_()
    with bl.steer(model, "second", D[0], 1.0):
        model(x).sum().backward()
    assert x.grad is not None
    half = Blocks().to(torch.bfloat16).eval()
    with bl.ablate(half, "second", D[0], positions=0), bl.record(half, "second") as found:
        assert half(X.bfloat16()).dtype == torch.bfloat16
    along = (found.runs[0][:, 0].double() @ D[0] / D[0].norm()).abs()
    assert float(along.max()) < 0.02


def test_nothing_is_left_behind(model: Blocks) -> None:
    before = model(X)
    with pytest.raises(ZeroDivisionError), bl.steer(model, "first", D[0], 1.0):
        raise ZeroDivisionError
    assert torch.equal(model(X), before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


class Shared(nn.Module):
    """Two layers that begin with one module, and a layer behind arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.other = nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.relu(self.up(x))) + self.other(functional.gelu(self.up(x)))


def replace_parameter(model: Blocks) -> None:
    model.second[0].weight = nn.Parameter(torch.randn(9, 6, dtype=torch.float64))


def assign_state(model: Blocks) -> None:
    model.load_state_dict({name: 2 * x for name, x in model.state_dict().items()}, assign=True)


def replace_module(model: Blocks) -> None:
    model.second[2] = nn.Linear(9, 6).double()


def normalise_weight(model: Blocks) -> None:
    nn.utils.parametrizations.weight_norm(model.second[0])


@pytest.mark.parametrize(
    "replace", [replace_parameter, assign_state, replace_module, normalise_weight]
)
def test_replaced_parameters_are_read_anew_or_refused(
    model: Blocks, replace: Callable[[Blocks], None]
) -> None:
    read = bl.from_module(model)
    with torch.no_grad():
        model.second[0].bias.add_(1)  # in place: of the moment
    replace(model)
    for look in (
        read.layers["second"].read,
        lambda: bl.ablate(read, "second", D).__enter__(),
        lambda: bl.record(read, "second").__enter__(),
    ):
        with pytest.raises(UsageError, match=r"second.* was replaced since it was read: read it"):
            look()
    changed = "second.2.weight" if replace is replace_module else "second.0.weight"
    with pytest.raises(UsageError, match="was replaced since it was read: read it"):
        read.tensors[changed].read_tensor()
    rows = X.flatten(0, 1)
    with bl.record(model, "second", at="output") as seen:
        model.second(rows)
    now = bl.from_module(model).layers["second"].read()
    torch.testing.assert_close(now(rows), seen.rows)


def test_positions_of_modules_with_the_batch_second_are_refused() -> None:
    x = torch.randn(5, 3, 8)
    for batch_first in (True, False):
        host = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first).eval()
        read = bl.from_module(host)
        change = bl.steer(read, next(iter(read.layers)), torch.ones(8), 3.0, positions=-1)
        if batch_first:
            before = host(x).detach()
            with change:
                changed = (host(x) - before).detach().abs().amax(dim=-1) > 1e-6
            assert changed.nonzero()[:, 1].unique().tolist() == [2]
        else:
            with pytest.raises(UsageError, match="parts with batch_first=False"), change:
                host(x)


def test_a_module_without_weights_is_refused() -> None:
    planned = Blocks().to("meta")
    with pytest.raises(UsageError, match=r"'second' are on the meta device, .*dispatch=True"):
        bl.ablate(planned, "second", D).__enter__()


def test_a_control_leans_to_no_side() -> None:
    turned = torch.stack([random_basis(torch.eye(1, 5), seed)[0] for seed in range(200)])
    assert turned.mean(dim=0).abs().max() < 0.15  # of a uniform unit vector: 0.03 and seldom 0.1


def test_what_no_hook_can_change_is_refused(model: Blocks) -> None:
    # with what runs beside it, the first layer is one sum
    with pytest.raises(UsageError, match="between modules"), bl.record(model, "first", at="output"):
        pass
    shared = bl.from_module(Shared())
    for layer in shared.layers:
        with pytest.raises(UsageError, match=r"between modules|shared"), bl.record(shared, layer):
            pass
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    read = bl.from_module(images)
    with pytest.raises(UsageError, match="patches"), bl.record(read, next(iter(read.layers))):
        pass


MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "layer": ({"layer": "third"}, UsageError, "no layer 'third'; the layers are first, second"),
    "width": ({"directions": D[:, :5]}, ShapeError, r"\(2, 5\).*a row has 6 numbers"),
    "none": ({"directions": D[:0]}, ShapeError, "6 numbers"),
    "dependent": ({"directions": D[[0, 0]]}, UsageError, "linearly dependent"),
    "zero": ({"directions": 0 * D[0]}, UsageError, "one is zero"),
    "nan": ({"directions": D[0] / 0}, NonFiniteError, "directions"),
    "mean": ({"mean": D[0, :3]}, ShapeError, "mean has shape"),
    "side": ({"at": "middle"}, UsageError, "at"),
    "far": ({"positions": 5}, UsageError, r"\[5\]; in this run there are 5"),
    "twice": ({"positions": [4, -1]}, UsageError, "each once"),
    "word": ({"positions": "last"}, UsageError, "'last'"),
    "seed": ({"control": -1}, UsageError, "seed"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_sentence(name: str, model: Blocks) -> None:
    given, error, words = MISTAKES[name]
    options = {"layer": "first", "directions": D} | given
    with pytest.raises(error, match=words), bl.ablate(model, **options):
        model(X)
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_other_mistakes_are_one_sentence(model: Blocks, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="did not run inside"), bl.steer(model, "first", D[0], 1.0):
        Blocks()(X.float())  # another one
    for change, x, error, words in (
        (bl.steer(model, "first", D, torch.ones(3)), X, ShapeError, r"by has shape \(3,\)"),
        (bl.patch(model, "first", X[:2]), X, ShapeError, r"\(2, 5, 6\); .* \(3, 5, 6\)"),
        (bl.record(model, "first", positions=0), X[0], UsageError, "without an axis of positions"),
    ):
        with pytest.raises(error, match=words), change:  # type: ignore[attr-defined]
            model(x)
    saved = bl.save(bl.nn.BilinearClassifier(6, 8, 3), tmp_path / "m")
    with bl.record(loaded := bl.load(saved), next(iter(loaded.layers))) as found:
        assert loaded.module is not None
        loaded.module(torch.ones(2, 6))
    assert len(found.rows) == 2


@pytest.mark.parametrize("whole", [True, False])
def test_values_put_in_place_are_not_written_to_by_what_comes_behind(whole: bool) -> None:
    """Seen red: `h += x` behind a patched layer overwrote the recording that it came from."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6)
            self.mlp = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 6))

        def forward(self, x: Tensor) -> Tensor:
            made = self.mlp(self.norm(x))
            made += x
            return made

    net = nn.Sequential(InPlace(), nn.Identity()).double().eval()
    values = torch.ones_like(X) if whole else torch.ones(6, dtype=X.dtype)
    with torch.no_grad(), bl.patch(net, "0.mlp", values, at="output"):
        runs = net(X), net(X)
    assert all(torch.equal(made, 1 + X) for made in runs)
    assert bool((values == 1).all())
