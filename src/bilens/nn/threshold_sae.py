"""A sparse autoencoder whose latents are kept above thresholds: JumpReLU, gated, ReLU."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from bilens.nn.sparse_autoencoder import SparseAutoencoder, TopLatents


class ThresholdSAE(SparseAutoencoder):
    """x ≈ (decoderᵀ z + decoder_bias) / scale, where z keeps what is above a threshold.

    Math:
        pre = encoder (scale·x − decoder_bias) + encoder_bias
        z_i = pre_i where pre_i > threshold_i, 0 elsewhere
    No threshold is below 0. With 0 it is a ReLU. A JumpReLU is one as it stands, BatchTopK after
    training one with the same threshold everywhere. A gated autoencoder, whose latent
    e^r w·x + m is on where w·x + g > 0, is one with max(0, m − e^r g).

    It is read from files and not trained here.

    Cost: a dense product, O(rows · d_in · num_latents) time and O(rows · num_latents) memory.

    Args:
        d_in: width of the activations.
        num_latents: number of directions in the dictionary.
        d_out: of a transcoder, the width of what it writes; None for an autoencoder.
        skip: whether a transcoder adds a linear function of what it reads.

    Raises: UsageError if a size is not a positive integer, or an autoencoder has a skip.

    Source: arXiv:2407.14435 (JumpReLU), arXiv:2404.16014 (gated), arXiv:2412.06410 (BatchTopK),
        arXiv:2406.11944 (transcoders), arXiv:2501.18823 (with a skip).
    """

    IN_ITS_UNITS: ClassVar = (*SparseAutoencoder.IN_ITS_UNITS, "threshold")
    threshold: Tensor

    def __init__(
        self, d_in: int, num_latents: int, *, d_out: int | None = None, skip: bool = False
    ) -> None:
        super().__init__(d_in, num_latents, d_out, skip)
        self.register_buffer("threshold", torch.zeros(self.num_latents))

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations z, dense, (..., d_in) → (..., num_latents).

        Raises: as `pre_activations`.
        """
        values = self.pre_activations(x)
        return torch.where(values > self.threshold.to(values.dtype), values, 0.0)

    def top(self, x: Tensor) -> TopLatents:
        """Return as many latents as the fullest input keeps; zeros fill up the others.

        Raises: as `pre_activations`.
        """
        z = self.encode(x)
        counts = (z > 0).sum(dim=-1)
        most = max(1, int(counts.max())) if counts.numel() else 1
        values, indices = z.topk(most, dim=-1)
        return TopLatents(values, indices)
