"""Random streams that are named, not consumed: each step of a run has its own.

No generator is carried from step to step, so that a resumed run needs no state of any generator
and cannot differ from the uninterrupted one.
"""

from __future__ import annotations

import numpy as np
import torch

INITIALISATION, ORDER, NOISE, STEP = range(4)  # what a stream is for


def stream(seed: int, *path: int) -> torch.Generator:
    """Return the generator of a place in the run, for example (seed, STEP, epoch, step)."""
    (word,) = np.random.SeedSequence(seed, spawn_key=path).generate_state(1)
    return torch.Generator().manual_seed(int(word))  # torch's CPU generator uses 32 bits of it
