"""Names of coordinates that weights define: equal names, the same coordinates."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def basis_of(kind: str, *weights: Tensor) -> str:
    """Return a kind of basis with a fingerprint of the weights that define it."""
    # What a first layer, or an embedding, makes of an input differs from model to model: numbers
    # in such coordinates may be compared only where the weights before them are the same.
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
    return f"{kind} {digest.hexdigest()[:8]}"
