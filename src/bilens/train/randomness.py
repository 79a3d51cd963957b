"""Randomness of a training: named streams, and the noise that is drawn from them.

No generator is carried from step to step: each step has a stream of its own, so that a resumed
run needs no state of any generator and cannot differ from the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

INITIALISATION, ORDER, NOISE, STEP = range(4)  # what a stream is for
POOL_EXTRA = 1 << 20  # places at which a batch of noise can begin


def stream(seed: int, *path: int) -> torch.Generator:
    """Return the generator of a place in the run, for example (seed, STEP, epoch, step)."""
    (word,) = np.random.SeedSequence(seed, spawn_key=path).generate_state(1)
    return torch.Generator().manual_seed(int(word))  # torch's CPU generator uses 32 bits of it


def drawn_rows(count: int, most: int, seed: int = 0) -> Tensor:
    """Return the numbers of at most so many of `count` rows, drawn with a seed, in their order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


@contextmanager
def seeded_initialisation(seed: int, *path: int) -> Iterator[None]:
    """Let modules built inside the block draw from a stream and not from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(stream(seed, INITIALISATION, *path).initial_seed())
        yield


@dataclass(frozen=True, eq=False)
class NoisePool:
    """Gaussian noise of one epoch, drawn once; each step reads it from another random place."""

    # fresh normals for every pixel cost about as much as the forward pass; within a batch all
    # values are independent, and between the steps of an epoch they are shifted copies

    values: Tensor
    batch_shape: tuple[int, int]

    @classmethod
    def draw(
        cls,
        stds: Iterable[float],
        batch_shape: tuple[int, int],
        like: Tensor,
        seed: int,
        epoch: int,
    ) -> dict[float, NoisePool]:
        """Return a pool for each standard deviation: the same draws, scaled."""
        size = batch_shape[0] * batch_shape[1] + POOL_EXTRA
        values = torch.randn(size, generator=stream(seed, NOISE, epoch))
        return {std: cls((values * std).to(like), batch_shape) for std in stds}

    def batch(self, generator: torch.Generator) -> Tensor:
        start = int(torch.randint(POOL_EXTRA, (1,), generator=generator))
        size = self.batch_shape[0] * self.batch_shape[1]
        return self.values[start : start + size].view(self.batch_shape)


class ActivationNoise:
    """Adds Gaussian noise to the outputs of modules in training mode, and drops entries of them."""

    def __init__(self, std: float, dropout: float) -> None:
        self.std, self.dropout = std, dropout
        self.generator = torch.Generator()

    def start_step(self, seed: int, epoch: int, step: int) -> None:
        self.generator = stream(seed, STEP, epoch, step, 1)

    @contextmanager
    def added_to(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            if self.std > 0 or self.dropout > 0:
                for module in modules:
                    stack.callback(module.register_forward_hook(self).remove)
            yield

    def __call__(self, module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        if not module.training:  # evaluation is without noise
            return output
        shape = output.shape[-2:]  # models that are trained side by side share the draws
        if self.std > 0:
            noise = torch.randn(shape, generator=self.generator)
            output = output + self.std * noise.to(output.device)
        if self.dropout > 0:
            kept = torch.rand(shape, generator=self.generator) >= self.dropout
            output = output * kept.to(output.device) / (1 - self.dropout)
        return output
