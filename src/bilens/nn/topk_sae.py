"""The top-k sparse autoencoder: activations of a layer as few named directions each."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.base.checks import check_count, check_finite
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.nn.sparse_product import chosen_pre_activations, code_times

Sign = Literal["relu", "raw"]


class TopLatents(NamedTuple):
    """The latents that an input keeps: the sparse form of `TopKSAE.encode`."""

    values: Tensor
    indices: Tensor


class TopKSAE(nn.Module):
    """x ≈ (decoderᵀ z + decoder_bias) / scale, where z keeps the k largest pre-activations.

    Math:
        pre = encoder (scale·x − decoder_bias) + encoder_bias
        z   = relu(pre) on the k largest entries of pre, 0 elsewhere    with sign="relu"
        z   = pre       on the k largest entries of pre, 0 elsewhere    with sign="raw"
    Choosing first and applying relu afterwards gives the same z as the other way round. Of equal
    pre-activations the latent that comes first is kept, whatever device or batch they are in.

    `scale` brings activations to a mean squared norm of d_in, the unit that training works in;
    `folded` gives the same function in the units of the layer. Weights in half precision are
    multiplied in float32: rounded pre-activations would tie, and the choice with them.

    Cost: a dense product, O(rows · d_in · num_latents) time and O(rows · num_latents) memory;
    the way back touches k rows of the decoder for an input.

    Args:
        d_in: width of the activations.
        num_latents: number of directions in the dictionary.
        k: how many of them an input keeps, below `num_latents`.
        sign: what happens to a negative pre-activation among the k largest: "relu" sets it to
            zero, "raw" keeps it, as the paper's code does.

    Raises:
        UsageError: If a size is not a positive integer, k is not below `num_latents`, or the sign
            is neither.

    Source: arXiv:2406.04093; `sign="raw"` is the SAE of arXiv:2410.08417.
    """

    scale: Tensor

    def __init__(self, d_in: int, num_latents: int, k: int, *, sign: Sign = "relu") -> None:
        super().__init__()
        self.d_in = check_count("d_in", d_in, minimum=1)
        self.num_latents = check_count("num_latents", num_latents, minimum=2)
        self.k = check_count("k", k, minimum=1)
        if self.k >= self.num_latents:
            raise UsageError(
                f"k is {self.k} and num_latents is {self.num_latents}: an input keeps fewer "
                "latents than there are; choose a smaller k or more latents."
            )
        if sign not in get_args(Sign):
            raise UsageError(f'sign={sign!r} is not known: use "relu" or "raw".')
        self.sign: Sign = sign
        rows = functional.normalize(torch.randn(self.num_latents, self.d_in), dim=1)
        self.decoder = nn.Parameter(rows)
        self.encoder = nn.Parameter(
            rows.detach().clone()
        )  # tied start: latent i reads what it writes
        self.encoder_bias = nn.Parameter(torch.zeros(self.num_latents))
        self.decoder_bias = nn.Parameter(torch.zeros(self.d_in))
        self.register_buffer("scale", torch.ones(()))

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return what the choice is made from, (..., d_in) → (..., num_latents).

        Raises:
            ShapeError: If the last axis is not d_in.
            NonFiniteError: If an entry is NaN or infinite; NaN would win the choice.
        """
        x = self.centred(x)
        dtype = x.dtype
        return functional.linear(x, self.encoder.to(dtype), self.encoder_bias.to(dtype))

    def top(self, x: Tensor) -> TopLatents:
        """Return the k latents that each input keeps, (..., d_in) → two of (..., k).

        Raises:
            ShapeError: If the last axis is not d_in.
            NonFiniteError: If an entry is NaN or infinite.
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

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations z, dense, (..., d_in) → (..., num_latents); at most k non-zero.

        Raises:
            ShapeError: If the last axis is not d_in.
            NonFiniteError: If an entry is NaN or infinite.
        """
        values, indices = self.top(x)
        z = values.new_zeros(*values.shape[:-1], self.num_latents)
        return z.scatter(-1, indices, values)

    def decode(self, z: Tensor) -> Tensor:
        """Return the activations that latents stand for, (..., num_latents) → (..., d_in).

        Raises:
            ShapeError: If the last axis is not num_latents.
        """
        if z.shape[-1:] != (self.num_latents,):
            raise ShapeError(
                f"z has shape {tuple(z.shape)}; (..., {self.num_latents}) was expected: one value "
                "for each latent of this SAE."
            )
        return self._from_centred(z @ self.decoder.to(z.dtype))

    def decode_top(self, latents: TopLatents) -> Tensor:
        """Return `decode` of the same latents from their sparse form, in O(k · d_in) an input."""
        values, indices = latents
        k = values.shape[-1]
        total = code_times(
            values.reshape(-1, k), indices.reshape(-1, k), self.decoder.to(values.dtype)
        )
        return self._from_centred(total.reshape(*values.shape[:-1], self.d_in))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction, (..., d_in) → (..., d_in), in the units of the input."""
        return self.decode_top(self.top(x))

    @property
    def offset(self) -> Tensor:
        """(num_latents,): pre = scale · encoder x + offset."""
        return self.encoder_bias - self.encoder @ self.decoder_bias

    @torch.no_grad()
    def folded(self) -> TopKSAE:
        """Return the SAE with scale 1 that reconstructs the same, in the units of the layer.

        Its latents are those of this one divided by `scale`; directions and choices stay.
        """
        folded = TopKSAE(self.d_in, self.num_latents, self.k, sign=self.sign)
        folded = folded.to(self.decoder.device, self.decoder.dtype)
        scale = self.scale.double()
        folded.encoder.copy_(self.encoder)
        folded.decoder.copy_(self.decoder)
        folded.encoder_bias.copy_(self.encoder_bias.double() / scale)
        folded.decoder_bias.copy_(self.decoder_bias.double() / scale)
        return folded.train(self.training)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Bring each row of the decoder back to norm 1, in place."""
        self.decoder.copy_(functional.normalize(self.decoder, dim=1))

    def centred(self, x: Tensor) -> Tensor:
        """Return scale·x − decoder_bias, what the encoder reads, in float32 or better.

        Raises:
            ShapeError: If the last axis is not d_in.
            NonFiniteError: If an entry is NaN or infinite.
        """
        if x.shape[-1:] != (self.d_in,):
            raise ShapeError(
                f"x has shape {tuple(x.shape)}; (..., {self.d_in}) was expected: this SAE was made "
                f"for activations of width {self.d_in}."
            )
        try:
            check_finite("x", x)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} NaN would be chosen before every number.") from None
        dtype = torch.promote_types(x.dtype, torch.promote_types(self.encoder.dtype, torch.float32))
        return x.to(dtype) * self.scale.to(dtype) - self.decoder_bias.to(dtype)

    def _from_centred(self, total: Tensor) -> Tensor:
        return (total + self.decoder_bias.to(total.dtype)) / self.scale.to(total.dtype)

    def extra_repr(self) -> str:
        """Return the sizes, for `print(sae)`."""
        return f"d_in={self.d_in}, num_latents={self.num_latents}, k={self.k}, sign={self.sign!r}"
