"""A sparse autoencoder or transcoder: activations as few named directions each."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.base.checks import check_count, check_finite
from bilens.base.errors import NonFiniteError, ShapeError, UsageError


class TopLatents(NamedTuple):
    """The latents that an input keeps: the sparse form of what `encode` returns."""

    values: Tensor
    indices: Tensor


class SparseAutoencoder(nn.Module):
    """x ≈ (decoderᵀ z + decoder_bias) / scale, with z from encoder (scale·x − decoder_bias) + bias.

    Which pre-activations are kept in z is what the subclasses say: `TopKSAE`, `ThresholdSAE`.

    With `d_out` it is a transcoder: it reads one activation and writes another, y ≈ (decoderᵀ z +
    decoder_bias) / scale + skip x, and nothing is subtracted from x before it is encoded.

    Weights in half precision are multiplied in float32: rounded pre-activations would tie, and the
    choice with them.
    """

    IN_ITS_UNITS: ClassVar[tuple[str, ...]] = ("encoder_bias", "decoder_bias")
    scale: Tensor
    skip: nn.Parameter | None

    def __init__(self, d_in: int, num_latents: int, d_out: int | None, skip: bool) -> None:
        super().__init__()
        self.d_in = check_count("d_in", d_in, minimum=1)
        self.num_latents = check_count("num_latents", num_latents, minimum=2)
        self.d_out = None if d_out is None else check_count("d_out", d_out, minimum=1)
        self.is_transcoder = self.d_out is not None
        self.width = self.d_out or self.d_in  # of what it writes
        if skip and self.d_out is None:
            raise UsageError(
                "an autoencoder with a skip reads x off x: give d_out, the width that a transcoder "
                "writes, or leave the skip out."
            )
        rows = functional.normalize(torch.randn(self.num_latents, self.width), dim=1)
        reads = rows.clone()  # at first latent i reads what it writes
        if self.d_out is not None:
            reads = functional.normalize(torch.randn(self.num_latents, self.d_in), dim=1)
        self.decoder = nn.Parameter(rows)
        self.encoder = nn.Parameter(reads)
        self.encoder_bias = nn.Parameter(torch.zeros(self.num_latents))
        self.decoder_bias = nn.Parameter(torch.zeros(self.width))
        self.skip = nn.Parameter(torch.zeros(self.width, self.d_in)) if skip else None
        self.register_buffer("scale", torch.ones(()))

    def arguments(self) -> dict[str, Any]:
        """Return the sizes, as the constructor takes them."""
        said = {"d_in": self.d_in, "num_latents": self.num_latents}
        said |= {} if self.d_out is None else {"d_out": self.d_out}
        return said if self.skip is None else {**said, "skip": True}

    def extra_repr(self) -> str:
        """Return the sizes."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())

    def top(self, x: Tensor) -> TopLatents:
        """Return the latents that inputs keep, (..., d_in) → two of (..., most latents kept)."""
        raise NotImplementedError

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return the latents before any are chosen, (..., d_in) → (..., num_latents).

        Raises: ShapeError if the last axis is not d_in; NonFiniteError if an entry is NaN or
            infinite; NaN would win the choice.
        """
        x = self.centred(x)
        dtype = x.dtype
        return functional.linear(x, self.encoder.to(dtype), self.encoder_bias.to(dtype))

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations z, dense, (..., d_in) → (..., num_latents).

        Raises: as `pre_activations`.
        """
        values, indices = self.top(x)
        z = values.new_zeros(*values.shape[:-1], self.num_latents)
        return z.scatter(-1, indices, values)

    def decode(self, z: Tensor) -> Tensor:
        """Return the activations that latents stand for, (..., num_latents) → (..., width).

        What a skip adds to them is left out.

        Raises: ShapeError if the last axis is not num_latents.
        """
        if z.shape[-1:] != (self.num_latents,):
            raise ShapeError(
                f"z has shape {tuple(z.shape)}; (..., {self.num_latents}) was expected: one value "
                "for each latent of this SAE."
            )
        return self._from_centred(z @ self.decoder.to(z.dtype))

    def decode_top(self, latents: TopLatents) -> Tensor:
        """Return `decode` of the same latents from their sparse form, in O(k · width) an input."""
        values, indices = latents
        k = values.shape[-1]
        total = code_times(
            values.reshape(-1, k), indices.reshape(-1, k), self.decoder.to(values.dtype)
        )
        return self._from_centred(total.reshape(*values.shape[:-1], self.width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction, (..., d_in) → (..., width), in the units of the layer."""
        return self.reconstruct(self.top(x), x)

    def reconstruct(self, latents: TopLatents, x: Tensor) -> Tensor:
        """Return the reconstruction of x from its latents, with a skip where there is one."""
        found = self.decode_top(latents)
        return found if self.skip is None else found + x.to(found) @ self.skip.T.to(found)

    @property
    def offset(self) -> Tensor:
        """(num_latents,): pre = scale · encoder x + offset."""
        shift = 0.0 if self.is_transcoder else self.encoder @ self.decoder_bias
        return self.encoder_bias - shift

    @torch.no_grad()
    def folded(self) -> Self:
        """Return the one with scale 1 that reconstructs the same, in the units of the layer.

        Its latents are those of this one divided by `scale`; directions and choices stay.
        """
        folded = copy.deepcopy(self)
        for name in self.IN_ITS_UNITS:
            getattr(folded, name).copy_(getattr(self, name).double() / self.scale.double())
        folded.scale.fill_(1.0)
        return folded

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Bring each row of the decoder back to norm 1, in place."""
        self.decoder.copy_(functional.normalize(self.decoder, dim=1))

    def centred(self, x: Tensor) -> Tensor:
        """Return scale·x − decoder_bias in float32 or better; of a transcoder, scale·x.

        Raises: as `pre_activations`.
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
        x = x.to(dtype) * self.scale.to(dtype)
        return x if self.is_transcoder else x - self.decoder_bias.to(dtype)

    def _from_centred(self, total: Tensor) -> Tensor:
        return (total + self.decoder_bias.to(total.dtype)) / self.scale.to(total.dtype)


# ---- products with codes of k non-zero entries a row, without a dense code
# A code Z (rows × num_latents) is two tensors (rows, k), its values and where they stand. Both
# directions of training need only Z·D and Zᵀ·X: sums of weighted rows, which `embedding_bag` adds
# up without storing the summands.


def code_times(values: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
    """Return Z·matrix, (rows, k) and (num_latents, d) → (rows, d), with gradients."""
    product: Tensor = _CodeTimes.apply(values, indices, matrix)  # type: ignore[no-untyped-call]
    return product


def code_transposed_times(values: Tensor, indices: Tensor, x: Tensor, num_latents: int) -> Tensor:
    """Return Zᵀ·x, (rows, k) and (rows, d) → (num_latents, d)."""
    flat = indices.reshape(-1)
    order = flat.argsort()
    counts = torch.bincount(flat, minlength=num_latents)
    return functional.embedding_bag(
        order // indices.shape[1],
        x,
        counts.cumsum(0) - counts,
        per_sample_weights=values.reshape(-1)[order],
        mode="sum",
    )


class _CodeTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, matrix)
        return functional.embedding_bag(indices, matrix, per_sample_weights=values, mode="sum")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        values, indices, matrix = ctx.saved_tensors
        grad_values = grad_matrix = None
        if ctx.needs_input_grad[0]:
            grad_values = _row_products(grad, indices, matrix)
        if ctx.needs_input_grad[2]:
            grad_matrix = code_transposed_times(values, indices, grad, len(matrix))
        return grad_values, None, grad_matrix


def _row_products(grad: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
    """Return grad·matrixᵀ at the entries of the code alone, (rows, d) → (rows, k)."""
    with torch.enable_grad():  # embedding_bag has a kernel for it, as the gradient of its weights
        weights = torch.zeros(indices.shape, dtype=grad.dtype, device=grad.device)
        weights.requires_grad_()
        product = functional.embedding_bag(indices, matrix, per_sample_weights=weights, mode="sum")
    (products,) = torch.autograd.grad(product, weights, grad)
    return products
