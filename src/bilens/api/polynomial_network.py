"""Opens a network as a polynomial of its inputs, and compares it with what its owner runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.api.subject import open_subject
from bilens.base.checks import check_type
from bilens.base.errors import CheckpointError, NotQuadraticError, NumericalError, UsageError
from bilens.io.formats.named_roles import open_tensors
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.real_run import (
    foreign_methods,
    refuse_what_acts,
    run_as_owner,
    watch_what_acts,
    what_may_differ,
)
from bilens.nn.transformer import BilinearTransformer
from bilens.polynomial.attention import BilinearAttention, QueryKeyPair
from bilens.polynomial.network import Part, PolynomialNetwork, QuadraticLayer

# Of the largest output, by the dtype of the owner: a high degree multiplies its rounding. What 16
# bits hide is not seen, so that of them nothing is said to be compared.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
COARSE = 0.25
TEXTS, LENGTH, SEED = 8, 128, 0  # drawn texts that both are run on
LEAST_SEEN = 10  # times what is allowed: less of a part, and it may be another one
SHOWN = 3  # tokens of a text in which attention is seen at two distances


@dataclass(frozen=True)
class TransformerRoles:
    """Which tensor of a file is what in a polynomial transformer; "{block}" is the block's number.

    Attributes:
        embedding, head: names of the embedding (tokens, d_model) and the unembedding.
        query, key: a name for each pair of queries and keys, one or two.
        value, out: of the attention.
        left, right, down: of the bilinear MLP.
        attention_scale, mlp_scale, head_scale: of scales of channels; None where there are none.
        n_head: number of heads.
        rotary_base: base of the rotary angles; None for none.
        positions: vectors (n_ctx, d_model) that are added to the embeddings; None for none.
        n_ctx: longest text; None where it is not known.
        decay: how fast each head's pattern falls with the distance; None where none does.
    """

    embedding: str
    head: str
    query: tuple[str, ...]
    key: tuple[str, ...]
    value: str
    out: str
    left: str
    right: str
    down: str
    attention_scale: str | None = None
    mlp_scale: str | None = None
    head_scale: str | None = None
    n_head: int = 1
    rotary_base: float | None = 10000.0
    n_ctx: int | None = None
    decay: tuple[float, ...] | None = None
    positions: str | None = None

    def __post_init__(self) -> None:
        given: tuple[object, object] = self.query, self.key
        tuples = all(isinstance(one, tuple | list) for one in given)
        if not tuples or len(self.query) != len(self.key):
            raise UsageError(
                "query and key name as many tensors each: ('blocks.{block}.q1', "
                "'blocks.{block}.q2') and the keys in the same order."
            )


def polynomial_network(
    given: object,
    roles: TransformerRoles | None = None,
    *,
    probe: tuple[Tensor, Tensor] | None = None,
) -> PolynomialNetwork:
    """Read a whole network as a polynomial of its tokens or inputs, exactly.

    Its weights are multiplied in float64. The network is compared with what its owner runs, on
    drawn texts or inputs, and `checked_against` says with what. Of a file of tensors nothing can
    be run: give a probe.

    Args:
        given: a `bl.nn.PolynomialTransformer`, or what `bl.load` returned of a folder of one; a
            model whose layers stand one behind the other and are all quadratic (what `bl.load`
            returned, or a `torch.nn.Module`); or the path of a `.safetensors` file, with `roles`.
        roles: which tensor of a file is what.
        probe: tokens (batch, n) or inputs, and the outputs that the network gives for them.

    Raises: NotQuadraticError if a part is no polynomial: softmax attention, a norm, an activation;
        NumericalError if what is read is another function than what its owner runs; UsageError if
        it cannot be opened so, or roles do not fit; CheckpointError if a tensor is missing.
    """
    if isinstance(given, str | Path):
        if roles is None:
            raise UsageError(
                f"{given} is a file: say which tensor is what, roles=TransformerRoles(…), or pass "
                "bl.load(path) for a model that bilens saved."
            )
        check_type("roles", roles, TransformerRoles, "name its fields, as in the docstring")
        network = read_roles(Path(given), roles, probe is not None)
    elif roles is not None:
        raise UsageError("roles= are of a file; a module or model says them itself.")
    elif isinstance(given, PolynomialTransformer):
        network = read_transformer(given)
    else:
        network = read_chain(given)
    if probe is not None:
        network = check_probe(network, probe)
    checked = network.checked_against  # what is read is a copy: it stays as it was compared
    return network.changed(torch.clone).compared_with(checked)


def read_transformer(module: PolynomialTransformer) -> PolynomialNetwork:
    """Read a transformer and compare it with its own run, hooks and all."""
    network, config = module.weights(), module.config
    generator = torch.Generator().manual_seed(SEED)
    read = network
    with watch_what_acts(module) as acted:
        # texts of one, two and three tokens too: of these interactions are told
        for length in sorted({min(config.n_ctx, one) for one in (1, 2, 3, LENGTH)}):
            tokens = torch.randint(config.vocab_size, (TEXTS, length), generator=generator)
            tokens[0] = tokens[0, 0]  # one token all along
            tokens = tokens.to(network.reference.device)
            made = run_as_owner(module, tokens)[0]
            if not isinstance(made, Tensor):
                raise UsageError(
                    f"the {type(module).__name__} gives a {type(made).__name__} when it runs; "
                    "expected logits, (batch, tokens, vocab_size)."
                )
            why = what_may_differ(module)
            read = compared(network, tokens, made, "the module itself, as it runs", why)
    # what acts may do so elsewhere, or beside the rounding of large logits
    refuse_what_acts(module, [*acted, *foreign_methods(module)])
    return read


def read_chain(given: object) -> PolynomialNetwork:
    """Read layers one behind the other, each an exact quadratic map, none with an activation."""
    model = open_subject(given, "a polynomial network")
    if isinstance(model.module, PolynomialTransformer):
        return read_transformer(model.module)
    if isinstance(model.module, BilinearTransformer):
        raise NotQuadraticError(
            "the attention of a BilinearTransformer has a softmax and its norms are RMSNorm, "
            "neither of which is a polynomial: read it at one text (bl.read_at_text), "
            "or train a bl.nn.PolynomialTransformer."
        )
    views = model.network
    if not views and model.ends is not None:
        raise NotQuadraticError(
            f"{model.source or 'the model'} is a language model whose attention has a softmax, "
            "which is no polynomial: in memory it can be read at one text (bl.read_at_text)."
        )
    if not views:
        raise NotQuadraticError(
            f"{model.source or 'the model'} is not its layers one behind the other: what lies "
            "between them is no polynomial that is known."
        )
    for view in views:
        if not view.exact:
            raise NotQuadraticError(
                f"the layer {view.name} has the activation {view.activation}, which is no "
                "polynomial: bl.convert_network makes a bilinear network of it."
            )
    if model.head is not None:
        raise NotQuadraticError(
            f"behind the last layer of {model.source or 'the model'} stands {model.head}, which is "
            "no polynomial: pass the model without it."
        )
    parts = tuple(
        QuadraticLayer(view.quadratic_map.detach().to(torch.float64), residual=False)
        for view in views
    )
    check = model.exactness
    network = PolynomialNetwork(parts, part_names=tuple(view.name for view in views))
    return network.compared_with("" if check is None else check.source)


def read_roles(path: Path, roles: TransformerRoles, probed: bool) -> PolynomialNetwork:
    """Read the weights of a polynomial transformer from a file of tensors."""
    store = open_tensors(path).store

    def tensor(name: str | None, block: int | None = None) -> Tensor | None:
        if name is None:
            return None
        full = name if block is None else name.replace("{block}", str(block))
        if full not in store:
            raise CheckpointError(
                f"{path}: there is no tensor {full!r}; it has {', '.join([*store][:8])}, …"
            )
        used.add(full)
        return store[full].read_tensor().double()

    def needed(name: str, block: int | None = None) -> Tensor:
        found = tensor(name, block)
        assert found is not None, "only optional roles have no name"
        return found

    used: set[str] = set()
    parts: list[Part] = []
    names: list[str] = []
    for block in blocks_of(path, roles, store):
        pairs = tuple(
            QueryKeyPair(needed(query, block), needed(key, block))
            for query, key in zip(roles.query, roles.key, strict=True)
        )
        value, out = needed(roles.value, block), needed(roles.out, block)
        decay = None if roles.decay is None else value.new_tensor(roles.decay)
        attention = BilinearAttention(pairs, value, out, roles.n_head, roles.rotary_base, decay)
        if (scale := tensor(roles.attention_scale, block)) is not None:
            attention = attention.scaled(scale)
        down, left = needed(roles.down, block), needed(roles.left, block)
        layer = QuadraticMap(BilinearTensor(down, left, needed(roles.right, block)))
        if (scale := tensor(roles.mlp_scale, block)) is not None:
            check_shape(str(roles.mlp_scale), scale, (layer.sizes.d_in,))
            layer = layer.compose_input(torch.diag(scale))
        parts += [attention, QuadraticLayer(layer)]
        names += [f"attention {block}", f"mlp {block}"]
    head = needed(roles.head)
    if (scale := tensor(roles.head_scale)) is not None:
        check_shape(str(roles.head_scale), scale, head.shape[-1:])
        head = head * scale
    embedding = needed(roles.embedding)
    if not probed and (more := [*{*store} - used]):
        raise CheckpointError(
            f"{path}: no role names {', '.join(sorted(more)[:6])}: what they do is not known. Name "
            "their roles, or show with probe=(tokens, logits) that the rest is the network."
        )
    return PolynomialNetwork(
        tuple(parts),
        embedding,
        head,
        positions=tensor(roles.positions),
        n_ctx=roles.n_ctx,
        part_names=tuple(names),
    )


def blocks_of(path: Path, roles: TransformerRoles, store: Mapping[str, object]) -> range:
    """Return the numbers of the blocks; refuse numbers with a gap."""
    names = (*roles.query, *roles.key, roles.value, roles.out, roles.left, roles.right, roles.down)
    found = set[int]()
    for name in names:
        pattern = re.compile(re.escape(name).replace(re.escape("{block}"), r"(\d+)"))
        matches = [match for one in store if (match := pattern.fullmatch(one))]
        found |= {int(match[1]) if match.groups() else 0 for match in matches}
    if not found or found != {*range(len(found))}:
        raise CheckpointError(
            f"{path}: the blocks {sorted(found) or 'none'} have tensors of the roles; expected 0, "
            f"1, … without a gap. It has {', '.join([*store][:8])}, …"
        )
    return range(len(found))


def check_probe(network: PolynomialNetwork, probe: tuple[Tensor, Tensor]) -> PolynomialNetwork:
    """Compare a network with outputs that its owner recorded."""
    pair: object = probe
    whole = isinstance(pair, tuple) and len(pair) == 2
    if not whole or not all(isinstance(one, Tensor) and one.numel() for one in probe):
        raise UsageError("probe is a pair of tensors: tokens or inputs, and the outputs for them.")
    given, outputs = probe
    attends = any(isinstance(part, BilinearAttention) for part in network.parts)
    if attends and network.num_tokens and given.shape[-1] < SHOWN:
        raise UsageError(
            f"the texts of the probe have {given.shape[-1]} tokens: of fewer than {SHOWN} "
            "attention shows neither its positions nor how it falls with the distance."
        )
    return compared(network, given, outputs, "the outputs of a probe", "")


def compared(
    network: PolynomialNetwork, given: Tensor, made: Tensor, source: str, why: str
) -> PolynomialNetwork:
    """Return the network with what it was compared with; refuse it where it is another function."""
    read = network(given if network.embedding is not None else given.double())
    if read.shape != made.shape:
        raise NumericalError(
            f"{source} has outputs {tuple(made.shape)}; the network as read {tuple(read.shape)}."
        )
    # of each text or row: a large one hides no error of another
    far = (read - made.double()).abs().flatten(1 if made.ndim > 1 else 0)
    sizes = made.double().abs().flatten(1 if made.ndim > 1 else 0).amax(dim=-1)
    allowed = TOLERANCES.get(made.dtype, COARSE)
    worst = (far.amax(dim=-1) - allowed * sizes).reshape(-1)
    error, largest = float(far.max()), float(sizes.max())
    if not bool((worst <= torch.finfo(torch.float32).tiny).all()):
        raise NumericalError(
            f"the network as read differs from {source} by {error:.1e}, where the largest output "
            f"is {largest:.1e}{why}: it is another function."
        )
    seen = made.dtype in TOLERANCES and every_part_is_seen(network, given, read, allowed)
    return network.compared_with(source if seen else "")


def every_part_is_seen(
    network: PolynomialNetwork, given: Tensor, read: Tensor, allowed: float
) -> bool:
    """Tell whether each part changes the outputs by far more than the comparison allows."""
    given = given if network.embedding is not None else given.double()
    for at, part in enumerate(network.parts):
        if isinstance(part, BilinearAttention):
            left_out: Part = replace(part, out=torch.zeros_like(part.out))
        elif part.residual:
            left_out = replace(part, map=part.map * 0.0)
        else:
            continue  # nothing passes beside it
        parts = (*network.parts[:at], left_out, *network.parts[at + 1 :])
        change = float((replace(network, parts=parts)(given) - read).abs().max())
        if change <= LEAST_SEEN * allowed * float(read.abs().max()):
            return False
    return True
