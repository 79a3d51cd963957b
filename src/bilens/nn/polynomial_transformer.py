"""A transformer that is a polynomial: bilinear attention and MLPs, scales in place of norms."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from bilens.base.checks import as_integer, check_count
from bilens.base.errors import UsageError
from bilens.nn.block import SIZES
from bilens.nn.mlp import BilinearMLP, check_linear
from bilens.nn.tokens import TextModel, check_tokens, mean_cross_entropy
from bilens.polynomial.attention import BilinearAttention, QueryKeyPair, fading
from bilens.polynomial.network import Part, PolynomialNetwork, QuadraticLayer
from bilens.polynomial.rotary import check_rotary_base, rotate, rotation_table

START_EMBEDDING = 0.3  # of each entry; Adam moves smaller ones faster
FASTEST = 0.3  # decay of a head, for each position of distance
START_MLP = 0.5  # of each entry that an MLP reads


@dataclass(frozen=True)
class PolynomialConfig:
    """The arguments of `PolynomialTransformer`, checked."""

    vocab_size: int
    d_model: int
    d_hidden: int
    n_layer: int
    n_head: int
    n_ctx: int
    pairs: int = 2
    d_head: int | None = None
    rotary_base: float = 10000.0
    decay: bool = False

    def __post_init__(self) -> None:
        for name in SIZES:  # numpy's integers become Python's, which JSON can hold
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=1))
        if as_integer(self.pairs) not in (1, 2):
            raise UsageError(f"pairs is {self.pairs!r}; expected 1 or 2 pairs of query and key.")
        width = self.d_model // self.n_head
        if self.d_head is not None:
            width = check_count("d_head", self.d_head, minimum=1)
        if width < 2 or width % 2 or (self.d_head is None and self.d_model % self.n_head):
            raise UsageError(
                f"d_model is {self.d_model}, n_head {self.n_head}, d_head {self.d_head}: each head "
                "needs an even width, d_model / n_head where d_head is not given."
            )
        object.__setattr__(self, "d_head", width)
        if not isinstance(self.decay, bool):
            raise UsageError(f"decay is {self.decay!r}; expected True or False.")
        check_rotary_base(self.rotary_base)
        object.__setattr__(self, "rotary_base", float(self.rotary_base))

    @property
    def slowest(self) -> float:
        """The least decay of a head where there is any."""
        return min(1 / self.n_ctx, FASTEST)

    @property
    def span(self) -> float:
        """How many positions a head sees: n_ctx, or the geometric mean of 1/decay."""
        fastest = FASTEST if self.n_head > 1 else self.slowest
        return 1 / math.sqrt(fastest * self.slowest) if self.decay else float(self.n_ctx)

    def rates(self, like: Tensor) -> Tensor | None:
        """Return the decay of each head, in equal ratios; a single one has the slowest."""
        if not self.decay:
            return None
        fastest = FASTEST if self.n_head > 1 else self.slowest
        steps = torch.linspace(0, 1, self.n_head, dtype=torch.float64, device=like.device)
        return (fastest * (self.slowest / fastest) ** steps).to(like.dtype)


class ChannelScale(nn.Module):
    """x ↦ scale ∘ x: what stands in place of a norm."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel, (..., d_model) → the same."""
        return x * self.scale


class PolynomialAttention(nn.Module):
    """out(Σ_i A_qi v_i), A_qi = Π over pairs of q · k / √d_head, causal, without a softmax.

    With a decay r of the head, A_qi is times exp(−r (q − i)).
    """

    def __init__(self, config: PolynomialConfig) -> None:
        super().__init__()
        self.config, width = config, config.n_head * int(config.d_head or 0)
        maps = range(config.pairs)
        self.queries = nn.ModuleList(nn.Linear(config.d_model, width, bias=False) for _ in maps)
        self.keys = nn.ModuleList(nn.Linear(config.d_model, width, bias=False) for _ in maps)
        self.value = nn.Linear(config.d_model, width, bias=False)
        self.out = nn.Linear(width, config.d_model, bias=False)

    def forward(self, x: Tensor, read: Tensor | None = None) -> Tensor:
        """Compute what the heads add to the stream, (batch, tokens, d_model) → the same.

        `read`, (batch, tokens), is which positions others may read; each reads itself. None: all.
        """
        batch, tokens, _ = x.shape
        shape = (batch, tokens, self.config.n_head, -1)
        width, base = int(self.config.d_head or 0), self.config.rotary_base
        # few sizes, so that the tables are kept
        size = min(self.config.n_ctx, 1 << (tokens - 1).bit_length())
        table = rotation_table(size, width, base, x.dtype, x.device)
        cosines, sines = (part[None, :tokens, None] for part in table)
        pattern = x.new_ones(tokens, tokens).tril()
        if read is not None:
            own = torch.eye(tokens, dtype=torch.bool, device=x.device)
            pattern = pattern * (read[:, None, None, :] | own)
        if (rates := self.config.rates(x)) is not None:
            pattern = pattern * fading(rates, torch.arange(tokens, device=x.device))
        for query, key in zip(self.queries, self.keys, strict=True):
            q = rotate(query(x).view(shape), cosines, sines).transpose(1, 2)
            k = rotate(key(x).view(shape), cosines, sines).transpose(1, 2)
            pattern = pattern * (q @ k.mT / math.sqrt(width))
        heads = pattern @ self.value(x).view(shape).transpose(1, 2)
        y: Tensor = self.out(heads.transpose(1, 2).reshape(batch, tokens, -1))
        return y


