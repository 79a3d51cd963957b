"""The behaviour that goes with a latent, and whether directions at the input of an MLP cause it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

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
    SignFlip,
    Where,
    ablation,
    causal_check,
    sign_flip,
    steering,
)
from bilens.interp.traced_layer import LatentReader, TokenEffect
from bilens.nn.transformer import BilinearTransformer
from bilens.records.trace import CausalCheck

MOST_POSITIONS = 200  # at which the latent is active, and as many at which it is not
LEAST_POSITIONS = 10
DIRECTIONS = 2  # the leading eigenvectors, the paper's choice
NUM_RANDOM = 20
MOST_BLOCKS = 64  # texts that are run
COMPARED_TOKENS = 3  # at each end, whose logits a causal check compares
ACTIVE_SHARE = 0.1  # of the tokens, at which an output direction counts as active


def positions_of_latent(activations: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return where a latent is most active, and as many random positions where it is not."""
    values = padded(activations)
    on = strongest(values)[:MOST_POSITIONS]
    inactive = (values == 0).nonzero()[:, 0]
    off = inactive[
        torch.randperm(len(inactive), generator=generator)[: len(on)].to(inactive.device)
    ]
    return on[: len(off)], off


def positions_of_contrast(first: Tensor, second: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return where one latent is most active and another is not, and the other way round."""
    one, other = padded(first), padded(second)
    tokens = blocks.flatten()
    on = numbered(strongest(one.where(other <= 0, -1.0)), tokens)
    off = numbered(strongest(other.where(one <= 0, -1.0)), tokens)
    kept = [key for key in on if key in off][:MOST_POSITIONS]
    found = torch.tensor([(on[key], off[key]) for key in kept], dtype=torch.long).view(-1, 2)
    return found[:, 0], found[:, 1]


def padded(activations: Tensor) -> Tensor:
    """Return activations of all tokens, (texts · length,): below zero at each first one."""
    return functional.pad(activations, (1, 0), value=-1.0).flatten()


def strongest(values: Tensor) -> Tensor:
    """Return the positions of the values above zero, by falling value."""
    order = values.argsort(descending=True, stable=True)
    return order[: int((values > 0).sum())]


def numbered(found: Tensor, tokens: Tensor) -> dict[tuple[int, int], int]:
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
class Change:
    """Directions of the input of an MLP that are removed, or along which it is moved."""

    along: InputDirections
    random: list[InputDirections]
    where: Where
    sign_flip: SignFlip | None = None


def eigen_change(pairs: EigenDecomposition, inputs: Tensor, generator: torch.Generator) -> Change:
    """Return the leading eigenvectors of an output, to be changed at every token."""
    vectors = pairs.eigenvectors[:DIRECTIONS]
    mean, values = inputs.mean(dim=0), pairs.eigenvalues[:DIRECTIONS]
    frames = [random_frame(len(mean), len(vectors), generator).T for _ in range(NUM_RANDOM)]
    frames = [frame.to(mean) for frame in frames]
    return Change(
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
) -> Change:
    """Return the product that decides between two outputs, to be changed where one is active."""
    first, second = pair
    along = opposed_directions(g, first, second, inputs, activations)
    space = weighted_space(g, first, second, inputs, activations)
    random = [space.random(len(along.readers), generator) for _ in range(NUM_RANDOM)]
    flip = sign_flip(g, first, second, along) if len(along.readers) == 2 else None
    return Change(along, random, where, flip)


@dataclass(frozen=True, eq=False)
class Behaviour:
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


def causal_checks(
    behaviour: Behaviour,
    change: Change,
    inputs: Tensor,
    generator: torch.Generator,
    create: bool = True,
) -> tuple[CausalCheck, ...]:
    """Return what happens when directions are removed, and (`create`) when they are added."""
    rows = functional.pad(inputs, (0, 0, 1, 0)).flatten(0, 1)
    moved = rows[behaviour.on].mean(dim=0) - rows[behaviour.off].mean(dim=0)
    shift = moved @ change.along.readers.T
    on, off, loss = behaviour.measure()
    before = on - off.mean()
    if float(before.mean()) <= 0:
        return ()

    def removed(directions: InputDirections) -> tuple[Tensor, float]:
        left, level, loss_after = behaviour.measure(ablation(directions, change.where))
        return left - level.mean(), loss_after

    def created(directions: InputDirections) -> Tensor:
        if change.sign_flip is None:
            edit = steering(directions, shift, change.where)
        else:
            edit = change.sign_flip.edit(directions.patterns, change.where)
        return behaviour.measure(edit)[1] - off

    after, loss_after = removed(change.along)
    size, losses = len(change.along.readers), None
    if bool(behaviour.elsewhere[:, :-1].any()):  # else there is no other text
        losses = loss, loss_after
    left = [removed(frame)[0] for frame in change.random]
    ablated = causal_check("ablate", size, before, after, left, generator, losses)
    if not create:
        return (ablated,)
    kind: Literal["steer", "sign_flip"] = "steer" if change.sign_flip is None else "sign_flip"
    raised = [created(frame) for frame in change.random]
    return ablated, causal_check(kind, size, before, created(change.along), raised, generator)


@dataclass(frozen=True)
class CausalEffect:
    """Whether directions cause a difference of logits; no check where there is none."""

    high: list[int]  # tokens whose logits are compared ...
    low: list[int]  # ... with those of these
    checks: tuple[CausalCheck, ...] = ()


def causal_effect(
    reader: LatentReader,
    tokens: TokenEffect | None,
    latents: tuple[int, int | None],
    change: Callable[[torch.Generator], Change],
) -> CausalEffect:
    """Return whether directions cause the difference of logits that goes with a latent."""
    blocks = reader.text.blocks[:MOST_BLOCKS]
    length, generator = reader.text.blocks.shape[1] - 1, reader.generator

    def values(latent: int) -> Tensor:
        return reader.activations[: len(blocks) * length, latent].view(-1, length)

    first = values(latents[0])
    inactive = first <= 0
    if latents[1] is None:
        on, off = positions_of_latent(first, generator)
    else:
        second = values(latents[1])
        on, off = positions_of_contrast(first, second, blocks)
        inactive = inactive & (second <= 0)
    if len(on) < LEAST_POSITIONS:
        return CausalEffect([], [])
    module = reader.layer.module
    if tokens is None:
        high, low = separating_tokens(module, blocks, on, off, COMPARED_TOKENS)
    else:
        high, low = (
            [score.token for score in end[:COMPARED_TOKENS]]
            for end in (tokens.promoted, tokens.suppressed)
        )
    elsewhere = functional.pad(inactive, (1, 0), value=False)

    def logits(edit: Edit | None) -> Tensor:
        replace: Mapping[str, Edit] = {} if edit is None else {reader.before.hook: edit}
        return module.run(blocks, replace=replace)[0]

    behaviour = Behaviour(logits, blocks, high, low, on, off, elsewhere)
    inputs = reader.inputs.view(-1, length, reader.inputs.shape[1])[: len(blocks)]
    return CausalEffect(high, low, causal_checks(behaviour, change(generator), inputs, generator))


def direction_effect(
    logits: Callable[[Edit | None], Tensor],
    blocks: Tensor,
    inputs: Tensor,
    values: Tensor,
    pairs: EigenDecomposition,
    tokens: TokenEffect,
    generator: torch.Generator,
) -> CausalEffect:
    """Return what is lost of what goes with an output direction without leading eigenvectors.

    `inputs` (texts, length − 1, in) and `values` (texts, length − 1) of the output are without
    each first token; the behaviour is at the tokens with the largest values.
    """
    active = (values - values.flatten().quantile(1 - ACTIVE_SHARE)).clamp(min=0)
    on, off = positions_of_latent(active, generator)
    if len(on) < LEAST_POSITIONS:
        return CausalEffect([], [])
    high, low = (
        [score.token for score in end[:COMPARED_TOKENS]]
        for end in (tokens.promoted, tokens.suppressed)
    )
    elsewhere = functional.pad(active <= 0, (1, 0), value=False)
    behaviour = Behaviour(logits, blocks, high, low, on, off, elsewhere)
    change = eigen_change(pairs, inputs.flatten(0, 1), generator)
    checks = causal_checks(behaviour, change, inputs, generator, create=False)
    return CausalEffect(high, low, checks)
