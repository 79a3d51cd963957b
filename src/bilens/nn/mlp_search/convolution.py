"""Convolutions and normalisations of channels: linear maps of what stands at each place."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bilens.nn.mlp_search.expression import (
    Applied,
    Step,
    Tree,
    Weight,
    normalisation_step,
    patch_of,
    shifted,
)
from bilens.nn.mlp_search.graph_reader import GraphReader, Value
from bilens.nn.mlp_search.patches import Patch
from bilens.nn.mlp_search.pointwise import Pointwise

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MOST_ENTRIES = 1 << 22  # of the matrix of a grouped convolution, which is mostly zeros


def convolved_by(
    reader: GraphReader, value: Tree | Pointwise, path: str, module: nn.Module
) -> Value:
    """Apply a convolution or a normalisation of images to a value; None for other modules."""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) and module.running_mean is not None:
        axes = 2 if isinstance(module, nn.BatchNorm2d) else 3
        tree = reader.at_places(value, Patch.point(module.num_features, axes))
        return Applied(normalisation_step(path, module), tree)
    if not isinstance(module, CONVOLUTIONS) or module.padding_mode != "zeros":
        return None
    around = module._reversed_padding_repeated_twice  # whatever `padding` says
    if around[::2] != around[1::2]:
        return None
    weight, bias = (Weight(path, partial(getattr, module, name)) for name in ("weight", "bias"))
    sizes = (module.stride, around[::-2], module.dilation)
    shift = None if module.bias is None else bias
    return convolved(reader, value, weight, shift, sizes, module.groups)


def convolved(
    reader: GraphReader,
    value: Tree | Pointwise,
    weight: Weight,
    bias: object,
    sizes: Sequence[Any],
    groups: object,
) -> Value:
    """Return a convolution of a stride, padding and dilation; None where it is no small matrix."""
    d_out, inner, *kernel = weight.fetch().shape
    fit = all(isinstance(one, tuple | list) and len(one) == len(kernel) for one in sizes)
    if not fit or not isinstance(groups, int) or not isinstance(bias, Weight | None):
        return None
    stride, padding, dilation = map(tuple, sizes)
    patch = Patch(inner * groups, tuple(kernel), stride, padding, dilation)
    if groups > 1 and d_out * patch.width > MOST_ENTRIES:
        return None

    def matrix() -> Tensor:
        blocks = weight.fetch().reshape(groups, d_out // groups, -1)
        return blocks[0] if groups == 1 else torch.block_diag(*blocks)  # type: ignore[no-untyped-call]

    is_point = patch == Patch.point(patch.channels, len(kernel))
    image = (reader.at_places if is_point else reader.patches)(value, patch)
    found = Applied(Step(weight.path, matrix, None, d_out, patch.width), image)
    return found if bias is None else shifted(found, Step(bias.path, None, bias.fetch))


def is_image(value: object) -> bool:
    """Tell whether a value is an image, whose axes mean something else than rows."""
    tree = value.argument if isinstance(value, Pointwise) else value
    return isinstance(tree, Tree) and patch_of(tree) is not None