class PolynomialBlock(nn.Module):
    """x ← x + attention(scale x), then x ← x + mlp(scale x)."""

    def __init__(self, config: PolynomialConfig) -> None:
        super().__init__()
        self.attention_scale = ChannelScale(config.d_model)
        self.attention = PolynomialAttention(config)
        self.mlp_scale = ChannelScale(config.d_model)
        self.mlp = BilinearMLP(config.d_model, config.d_hidden)

    def forward(self, x: Tensor, read: Tensor | None = None) -> Tensor:
        """Compute the stream behind the block, (batch, tokens, d_model) → the same."""
        x = x + self.attention(self.attention_scale(x), read)
        y: Tensor = x + self.mlp(self.mlp_scale(x))
        return y


class PolynomialTransformer(TextModel):
    """Tokens → logits of the next token, (batch, tokens) → (batch, tokens, vocab_size).

    Every logit is a polynomial of the embeddings: attention multiplies its patterns without a
    softmax, MLPs are bilinear, and a scale of each channel stands in place of each norm. The whole
    network can be read exactly: `bl.polynomial_network`.

    Args:
        vocab_size: number of tokens.
        d_model: width of the residual stream.
        d_hidden: number of products in each MLP.
        n_layer: number of blocks.
        n_head: heads of each attention.
        n_ctx: longest text, in tokens.
        pairs: pairs of queries and keys in each head, whose patterns are multiplied: 1 or 2.
        d_head: width of a head, even; None: d_model / n_head.
        rotary_base: base of the rotary angles.
        decay: whether the patterns of the heads fall with the distance d, as exp(−r d), with rates
            r from 0.3 to 1/n_ctx in equal ratios: constants, so that nothing is normalised.

    Raises: UsageError if a size is not as above.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_hidden: int,
        n_layer: int,
        n_head: int,
        n_ctx: int,
        *,
        pairs: int = 2,
        d_head: int | None = None,
        rotary_base: float = 10000.0,
        decay: bool = False,
    ) -> None:
        super().__init__()
        self.config = config = PolynomialConfig(
            vocab_size, d_model, d_hidden, n_layer, n_head, n_ctx, pairs, d_head, rotary_base, decay
        )
        self.embed = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(PolynomialBlock(config) for _ in range(n_layer))
        self.final_scale = ChannelScale(d_model)
        self.unembed = nn.Linear(d_model, vocab_size, bias=False)
        start_at_useful_sizes(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the logits of the token that follows each one.

        Raises: UsageError if the tokens are out of range, or more than `n_ctx`; ShapeError if they
            are no batch of integers.
        """
        check_tokens(tokens, None, self.config.vocab_size, self.config.n_ctx)
        y: Tensor = self.unembed(self.final_scale(self.stream(tokens)))
        return y

    def stream(self, tokens: Tensor, read: Tensor | None = None) -> Tensor:
        """Compute the residual stream behind the last block, (batch, tokens, d_model).

        `read`, (batch, tokens), is which positions hold a token for the others; None: all.
        """
        x: Tensor = self.embed(tokens)
        for block in self.blocks:
            x = block(x, read)
        return x

    def next_logits(self, texts: Tensor, total: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG002
        """Return a function that runs all that was read for each new token; see `TextModel`."""
        so_far = [texts[:, :0]]

        def read_on(new: Tensor) -> Tensor:
            so_far.append(new)
            last = self.stream(torch.cat(so_far, dim=1))[:, -1]
            y: Tensor = self.unembed(self.final_scale(last))
            return y

        return read_on

    def next_token_loss(self, texts: Tensor) -> Tensor:
        """Compute the mean cross-entropy of each token given those before it, in nats."""
        check_tokens(texts, None, self.config.vocab_size, self.config.n_ctx + 1)
        x = self.final_scale(self.stream(texts[:, :-1]))
        return mean_cross_entropy(
            x.flatten(0, 1), self.unembed.weight, texts[:, 1:].flatten().long()
        )

    @property
    def mlps(self) -> list[BilinearMLP]:
        """The MLP of each block, which reads the stream times the scale of each channel."""
        return [block.mlp for block in self.blocks if isinstance(block, PolynomialBlock)]

    def weights(self) -> PolynomialNetwork:
        """Read the weights as a `PolynomialNetwork` in float64, not compared with a run.

        Raises: UsageError if a part was replaced by another kind of part.
        """
        check_parts(self)
        parts: list[Part] = []
        names: list[str] = []
        for number, block in enumerate(self.blocks):
            assert isinstance(block, PolynomialBlock), "blocks are made above"
            parts += [attention_of(block), mlp_of(block)]
            names += [f"attention {number}", f"mlp {number}"]
        head = self.unembed.weight.detach().double() * scale_of(self.final_scale)
        return PolynomialNetwork(
            tuple(parts),
            self.embed.weight.detach().double(),
            head,
            n_ctx=self.config.n_ctx,
            part_names=tuple(names),
        )


def start_at_useful_sizes(module: PolynomialTransformer) -> None:
    """Draw weights with which every part adds something to the stream, and none more than it holds.

    Math: no norm sees to sizes, and the degree is high: small weights leave products below
        rounding, large ones overflow, the sooner the deeper. Embeddings have entries of
        START_EMBEDDING, which scales bring to about 1, and maps keep that size. The attention is
        of degree 2 · pairs + 1 in its scale s, and s^degree = 1/span, so that what the positions
        add is a mean, even where all hold one token: the span is n_ctx, or with a decay r the
        geometric mean of the heads' 1/r. What is added is smaller by √(2 · n_layer), as in GPT-2,
        and by START_MLP² behind an MLP.
    """
    config = module.config
    adds = START_EMBEDDING / math.sqrt(2 * config.n_layer)
    for name, weight in module.named_parameters():
        if name.endswith("attention_scale.scale"):
            power = -1 / (2 * config.pairs + 1)
            nn.init.constant_(weight, config.span**power / START_EMBEDDING)
        elif name.endswith("scale"):
            size = START_MLP if name.endswith("mlp_scale.scale") else 1.0
            nn.init.constant_(weight, size / START_EMBEDDING)
        elif name == "embed.weight":
            nn.init.normal_(weight, std=START_EMBEDDING)
        else:
            by = adds if name.endswith(("attention.out.weight", "mlp.down.weight")) else 1.0
            nn.init.normal_(weight, std=by / math.sqrt(weight.shape[1]))


def check_parts(module: PolynomialTransformer) -> None:
    """Refuse parts in the place of those that the transformer is built with."""
    with torch.device("meta"):
        expected = dict(PolynomialTransformer(**asdict(module.config)).named_modules())
    there = dict(module.named_modules())
    for name, built in expected.items():
        part = there.get(name)
        if isinstance(built, BilinearMLP) and isinstance(part, BilinearMLP):
            continue  # reads itself, and refuses a gate
        if isinstance(built, nn.Linear) and ".mlp." in name:
            continue
        if name and (part is None or type(part).forward is not type(built).forward):
            what = "missing" if part is None else f"a {type(part).__name__}"
            raise UsageError(
                f"{name} is {what}; expected the {type(built).__name__} that a "
                "PolynomialTransformer is built with: what another part does, such as a norm, an "
                "adapter or a softmax, is not read."
            )
        if isinstance(built, nn.Linear) and isinstance(part, nn.Linear):
            check_linear(name, part, bias=False)


def attention_of(block: PolynomialBlock) -> BilinearAttention:
    """Read the attention of a block; its scale is folded into what reads the stream."""
    part = block.attention
    pairs = tuple(
        QueryKeyPair(linear_weight(query), linear_weight(key))
        for query, key in zip(part.queries, part.keys, strict=True)
    )
    value, out = linear_weight(part.value), linear_weight(part.out)
    config, decay = part.config, part.config.rates(value)
    found = BilinearAttention(pairs, value, out, config.n_head, config.rotary_base, decay)
    return found.scaled(scale_of(block.attention_scale))


def mlp_of(block: PolynomialBlock) -> QuadraticLayer:
    """Read the MLP of a block; its scale is folded into what reads the stream."""
    scale = torch.diag(scale_of(block.mlp_scale))
    f = block.mlp.quadratic_map().detach().to(torch.float64)
    return QuadraticLayer(f.compose_input(scale))


def scale_of(part: ChannelScale) -> Tensor:
    """Return the scale of each channel in float64: it is multiplied into weights there."""
    return part.scale.detach().double()


def linear_weight(part: nn.Module) -> Tensor:
    """Return the weight of a linear map in float64, without a graph of gradients."""
    assert isinstance(part, nn.Linear), "maps are made above; a comparison with the run follows"
    return part.weight.detach().double()
