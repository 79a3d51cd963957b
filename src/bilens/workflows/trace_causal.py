"""Whether directions at the input of an MLP cause what an output latent goes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import random_frame
from bilens.interp.causal import Where, ablation, causal_check, steering
from bilens.interp.contrasts import contrast_directions, weighted_space
from bilens.interp.records import CausalCheck, InputDirections
from bilens.nn.hooks import Edit
from bilens.nn.transformer import BilinearTransformer

DIRECTIONS = 2  # the leading eigenvectors, the paper's choice
MOST_PLACES = 200  # tokens at which the latent is active, and as many at which it is not
LEAST_PLACES = 10
MOST_BLOCKS = 64  # texts that are run
NUM_RANDOM = 20


@dataclass(frozen=True, eq=False)
class Behaviour:
    """A difference of logits, at tokens with the behaviour and at tokens without.

    Attributes:
        model: the model.
        hook: where the MLP reads.
        blocks: (texts, length) that are run.
        high: tokens whose mean logit is compared ...
        low: ... with that of these.
        on: (n,), places with the behaviour, among texts · length.
        off: (n,), as many without.
        elsewhere: (texts, length) bool, tokens that have nothing to do with it, for the loss.
    """

    model: BilinearTransformer
    hook: str
    blocks: Tensor
    high: list[int]
    low: list[int]
    on: Tensor
    off: Tensor
    elsewhere: Tensor

    def measure(self, edit: Edit | None = None) -> tuple[Tensor, Tensor, float]:
        """Return the difference of logits at both kinds of places, and the loss elsewhere."""
        replace: Mapping[str, Edit] = {} if edit is None else {self.hook: edit}
        with torch.no_grad():
            logits, _ = self.model.run(self.blocks, replace=replace)
        logits = logits.float()
        difference = logits[..., self.high].mean(dim=-1) - logits[..., self.low].mean(dim=-1)
        losses = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), self.blocks[:, 1:].flatten(), reduction="none"
        ).view(len(self.blocks), -1)
        loss = float(losses[self.elsewhere[:, :-1]].double().mean())
        flat = difference.flatten().double()
        return flat[self.on], flat[self.off], loss


def places(
    activations: Tensor, other: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return where a latent is most active, and as many places where it is not.

    Args:
        activations: (texts, length − 1), of all but the first token of each text.
        other: the same of another latent, which is most active at the places without; None for
            random places without the first one.
        generator: draws these.

    Returns:
        Two of (n,), places among texts · length.
    """
    values, against = padded(activations), None if other is None else padded(other)
    if against is None:
        silent = (values == 0).nonzero()[:, 0]
        on = strongest(values)
        off = silent[torch.randperm(len(silent), generator=generator)[: len(on)]]
    else:
        on = strongest(values.where(against <= 0, -1.0))
        off = strongest(against.where(values <= 0, -1.0))
    num = min(len(on), len(off))
    return on[:num], off[:num]


def padded(activations: Tensor) -> Tensor:
    """Return activations of all tokens, (texts · length,): below zero at each first one."""
    return functional.pad(activations, (1, 0), value=-1.0).flatten()


def strongest(values: Tensor) -> Tensor:
    """Return the places of the largest values above zero, by falling value."""
    order = values.argsort(descending=True, stable=True)
    return order[: int((values > 0).sum())][:MOST_PLACES]


def separating_tokens(
    model: BilinearTransformer, blocks: Tensor, on: Tensor, off: Tensor, num: int
) -> tuple[list[int], list[int]]:
    """Return the tokens whose mean probability differs most between two kinds of places.

    Args:
        model: the model, unchanged.
        blocks: (texts, length).
        on: (n,), places among texts · length.
        off: (n,), other places.
        num: how many tokens of each kind.

    Returns:
        Those that are likelier at the first places, and those that are likelier at the others.
    """
    with torch.no_grad():
        logits = model(blocks).flatten(0, 1).float()
    difference = logits[on].softmax(dim=-1).mean(dim=0) - logits[off].softmax(dim=-1).mean(dim=0)
    num = min(num, len(difference) // 2)
    return difference.topk(num).indices.tolist(), (-difference).topk(num).indices.tolist()


@dataclass(frozen=True, eq=False)
class Change:
    """Directions of the input of an MLP that are removed, or along which it is moved.

    Attributes:
        along: the directions.
        random: as many others, by which inputs are moved as far.
        where: which inputs are changed.
    """

    along: InputDirections
    random: list[InputDirections]
    where: Where


def eigen_change(pairs: EigenDecomposition, inputs: Tensor, generator: torch.Generator) -> Change:
    """Return the leading eigenvectors of an output, to be changed at every token.

    Math: with rows V: x ← x − Vᵀ V (x − mean). In a random change a frame R takes the place of
        the outer Vᵀ alone, so that each input moves as far as in the real one.

    Args:
        pairs: of the output latent.
        inputs: (rows, in), what the MLP read.
        generator: draws the frames.
    """
    vectors = pairs.eigenvectors[:DIRECTIONS]
    mean, values = inputs.mean(dim=0), pairs.eigenvalues[:DIRECTIONS]
    frames = [random_frame(len(mean), len(vectors), generator).T for _ in range(NUM_RANDOM)]
    return Change(
        InputDirections(vectors, vectors, mean, values),
        [InputDirections(vectors, frame, mean, values) for frame in frames],
        everywhere,
    )


def contrast_change(
    g: QuadraticMap,
    pair: tuple[int, int],
    inputs: Tensor,
    activations: Tensor,
    where: Where,
    generator: torch.Generator,
) -> Change:
    """Return the leading directions of the difference of two outputs, where one of them speaks.

    Random directions are orthonormal in the space in which these inputs have unit covariance, as
    the real ones are.

    Args:
        g: the map to the output latents.
        pair: two of them.
        inputs: (rows, in), what the MLP read.
        activations: (rows, outputs), of the latents.
        where: tells at which inputs one of the two is active.
        generator: draws the random directions.
    """
    first, second = pair
    along = contrast_directions(g, first, second, inputs, activations, DIRECTIONS)
    space = weighted_space(g, first, second, inputs, activations)
    random = [space.random(len(along.readers), generator) for _ in range(NUM_RANDOM)]
    return Change(along, random, where)


def causal_values(
    behaviour: Behaviour, change: Change, inputs: Tensor, generator: torch.Generator
) -> tuple[CausalCheck, ...]:
    """Return what happens when directions are removed, and when they are added.

    "ablate" sets coordinates to their mean. "steer" moves them by the mean difference between
    the places with the behaviour and those without, and is seen at the latter.

    Cost: 2 · (NUM_RANDOM + 1) + 1 runs of the model.

    Args:
        behaviour: what is looked at.
        change: what is done.
        inputs: (texts, length − 1, in), what the MLP read, without each first token.
        generator: draws resamples.

    Returns:
        Nothing where there is no behaviour to begin with.
    """
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
        return behaviour.measure(steering(directions, shift, change.where))[1] - off

    after, loss_after = removed(change.along)
    size, losses = len(change.along.readers), (loss, loss_after)
    left = [removed(frame)[0] for frame in change.random]
    raised = [created(frame) for frame in change.random]
    return (
        causal_check("ablate", size, before, after, left, generator, losses),
        causal_check("steer", size, before, created(change.along), raised, generator),
    )


def everywhere(x: Tensor) -> Tensor:
    """Return that every input is changed."""
    return torch.ones(x.shape[:-1], dtype=torch.bool)
