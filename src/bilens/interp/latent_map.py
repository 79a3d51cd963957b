"""An MLP read by the encoder behind it: one quadratic form for each output latent."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_dense_tensor, check_type
from bilens.base.errors import ShapeError


def latent_map(f: QuadraticMap, encoder: Tensor, offset: Tensor | None = None) -> QuadraticMap:
    """Return g, whose output a is the pre-activation of output latent a.

    Math: g_a(x) = encoder_a · f(x) + offset_a, for an SAE with
        pre = encoder (y − decoder_bias) + encoder_bias:
        offset = encoder_bias − encoder · decoder_bias, which `TopKSAE.offset` gives.
    Cost: O(latents · out · (hidden + in)) time, O(latents · (hidden + in)) memory.

    Args:
        f: the MLP, exact.
        encoder: (latents, out), in the units of f: that of a folded SAE.
        offset: (latents,); None is zero.

    Returns:
        A map of float64.

    Raises:
        UsageError: If f is no map.
        ShapeError: If the encoder does not read the outputs of f.
        NonFiniteError: If encoder or offset hold NaN or infinity.

    Source: arXiv:2410.08417, §5.1; the offsets, which it leaves out, are exact here.
    """
    check_type("f", f, QuadraticMap, "use model.layer_map(i)")
    latents, width = check_dense_tensor("encoder", encoder, num_axes=2)
    if width != f.sizes.d_out or latents == 0:
        raise ShapeError(
            f"encoder has shape {(latents, width)}; the layer writes {f.sizes.d_out} outputs, so "
            f"(latents, {f.sizes.d_out}) was expected: is this the SAE behind this layer?"
        )
    device = f.tensor.down.device
    return (
        f.detach()
        .to(torch.float64)
        .compose_output(
            encoder.detach().to(device).double(),
            None if offset is None else offset.detach().to(device).double(),
        )
    )
