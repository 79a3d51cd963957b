"""The top-k sparse autoencoder: activations of a layer as few named directions each."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.base.checks import check_count, check_finite
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.base.option_rules import Sign as Sign


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

    Raises: UsageError if a size is not a positive integer, k is not below `num_latents`, or the
        sign is neither.

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
        self.encoder = nn.Parameter(rows.detach().clone())  # at first latent i reads what it writes
        self.encoder_bias = nn.Parameter(torch.zeros(self.num_latents))
        self.decoder_bias = nn.Parameter(torch.zeros(self.d_in))
        self.register_buffer("scale", torch.ones(()))

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return the latents before the k largest are chosen, (..., d_in) → (..., num_latents).

        Raises: ShapeError if the last axis is not d_in; NonFiniteError if an entry is NaN or
            infinite; NaN would win the choice.
        """
        x = self.centred(x)
        dtype = x.dtype
        return functional.linear(x, self.encoder.to(dtype), self.encoder_bias.to(dtype))

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

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations z, dense, (..., d_in) → (..., num_latents); at most k non-zero.

        Raises: as `pre_activations`.
        """
        values, indices = self.top(x)
        z = values.new_zeros(*values.shape[:-1], self.num_latents)
        return z.scatter(-1, indices, values)

    def decode(self, z: Tensor) -> Tensor:
        """Return the activations that latents stand for, (..., num_latents) → (..., d_in).

        Raises: ShapeError if the last axis is not num_latents.
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
        folded = TopKSAE(self.d_in, self.num_latents, self.k, sign=self.sign).to(self.decoder)
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
        return x.to(dtype) * self.scale.to(dtype) - self.decoder_bias.to(dtype)

    def _from_centred(self, total: Tensor) -> Tensor:
        return (total + self.decoder_bias.to(total.dtype)) / self.scale.to(total.dtype)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"d_in={self.d_in}, num_latents={self.num_latents}, k={self.k}, sign={self.sign!r}"


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


def chosen_pre_activations(
    x: Tensor, encoder: Tensor, bias: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the k largest entries of encoder·x + bias of each row, and where, with gradients."""
    values, indices = _Chosen.apply(x, encoder, bias, k)  # type: ignore[no-untyped-call]
    return values, indices


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


def _row_products(grad: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
    """Return grad·matrixᵀ at the entries of the code alone, (rows, d) → (rows, k)."""
    with torch.enable_grad():  # embedding_bag has a kernel for it, as the gradient of its weights
        weights = torch.zeros(indices.shape, dtype=grad.dtype, device=grad.device)
        weights.requires_grad_()
        product = functional.embedding_bag(indices, matrix, per_sample_weights=weights, mode="sum")
    (products,) = torch.autograd.grad(product, weights, grad)
    return products


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
