"""Noise while training: on the input (from a pool), and on the activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilens.nn import BilinearClassifier
from bilens.train.randomness import NOISE, STEP, stream

POOL_EXTRA = 1 << 20  # places at which a batch of noise can begin


@dataclass(frozen=True, eq=False)
class NoisePool:
    """Gaussian noise of one epoch, drawn once; each step reads it from another random place.

    Drawing fresh normals for every pixel costs about as much as the forward pass. Within a
    batch all values are independent; between the steps of an epoch they are shifted copies.
    """

    values: Tensor
    batch_shape: tuple[int, int]

    @classmethod
    def draw(
        cls, std: float, batch_shape: tuple[int, int], dtype: torch.dtype, seed: int, epoch: int
    ) -> NoisePool:
        """Return the pool of an epoch."""
        size = batch_shape[0] * batch_shape[1] + POOL_EXTRA
        values = torch.randn(size, generator=stream(seed, NOISE, epoch)) * std
        return cls(values.to(dtype), batch_shape)

    def batch(self, generator: torch.Generator) -> Tensor:
        """Return noise for one batch."""
        start = int(torch.randint(POOL_EXTRA, (1,), generator=generator))
        size = self.batch_shape[0] * self.batch_shape[1]
        return self.values[start : start + size].view(self.batch_shape)


class ActivationNoise:
    """Adds Gaussian noise to, and drops entries of, the embedding and the layer outputs.

    The generator is set for each step, so that a step does not depend on the ones before it.
    """

    def __init__(self, std: float, dropout: float) -> None:
        self.std = std
        self.dropout = dropout
        self.generator = torch.Generator()

    def start_step(self, seed: int, epoch: int, step: int) -> None:
        """Use the stream of this step from here on."""
        self.generator = stream(seed, STEP, epoch, step, 1)

    def __call__(self, module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        """Return the output of a module, disturbed in training mode: a forward hook."""
        if not module.training:  # the test set is read without noise
            return output
        if self.std > 0:
            noise = torch.randn(output.shape, generator=self.generator)
            output = output + self.std * noise.to(output.device)
        if self.dropout > 0:
            kept = torch.rand(output.shape, generator=self.generator) >= self.dropout
            output = output * kept.to(output.device) / (1 - self.dropout)
        return output


@contextmanager
def activation_noise(
    model: BilinearClassifier, std: float, dropout: float
) -> Iterator[ActivationNoise]:
    """Disturb the activations of a classifier inside the block; see `disturbed`."""
    with disturbed((model.embed, *model.layers), std, dropout) as noise:
        yield noise


@contextmanager
def disturbed(
    modules: Iterable[nn.Module], std: float, dropout: float
) -> Iterator[ActivationNoise]:
    """Disturb the outputs of modules inside the block, and leave them as they were afterwards."""
    noise = ActivationNoise(std, dropout)
    with ExitStack() as stack:
        if std > 0 or dropout > 0:
            for module in modules:
                handle = module.register_forward_hook(noise)
                stack.callback(handle.remove)
        yield noise
