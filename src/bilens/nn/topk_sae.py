"""The top-k sparse autoencoder: activations of a layer as few named directions each."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.base.option_rules import Sign as Sign
from bilens.nn.sparse_autoencoder import SparseAutoencoder, TopLatents, code_transposed_times


class TopKSAE(SparseAutoencoder):
    """x ≈ (decoderᵀ z + decoder_bias) / scale, where z keeps the k largest pre-activations.

    Math:
        pre = encoder (scale·x − decoder_bias) + encoder_bias
        z   = relu(pre) on the k largest entries of pre, 0 elsewhere    with sign="relu"
        z   = pre       on the k largest entries of pre, 0 elsewhere    with sign="raw"
    Choosing first and applying relu afterwards gives the same z as the other way round. Of equal
    pre-activations the latent that comes first is kept, whatever device or batch they are in.

    `scale` brings activations to a mean squared norm of d_in, the unit that training works in;
    `folded` gives the same function in the units of the layer.

    Cost: a dense product, O(rows · d_in · num_latents) time and O(rows · num_latents) memory;
    the way back touches k rows of the decoder for an input.

    Args:
        d_in: width of the activations.
        num_latents: number of directions in the dictionary.
        k: how many of them an input keeps, below `num_latents`.
        sign: what happens to a negative pre-activation among the k largest: "relu" sets it to
            zero, "raw" keeps it, as the paper's code does.
        d_out: of a transcoder, the width of what it writes; None for an autoencoder.
        skip: whether a transcoder adds a linear function of what it reads.

    Raises: UsageError if a size is not a positive integer, k is not below `num_latents`, or the
        sign is neither.

    Source: arXiv:2406.04093; `sign="raw"` is the SAE of arXiv:2410.08417.
    """

    def __init__(
        self,
        d_in: int,
        num_latents: int,
        k: int,
        *,
        sign: Sign = "relu",
        d_out: int | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__(d_in, num_latents, d_out, skip)
        self.k = check_count("k", k, minimum=1)
        if self.k >= self.num_latents:
            raise UsageError(
                f"k is {self.k} and num_latents is {self.num_latents}: an input keeps fewer "
                "latents than there are; choose a smaller k or more latents."
            )
        if sign not in get_args(Sign):
            raise UsageError(f'sign={sign!r} is not known: use "relu" or "raw".')
        self.sign: Sign = sign

    def arguments(self) -> dict[str, Any]:
        """Return the sizes, as the constructor takes them."""
        return {**super().arguments(), "k": self.k, "sign": self.sign}

    def top(self, x: Tensor) -> TopLatents:
        """Return the k latents that each input keeps, (..., d_in) → two of (..., k).

        Raises: as `pre_activations`.
        """
        x = self.centred(x)
        values, indices = chosen_pre_activations(
            x.reshape(-1, self.d_in),
            self.encoder.to(x.dtype),
            self.encoder_bias.to(x.dtype),
            self.k,
        )
        if self.sign == "relu":
            values = functional.relu(values)
        shape = (*x.shape[:-1], self.k)
        return TopLatents(values.reshape(shape), indices.reshape(shape))


def chosen_pre_activations(
    x: Tensor, encoder: Tensor, bias: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the k largest entries of encoder·x + bias of each row, and where, with gradients."""
    values, indices = _Chosen.apply(x, encoder, bias, k)  # type: ignore[no-untyped-call]
    return values, indices


class _Chosen(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder: Tensor, bias: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        values, indices = largest(functional.linear(x, encoder, bias), k)
        ctx.save_for_backward(x, encoder, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _no_grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, encoder, indices = ctx.saved_tensors
        grad_x = grad_encoder = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = functional.embedding_bag(indices, encoder, per_sample_weights=grad, mode="sum")
        if ctx.needs_input_grad[1]:
            grad_encoder = code_transposed_times(grad, indices, x, len(encoder))
        if ctx.needs_input_grad[2]:
            grad_bias = grad.new_zeros(len(encoder))
            grad_bias.index_add_(0, indices.reshape(-1), grad.reshape(-1))
        return grad_x, grad_encoder, grad_bias, None


GROUP_SIZES = (8, 4, 2)
GROUPS_PER_VALUE = 4  # with fewer groups, nearly all of them hold one of the largest values


@torch.no_grad()
def largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of the last axis, falling, and where; of equals, the first."""
    values, indices = _any_largest(rows, k + 1)
    tied = (values[..., 1:] == values[..., :-1]).any(dim=-1)
    values, indices = values[..., :k], indices[..., :k]
    if bool(tied.any()):
        first = rows[tied].sort(dim=-1, descending=True, stable=True)
        values, indices = values.clone(), indices.clone()
        values[tied], indices[tied] = first.values[:, :k], first.indices[:, :k]
    return values, indices


def _any_largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest, falling, and where; of equals, any."""
    n = rows.shape[-1]
    size = next((s for s in GROUP_SIZES if n % s == 0 and n // s >= GROUPS_PER_VALUE * k), 1)
    if size == 1 or rows.device.type != "cpu":
        values, indices = rows.topk(k, dim=-1)
        return values, indices
    maxima = rows.reshape(*rows.shape[:-1], size, n // size).amax(dim=-2)
    groups = maxima.topk(k, dim=-1, sorted=False).indices
    members = torch.arange(0, n, n // size).unsqueeze(1)
    candidates = (groups.unsqueeze(-2) + members).flatten(-2)
    values, chosen = rows.gather(-1, candidates).topk(k, dim=-1)
    return values, candidates.gather(-1, chosen)
