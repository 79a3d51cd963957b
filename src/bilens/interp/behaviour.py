"""The behaviour that goes with a latent, and whether directions at the input of an MLP cause it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import random_frame
from bilens.interp.contrasts import opposed_directions, weighted_space
from bilens.interp.interventions import (
    Edit,
    InputDirections,
    Kind,
    SignFlip,
    Where,
    ablation,
    causal_check,
    share_of,
    sign_flip,
    steering,
)
from bilens.interp.traced_layer import LatentReader, TokensAtEnds
from bilens.nn.transformer import BilinearTransformer
from bilens.records.mlp_trace import CausalCheck
from bilens.train.randomness import drawn_rows

Shares: TypeAlias = dict[Kind, float]  # of a behaviour, that changed directions remove or create

MOST_POSITIONS = 200  # at which the latent is active, and as many at which it is not
LEAST_POSITIONS = 10
DIRECTIONS = 2  # the leading eigenvectors, the paper's choice
NUM_RANDOM = 20
MOST_BLOCKS = 64  # texts that are run, drawn
COMPARED_TOKENS = 3  # at each end, whose logits a causal check compares
ACTIVE_SHARE = 0.1  # of the tokens, at which an output direction counts as active


def positions_of_latent(activations: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return where a latent is most active, and as many random positions where it is not."""
    values = pad_first_tokens(activations)
    on = strongest(values)[:MOST_POSITIONS]
    inactive = (values == 0).nonzero()[:, 0]
    off = inactive[
        torch.randperm(len(inactive), generator=generator)[: len(on)].to(inactive.device)
    ]
    return on[: len(off)], off


