"""A transformer at a text: every sum is the caller's own logits, every part what hooks measure.

Oracles: the module itself with hooks that hold its norms and leave parts out, its patterns from
loops over positions; second derivatives of its own MLPs. Broken once: the factor of a norm left
out, the pairs doubled on the diagonal, a source read at the wrong position: red each time.
"""

import itertools
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import NotQuadraticError, NumericalError, ShapeError, UsageError
from bilens.io.converted_folder import save_converted
from bilens.io.host import host_of
from polynomial.test_reading import transformer as polynomial_transformer
from tiny_language_models import BASE

TEXT = torch.tensor([3, 1, 4, 1, 5, 9])


def ours(n_layer: int = 2, seed: int = 0, **more: Any) -> bl.nn.BilinearTransformer:
    torch.manual_seed(seed)
    found = bl.nn.BilinearTransformer(11, 8, 6, n_layer, 2, 10, **more).double()
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.5)
    return found


def pattern_by_loops(attention: Any, x: Tensor, base: float) -> Tensor:
    """(heads, n, n), each score from a rotation by complex numbers, one at a time."""
    n, d = x.shape
    heads, width = attention.n_head, d // attention.n_head
    q, k = (
        (x @ attention.qkv.weight[at * d : (at + 1) * d].T).view(n, heads, width) for at in (0, 1)
    )
    speed = 1.0 / base ** (torch.arange(0, width, 2).float() / width)
    pattern = torch.zeros(heads, n, n).double()
    for h, i in itertools.product(range(heads), range(n)):
        scores = []
        for j in range(i + 1):
            one, other = (  # angles are rounded to float32, as those of every Llama
                torch.complex(y[: width // 2], y[width // 2 :])
                * torch.complex((at * speed).cos().double(), (at * speed).sin().double())
                for y, at in ((q[i, h], i), (k[j, h], j))
            )
            scores.append(((one * other.conj()).real.sum() / math.sqrt(width)).item())
        pattern[h, i, : i + 1] = torch.tensor(scores, dtype=torch.float64).softmax(dim=0)
    return pattern


def patterns_and_factors(model: Any, text: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What the module itself divided by, and where its heads looked, at a text."""
    factors: dict[str, Tensor] = {}
    patterns: list[Tensor] = []
    handles = []
    for name, part in model.named_modules():
        if isinstance(part, bl.nn.BilinearTransformer) or not name:
            continue
        if name.endswith("norm"):
            keep = lambda _, given, made, name=name: factors.update(  # noqa: E731
                {name: (made / given[0])[0].mean(dim=-1)}
            )
            handles.append(part.register_forward_hook(keep))
        if name.endswith("attention"):
            look = lambda part, given, _: patterns.append(  # noqa: E731
                pattern_by_loops(part, given[0][0], model.config.rotary_base)
            )
            handles.append(part.register_forward_hook(look))
    with torch.no_grad():
        model(text[None])
    for handle in handles:
        handle.remove()
    return patterns, factors


@contextmanager
def held(model: Any, text: Tensor, active: Collection[str]) -> Iterator[None]:
    """The module itself with its norms and patterns held at a text, and some parts left out."""
    patterns, factors = patterns_and_factors(model, text)
    handles = []
    for name, part in model.named_modules():
        if name.endswith("norm"):
            fix = lambda _, given, __, name=name: given[0] * factors[name][:, None]  # noqa: E731
            handles.append(part.register_forward_hook(fix))
    for number, block in enumerate(model.blocks):

        def attend(part: Any, given: Any, _: Any, number: int = number) -> Tensor:
            x, made = given[0][0], torch.zeros_like(given[0][0])
            values = (x @ part.qkv.weight[2 * x.shape[1] :].T).view(len(x), part.n_head, -1)
            for i, j in itertools.product(range(len(x)), repeat=2):
                mixed = patterns[number][:, i, j, None] * values[j]
                made[i] += part.out.weight @ mixed.flatten()
            return made[None] * (f"attention {number}" in active)

        handles.append(block.attention.register_forward_hook(attend))
        leave = lambda _, __, made, number=number: made * (f"mlp {number}" in active)  # noqa: E731
        handles.append(block.mlp.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [one for n in range(len(names) + 1) for one in itertools.combinations(names, n)]


@torch.no_grad()
def test_paths_are_what_the_module_itself_gives_with_parts_left_out() -> None:
    model = ours(bias=True)
    network = bl.read_at_text(model, TEXT)
    with_parts = {}
    for active in subsets(network.part_names):
        with held(model, TEXT, active):
            with_parts[active] = model(TEXT[None])[0]
        assert torch.allclose(network(active=active), with_parts[active], atol=1e-10)
    for position in (-1, 2):
        split = network.paths(position=position)
        assert set(split.paths) == {*subsets(network.part_names)}
        assert split.names()[0] == "direct"
        for path, value in zip(split.paths, split.values, strict=True):
            moebius = sum(
                (-1) ** (len(path) - len(inner)) * with_parts[inner][position]
                for inner in subsets(path)
            )
            assert torch.allclose(value, torch.as_tensor(moebius), atol=1e-10)
        own = model(TEXT[None])[0, position]
        assert torch.allclose(split.values.sum(dim=0), own, atol=1e-10)
        assert torch.allclose(network.paths(4, position).values, split.values[:, 4])
        difference = network.paths((4, 7), position).values
        assert torch.allclose(difference, split.values[:, 4] - split.values[:, 7])
        name, share = network.paths(4, position).largest(1)[0]
        values = split.values[:, 4].square()
        assert name == split.names()[int(values.argmax())]
        assert math.isclose(share, float(values.max() / values.sum()))


@pytest.mark.parametrize("position", [-1, 3])
@torch.no_grad()
def test_heads_and_direct_are_sums_of_loops_and_all_of_it_is_the_logit(position: int) -> None:
    model = ours(bias=True)
    network = bl.read_at_text(model, TEXT)
    patterns, factors = patterns_and_factors(model, TEXT)
    at = position % len(TEXT)
    found = network.interactions(7, position)
    read = factors["final_norm"][at] * model.unembed.weight[7]
    assert torch.isclose(found.direct, model.embed.weight[TEXT[at]] @ read)
    for number, block in enumerate(model.blocks):
        _, seen = model.run(TEXT[None], capture=[f"blocks.{number}.resid_pre"])
        x = seen[f"blocks.{number}.resid_pre"][0]
        for head, source in itertools.product(range(2), range(len(TEXT))):
            rows = slice(16 + 4 * head, 16 + 4 * head + 4)
            value = factors[f"blocks.{number}.attention_norm"][source] * (
                block.attention.qkv.weight[rows] @ x[source]
            )
            written = block.attention.out.weight[:, 4 * head : 4 * head + 4] @ value
            expected = patterns[number][head, at, source] * (written @ read)
            assert torch.isclose(found.heads[f"attention {number}"][head, source], expected)
    assert torch.isclose(found.whole, model(TEXT[None])[0, at, 7], atol=1e-10, rtol=0)
    weights = torch.randn(11).double()
    along = network.interactions(weights, position)
    assert torch.isclose(along.whole, model(TEXT[None])[0, at] @ weights, atol=1e-10, rtol=0)
    named = dict(found.named())
    assert math.isclose(sum(named.values()), float(found.logit), abs_tol=1e-10)
    assert len(named) == 2 + 2 * 2 * (at + 1) + 4 * 5 // 2 + 7 * 8 // 2
    assert named["attention 1 head 0 ← 2"] == float(found.heads["attention 1"][0, 2])
    name, value = found.largest(1)[0]
    assert abs(named[name]) == abs(value) == max(map(abs, named.values()))


def test_pairs_are_second_derivatives_of_the_modules_own_mlp() -> None:
    """The inputs, each times a number: derivatives by the numbers at 0 are pairs and squares."""
    model, at = ours(bias=True), 4
    network = bl.read_at_text(model, TEXT)
    patterns, factors = patterns_and_factors(model, TEXT)
    with torch.no_grad():
        points = ["blocks.0.resid_pre", "blocks.1.resid_pre", "blocks.0.mlp_out"]
        _, seen = model.run(TEXT[None], capture=points)
        inputs = [model.embed.weight[TEXT[at]]]
        for number in (0, 1):
            x, attention = seen[f"blocks.{number}.resid_pre"][0], model.blocks[number].attention
            x = x * factors[f"blocks.{number}.attention_norm"][:, None]
            for head in range(2):
                value = x @ attention.qkv.weight[16 + 4 * head : 20 + 4 * head].T
                mixed = patterns[number][head, at] @ value
                inputs.append(attention.out.weight[:, 4 * head : 4 * head + 4] @ mixed)
            if number == 0:
                inputs.append(seen["blocks.0.mlp_out"][0, at])
    stacked, block = torch.stack(inputs), model.blocks[1]
    read = factors["final_norm"][at] * (model.unembed.weight[2] - model.unembed.weight[9])

    def added(sizes: Tensor) -> Tensor:
        x = factors["blocks.1.mlp_norm"][at] * (sizes @ stacked)
        y: Tensor = block.mlp(x) @ read.detach()
        return y

    zero = torch.zeros(len(inputs)).double()
    hessian = torch.autograd.functional.hessian(added, zero)
    slope = torch.autograd.functional.jacobian(added, zero)
    found = network.interactions((2, 9), at)
    names, table = found.inputs["mlp 1"], found.pairs["mlp 1"]
    assert names == (
        *("embedding", "attention 0 head 0", "attention 0 head 1", "mlp 0"),
        *("attention 1 head 0", "attention 1 head 1", "constant"),
    )
    expected = hessian.triu(1) + torch.diag(hessian.diagonal()) / 2
    assert torch.allclose(table[:-1, :-1], expected, atol=1e-10)
    assert torch.allclose(table[:-1, -1], slope, atol=1e-10)
    assert torch.isclose(table[-1, -1], added(zero), atol=1e-10)
    # the held network itself is a polynomial of degree 2 in one block: its own second derivative
    map_ = network.mlp_map("mlp 1", at)
    stream = torch.randn(8).double()
    held_mlp = block.mlp(factors["blocks.1.mlp_norm"][at] * stream)
    assert torch.allclose(map_(stream), held_mlp, atol=1e-10)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_in_float32_is_compared_to_its_own_rounding(tied: bool) -> None:
    model = ours(tied=tied).float()
    network = bl.read_at_text(model, [3, 1, 4])
    assert network.checked_against == "the model itself, as it runs on this text"
    assert network.logits.dtype == torch.float32
    assert torch.allclose(network().float(), model(torch.tensor([[3, 1, 4]]))[0], atol=1e-4)


def test_of_more_than_ten_parts_the_interactions_are_given_and_paths_refused() -> None:
    network = bl.read_at_text(ours(6), TEXT)
    with pytest.raises(UsageError, match=r"12 parts have 2\^12 sets .* named interactions"):
        network.paths(0)
    found = network.interactions(0)
    assert torch.isclose(found.whole, found.logit, atol=1e-10, rtol=0)


def test_many_outputs_are_refused_with_the_number() -> None:
    network = bl.read_at_text(ours(), TEXT)
    wide = replace(network, head=network.head.new_zeros(1, 8).expand(1 << 24, 8))
    with pytest.raises(bl.base.errors.MemoryLimitError, match=r"16 paths of 16,777,216 outputs"):
        wide.paths()


def hosts() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "llama", {"hidden_act": "linear", "mlp_bias": True, "attention_bias": True}
    yield "llama", {"hidden_act": "linear", "num_key_value_heads": 1}
    yield "granite", {"residual_multiplier": 0.5, "logits_scaling": 3.0, "hidden_act": "linear"}
    yield "gemma", {"hidden_act": "linear", "hidden_activation": "linear", "head_dim": 6}
    yield "starcoder2", {}


def host(kind: str, more: dict[str, Any]) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**BASE, **more})
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize(("kind", "more"), [*hosts()])
def test_a_model_of_transformers_sums_to_its_own_logits(kind: str, more: dict[str, Any]) -> None:
    """Biases, shared values, scales, gains less one; LayerNorm and MLPs of ours in their places."""
    model = host(kind, more)
    if kind == "starcoder2":
        for block in model.model.layers:
            block.mlp = bl.nn.BilinearMLP(8, 12, bias=True)
    text = torch.tensor([1, 5, 3, 7, 2])
    before = {name: one.clone() for name, one in model.state_dict().items()}
    network = bl.read_at_text(model, text)
    own = model(text[None]).logits[0].double()
    assert torch.allclose(network(), own, atol=1e-5)
    for position in (1, -1):
        found = network.interactions(6, position)
        assert torch.isclose(found.whole, own[position, 6], atol=1e-5)
        assert torch.allclose(
            network.paths(position=position).values.sum(dim=0), own[position], atol=1e-5
        )
    assert model.config._attn_implementation == "sdpa"
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


def test_a_converted_model_is_read_from_its_folder(tmp_path: Path) -> None:
    at = host_of(host("qwen3", {"head_dim": 4}), tmp_path)
    mlps = [bl.nn.BilinearMLP(8, 12, bias=True, skip=True) for _ in at.sites]
    at.replace({site.name: one for site, one in zip(at.sites, mlps, strict=True)})
    assert save_converted(at, tmp_path) == "bl.nn.load_converted"
    model: Any = bl.load_converted(tmp_path)
    network = bl.read_at_text(model, [1, 5, 3])
    own = model(torch.tensor([[1, 5, 3]])).logits[0].double()
    assert torch.allclose(network(), own, atol=1e-5)
    found = network.interactions((2, 7), 1)
    assert torch.isclose(found.whole, own[1, 2] - own[1, 7], atol=1e-5)


def test_left_out_heads_of_a_model_of_transformers_are_what_its_own_hooks_leave_out() -> None:
    """The last MLP reads the last attention: without both, the rest of the model is what it was."""
    model = host("llama", {"hidden_act": "linear", "num_key_value_heads": 1}).double()
    text = torch.tensor([1, 5, 3, 7, 2])
    network = bl.read_at_text(model, text)
    factor = network.norm.factor
    none = lambda _, __, made: (made[0] * 0, made[1]) if isinstance(made, tuple) else made * 0  # noqa: E731
    parts = [model.model.layers[1].self_attn, model.model.layers[1].mlp]
    handles = [part.register_forward_hook(none) for part in parts]
    fixed = lambda _, given, __: given[0] * factor[:, None] * model.model.norm.weight  # noqa: E731
    handles.append(model.model.norm.register_forward_hook(fixed))
    own = model(text[None]).logits[0]
    for handle in handles:
        handle.remove()
    assert torch.allclose(network(active=("attention 0", "mlp 0")), own, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("llama", {}, "activation silu"),
        ("cohere", {"hidden_act": "linear"}, "read the same stream"),
        ("gemma2", {"hidden_activation": "linear", "head_dim": 4}, "norms behind its parts"),
        ("phi3", {"hidden_act": "linear"}, "v_proj"),
    ],
)
def test_other_models_of_transformers_are_refused_by_name(
    kind: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises((NotQuadraticError, UsageError), match=said):
        bl.read_at_text(host(kind, more), [1, 2])


def test_what_cannot_be_read_is_refused_with_what_to_do() -> None:
    with pytest.raises(NotQuadraticError, match=r"activation silu.*bilens convert"):
        bl.read_at_text(ours(gate="silu"), TEXT)
    with pytest.raises(UsageError, match=r"nothing has to be held.*bl.polynomial_network"):
        bl.read_at_text(polynomial_transformer(), TEXT[:3])
    with pytest.raises(UsageError, match=r"str; expected a transformer"):
        bl.read_at_text("model", TEXT)
    with pytest.raises(UsageError, match="float16"):
        bl.read_at_text(ours().half(), TEXT)
    with pytest.raises(UsageError, match=r"run from 1 to 11; the model knows 0 to 10"):
        bl.read_at_text(ours(), [1, 11])
    with pytest.raises(UsageError, match=r"12 tokens; the model reads at most 10"):
        bl.read_at_text(ours(), [1] * 12)
    for wrong in (TEXT[None], [], [0.5], "text", None):
        with pytest.raises(ShapeError, match="ids of one text"):
            bl.read_at_text(ours(), wrong)  # type: ignore[arg-type]


def test_a_module_that_does_something_else_is_refused() -> None:
    model, larger = ours(), lambda _, __, made: 1.001 * made
    model.blocks[1].attention.register_forward_hook(larger)
    with pytest.raises(UsageError, match="attention has hooks that give another answer"):
        bl.read_at_text(model, TEXT)
    model = ours()
    model.unembed.bias = nn.Parameter(torch.ones(11).double())
    with pytest.raises(NumericalError, match="differ from its own by 1"):
        bl.read_at_text(model, TEXT)
    of_others = host("llama", {"hidden_act": "linear"})
    of_others.model.embed_tokens.register_forward_hook(larger)
    with pytest.raises(NumericalError, match=r"differ from its own by .* has forward hooks"):
        bl.read_at_text(of_others, [1, 2, 3])


def test_wrong_outputs_positions_parts_and_embeddings_are_refused() -> None:
    network = bl.read_at_text(ours(), TEXT)
    for wrong in (11, -1, "x", (1, 2, 3), (1, 11), 0.5):
        with pytest.raises(UsageError, match="expected a token from 0 to 10"):
            network.interactions(wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="output has 3 entries"):
        network.paths(torch.ones(3).double())
    for position in (6, -7, 0.5):
        with pytest.raises(UsageError, match="this text has 6 tokens"):
            network.interactions(0, position)  # type: ignore[arg-type]
    for name in ("attention 0", "mlp 9"):
        with pytest.raises(UsageError, match=f"no MLP '{name}'"):
            network.mlp_map(name)
    with pytest.raises(UsageError, match="no part 'mlp 9'"):
        network(active=["mlp 9"])
    with pytest.raises(ShapeError, match=r"expected \(…, 6, 8\)"):
        network(network.embedded[:3])
