"""A layer read from weights alone: output directions and their eigenvectors as tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.api.trace_values import SHOWN_EIGENVECTORS, ends, spectrum_values
from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.interp.latent_readings import eigenvector_tokens, output_tokens
from bilens.interp.traced_layer import TracedLayer

LISTED_TOKENS = 8  # at each end of a direction


def weight_readings(
    layer: TracedLayer,
    toward: Sequence[str],
    outputs: int,
    pairs: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Return output directions of the layer, read as tokens, as JSON values.

    The directions are those that raise the logit of a token over the mean of all, or, if no token
    is named, the leading singular directions of the layer's tensor.

    Cost: one eigendecomposition for each direction.

    Raises:
        UsageError: If a text is not one token, or a number is less than 1.
        MemoryLimitError: If the work would not fit.
    """
    outputs, pairs = check_count("outputs", outputs, 1), check_count("pairs", pairs, 1)
    unembed, embed = layer.module.unembed.weight.detach(), layer.module.embed.weight.detach()
    if toward:
        names = list(toward)
        rows = unembed[[token_number(layer, text) for text in toward]].double()
        directions = rows - unembed.double().mean(dim=0)
        about: list[dict[str, Any]] = [
            {"kind": "token", "name": name, "singular_value": None, "share": None} for name in names
        ]
    else:
        found = hosvd(layer.f, min(outputs, layer.f.sizes.d_out))
        directions, about = found.output_directions, singular_values(found.singular_values, layer)
    units = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    eigenpairs = eigendecompose_all(
        layer.f, units, min(pairs, layer.f.sizes.d_in), progress=progress
    )
    name = layer.tokenizer.token
    readings = []
    for row, (said, direction) in enumerate(zip(about, units, strict=True)):
        effect = output_tokens(direction, unembed, LISTED_TOKENS)
        single = eigenpairs[row]
        vectors = eigenvector_tokens(single, embed, LISTED_TOKENS)[: 2 * SHOWN_EIGENVECTORS]
        readings.append(
            {
                **said,
                "output": ends(effect.promoted, effect.suppressed, name),
                "spectrum": spectrum_values(single, vectors, None, row, name),
            }
        )
    return readings


def singular_values(values: Tensor, layer: TracedLayer) -> list[dict[str, Any]]:
    """Return what is said about each singular direction."""
    total = float(hosvd(layer.f).singular_values.square().sum())
    return [
        {
            "kind": "hosvd",
            "name": "",
            "singular_value": value,
            "share": value**2 / total if total else 0.0,
        }
        for value in values.tolist()
    ]


def token_number(layer: TracedLayer, text: str) -> int:
    """Return the number of the one token that a text is.

    Raises:
        UsageError: If the text is several tokens, or none that the tokenizer knows.
    """
    found = layer.tokenizer.encode(text)
    known = len(found) == 1 and layer.tokenizer.token(found[0]).strip(" ") == text.strip(" ")
    if not known:
        pieces = ", ".join(repr(layer.tokenizer.token(number)) for number in found)
        raise UsageError(
            f"{text!r} is not one token of the model but {pieces or 'nothing'}: name one token, "
            "with a space before it where its tokens carry spaces."
        )
    return found[0]