def positions_of_contrast(first: Tensor, second: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return where one latent is most active and another is not, and the other way round."""
    one, other = pad_first_tokens(first), pad_first_tokens(second)
    tokens = blocks.flatten()
    on = number_occurrences(strongest(one.where(other <= 0, -1.0)), tokens)
    off = number_occurrences(strongest(other.where(one <= 0, -1.0)), tokens)
    kept = [key for key in on if key in off][:MOST_POSITIONS]
    found = torch.tensor([(on[key], off[key]) for key in kept], dtype=torch.long).view(-1, 2)
    return found[:, 0], found[:, 1]


def pad_first_tokens(activations: Tensor) -> Tensor:
    """Return activations of all tokens, (texts · length,): below zero at each first one."""
    return functional.pad(activations, (1, 0), value=-1.0).flatten()


def strongest(values: Tensor) -> Tensor:
    """Return the positions of the values above zero, by falling value."""
    order = values.argsort(descending=True, stable=True)
    return order[: int((values > 0).sum())]


def number_occurrences(found: Tensor, tokens: Tensor) -> dict[tuple[int, int], int]:
    """Return (token, how often it came before) → position, in the order of the positions."""
    seen: Counter[int] = Counter()
    named = {}
    for position, token in zip(found.tolist(), tokens[found].tolist(), strict=True):
        named[token, seen[token]] = position
        seen[token] += 1
    return named


def separating_tokens(
    model: BilinearTransformer, blocks: Tensor, on: Tensor, off: Tensor, num: int
) -> tuple[list[int], list[int]]:
    """Return the tokens whose mean probability differs most between two kinds of positions."""
    with torch.no_grad():
        logits = model(blocks).flatten(0, 1).float()
    difference = logits[on].softmax(dim=-1).mean(dim=0) - logits[off].softmax(dim=-1).mean(dim=0)
    num = min(num, len(difference) // 2)
    return difference.topk(num).indices.tolist(), (-difference).topk(num).indices.tolist()


@dataclass(frozen=True, eq=False)
class InputChange:
    """Directions of the input of an MLP that are removed, or along which it is moved."""

    along: InputDirections
    random: list[InputDirections]
    where: Where
    sign_flip: SignFlip | None = None


def eigen_change(
    pairs: EigenDecomposition, inputs: Tensor, generator: torch.Generator
) -> InputChange:
    """Return the leading eigenvectors of an output, to be changed at every token."""
    vectors = pairs.eigenvectors[:DIRECTIONS]
    mean, values = inputs.mean(dim=0), pairs.eigenvalues[:DIRECTIONS]
    frames = [random_frame(len(mean), len(vectors), generator).T for _ in range(NUM_RANDOM)]
    frames = [frame.to(mean) for frame in frames]
    return InputChange(
        InputDirections(vectors, vectors, mean, values),
        [InputDirections(vectors, frame, mean, values) for frame in frames],
        lambda x: torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device),
    )


def contrast_change(
    g: QuadraticMap,
    pair: tuple[int, int],
    inputs: Tensor,
    activations: Tensor,
    where: Where,
    generator: torch.Generator,
) -> InputChange:
    """Return the product that decides between two outputs, to be changed where one is active."""
    first, second = pair
    along = opposed_directions(g, first, second, inputs, activations)
    space = weighted_space(g, first, second, inputs, activations)
    random = [space.random(len(along.readers), generator) for _ in range(NUM_RANDOM)]
    flip = sign_flip(g, first, second, along) if len(along.readers) == 2 else None
    return InputChange(along, random, where, flip)


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """A difference of logits, at tokens with the behaviour and at tokens without."""

    logits: Callable[[Edit | None], Tensor]  # (texts, length, tokens), what an MLP reads edited
    blocks: Tensor  # (texts, length) that are run
    high: list[int]
    low: list[int]
    on: Tensor  # (n,), positions with the behaviour, among texts · length
    off: Tensor  # (n,), as many without
    elsewhere: Tensor  # (texts, length) bool, tokens that have nothing to do with it, for the loss

    def measure(self, edit: Edit | None = None) -> tuple[Tensor, Tensor, float]:
        """Return the difference of logits at both kinds of positions, and the loss elsewhere."""
        with torch.no_grad():
            logits = self.logits(edit).float()
        difference = logits[..., self.high].mean(dim=-1) - logits[..., self.low].mean(dim=-1)
        losses = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), self.blocks[:, 1:].flatten(), reduction="none"
        ).view(len(self.blocks), -1)
        loss = float(losses[self.elsewhere[:, :-1]].double().mean())
        flat = difference.flatten().double()
        return flat[self.on], flat[self.off], loss


@dataclass(frozen=True, eq=False)
class Trial:
    """Directions that are changed, and a behaviour in the unchanged model that they may cause."""

    behaviour: LogitDifference
    change: InputChange
    shift: Tensor  # between the mean inputs of both kinds of positions, along the directions
    on: Tensor  # the behaviour at positions with it, in logits
    off: Tensor  # and at those without
    loss: float

    @classmethod
    def measure(cls, behaviour: LogitDifference, change: InputChange, inputs: Tensor) -> Trial:
        """Measure a behaviour; `inputs` (texts, length − 1, in) of the MLP that is changed."""
        rows = functional.pad(inputs, (0, 0, 1, 0)).flatten(0, 1)
        moved = rows[behaviour.on].mean(dim=0) - rows[behaviour.off].mean(dim=0)
        return cls(behaviour, change, moved @ change.along.readers.T, *behaviour.measure())

    @property
    def before(self) -> Tensor:
        return self.on - self.off.mean()

    @property
    def creating(self) -> Kind:
        return "steer" if self.change.sign_flip is None else "sign_flip"

    def removed(self, directions: InputDirections) -> tuple[Tensor, float]:
        """Remove directions; return the behaviour that is left, and the loss elsewhere."""
        edit = ablation(directions, self.change.where)
        left, level, loss = self.behaviour.measure(edit)
        return left - level.mean(), loss

    def created(self, directions: InputDirections) -> Tensor:
        """Move along directions where the behaviour is absent; return how much of it appears."""
        if self.change.sign_flip is None:
            edit = steering(directions, self.shift, self.change.where)
        else:
            edit = self.change.sign_flip.edit(directions.patterns, self.change.where)
        return self.behaviour.measure(edit)[1] - self.off

    def shares(self, create: bool = True) -> Shares:
        """Return the shares that are removed and created; none of what is not told from zero."""
        mean, spread = self.before.mean(), self.before.std() / len(self.before) ** 0.5
        if float(mean) <= 2 * float(spread):
            return {}
        after: dict[Kind, Tensor] = {"ablate": self.removed(self.change.along)[0]}
        if create:
            after[self.creating] = self.created(self.change.along)
        return {kind: float(share_of(kind, mean, part.mean())) for kind, part in after.items()}

    def checks(
        self, generator: torch.Generator, null: Sequence[Shares], create: bool = True
    ) -> tuple[CausalCheck, ...]:
        """Test removal and (`create`) creation, beside random directions and `null`.

        `null` holds the shares of the same steps, once for each random dictionary.
        """
        if float(self.before.mean()) <= 0:
            return ()
        size, losses = len(self.change.along.readers), None
        after, loss_after = self.removed(self.change.along)
        if bool(self.behaviour.elsewhere[:, :-1].any()):  # else there is no other text
            losses = self.loss, loss_after
        left = [self.removed(frame)[0] for frame in self.change.random]
        shares = [one.get("ablate") for one in null]
        ablated = causal_check(
            "ablate", size, self.before, after, left, generator, losses, null=shares
        )
        if not create:
            return (ablated,)
        kind, created = self.creating, self.created(self.change.along)
        raised = [self.created(frame) for frame in self.change.random]
        shares = [one.get(kind) for one in null]
        return ablated, causal_check(
            kind, size, self.before, created, raised, generator, null=shares
        )


def trial_of_latents(
    reader: LatentReader,
    tokens: TokensAtEnds | None,
    latents: tuple[int, int | None],
    change: Callable[[torch.Generator], InputChange],
) -> Trial | None:
    """Return the trial of directions that may cause what goes with a latent, or with one of two.

    `tokens` are those whose logits are compared; None takes those that tell the latents apart.
    None where a latent is active too rarely.
    """
    chosen = drawn_rows(len(reader.text.blocks), MOST_BLOCKS, reader.options.seed)
    blocks = reader.text.blocks[chosen]
    length, generator = blocks.shape[1] - 1, reader.generator

    def values(latent: int) -> Tensor:
        return reader.activations[:, latent].reshape(-1, length)[chosen]

    first = values(latents[0])
    inactive = first <= 0
    if latents[1] is None:
        on, off = positions_of_latent(first, generator)
    else:
        second = values(latents[1])
        on, off = positions_of_contrast(first, second, blocks)
        inactive = inactive & (second <= 0)
    if len(on) < LEAST_POSITIONS:
        return None
    module = reader.layer.module
    if tokens is None:
        high, low = separating_tokens(module, blocks, on, off, COMPARED_TOKENS)
    else:
        high, low = compared_tokens(tokens)
    elsewhere = functional.pad(inactive, (1, 0), value=False)

    def logits(edit: Edit | None) -> Tensor:
        replace: Mapping[str, Edit] = {} if edit is None else {reader.before.hook: edit}
        return module.run(blocks, replace=replace)[0]

    behaviour = LogitDifference(logits, blocks, high, low, on, off, elsewhere)
    inputs = reader.inputs.view(-1, length, reader.inputs.shape[1])[chosen]
    return Trial.measure(behaviour, change(generator), inputs)


def trial_of_direction(
    logits: Callable[[Edit | None], Tensor],
    blocks: Tensor,
    inputs: Tensor,
    values: Tensor,
    pairs: EigenDecomposition,
    tokens: TokensAtEnds,
    generator: torch.Generator,
) -> Trial | None:
    """Return the trial of leading eigenvectors that may cause what goes with an output direction.

    `inputs` (texts, length − 1, in) and `values` (texts, length − 1) of the output are without
    each first token; the behaviour is at the tokens with the largest values.
    """
    active = (values - values.flatten().quantile(1 - ACTIVE_SHARE)).clamp(min=0)
    on, off = positions_of_latent(active, generator)
    if len(on) < LEAST_POSITIONS:
        return None
    elsewhere = functional.pad(active <= 0, (1, 0), value=False)
    high, low = compared_tokens(tokens)
    behaviour = LogitDifference(logits, blocks, high, low, on, off, elsewhere)
    return Trial.measure(behaviour, eigen_change(pairs, inputs.flatten(0, 1), generator), inputs)


def compared_tokens(tokens: TokensAtEnds) -> tuple[list[int], list[int]]:
    """Return the few tokens at both ends whose logits a causal check compares."""
    high, low = (
        [score.token for score in end[:COMPARED_TOKENS]] for end in (tokens.high, tokens.low)
    )
    return high, low
