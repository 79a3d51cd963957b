"""Entries of DᵀQD for a few given features, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_dense_tensor, check_finite, check_memory, check_type
from bilens.base.errors import ShapeError, UsageError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def interaction_submatrix(
    f: QuadraticMap,
    dictionary: Tensor,
    output_direction: Tensor,
    features: Tensor | Sequence[int],
) -> Tensor:
    """Return the rows and columns of S = DᵀQD that belong to some features, in the order given.

    The off-diagonal entry is half the coefficient of z_m z_n. To see what surrounds the largest
    entries, pass `result[c].features()` of `direct_interactions`.

    Cost: O(num · hidden · (in + num)) time, O(num · hidden + num²) memory; the dictionary is read
        in the columns asked for alone.

    Args:
        f: the map.
        dictionary: D, (in, features), one feature a column.
        output_direction: u, (out,).
        features: (num,) indices of columns; repeated ones are allowed.

    Returns:
        (num, num) float64, symmetric.

    Raises:
        ShapeError: If the parts do not fit together.
        NonFiniteError: If the direction or a column asked for holds NaN or infinity, or an
            interaction is outside float64.
        UsageError: If f is no map, an index is no integer, or there is no such feature.
        MemoryLimitError: If the matrix would not fit.

    Source: arXiv:2410.08417, §5.1 (interactions of SAE features).
    """
    check_dictionary(f, dictionary)
    chosen = check_features(features, dictionary.shape[1]).to(dictionary.device)
    num, hidden = len(chosen), f.sizes.d_hidden
    check_memory(
        8 * (3 * num * num + 6 * num * hidden),
        f"the interactions of {num} features with each other",
        "ask for fewer features",
    )
    with torch.no_grad():
        columns = dictionary[:, chosen].detach().to(f.tensor.down.device).double()
        check_finite("dictionary[:, features]", columns)
        f = f.detach().to(torch.float64)
        factors = FeatureFactors.of(f, columns)
        weight = f.form(output_direction).matrix.weight
        scaled, unit = factors.balanced(weight)
        left, right = factors.exact_rows(torch.arange(num)).tensor_split(2, dim=1)
        half = (left * scaled) @ right.T
        matrix = (half + half.T) / 2 * unit
    return check_finite("the matrix of interactions", matrix)


def exact_values(factors: FeatureFactors, weight: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return S'[m, n] for (num,) pairs of features, (num,) float64.

    The same bits for a pair whatever the others are, and for two pairs of equal columns: ties
    stay ties.

    Cost: O(num · hidden · in) time, O(num · hidden) memory.
    """
    if len(first) == 0:
        return weight[:0]
    features, place = torch.unique(torch.cat([first, second]), return_inverse=True)
    left, right = factors.exact_rows(features).tensor_split(2, dim=1)
    m, n = place.tensor_split(2)
    return ((left[m] * right[n] + right[m] * left[n]) * weight).sum(dim=1) / 2


def check_dictionary(f: QuadraticMap, dictionary: Tensor) -> int:
    """Return the number of features of a dictionary that fits a map; its entries are not looked at.

    Raises:
        UsageError: If f is no map.
        ShapeError: If it is no dense real matrix, or does not have a row for each input.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    rows, num_features = check_dense_tensor("dictionary", dictionary, num_axes=2)
    if rows != f.sizes.d_in or num_features == 0:
        raise ShapeError(
            f"dictionary has shape {tuple(dictionary.shape)}; the map reads {f.sizes.d_in} inputs, "
            f"so ({f.sizes.d_in}, features) was expected, one feature a column: "
            "pass the transpose of a decoder that holds one feature a row."
        )
    return num_features


def check_features(features: Tensor | Sequence[int], num_features: int) -> Tensor:
    """Return indices of features as an int64 tensor.

    Raises:
        UsageError: If there are none, one is no integer, or there is no such feature.
    """
    indices = torch.as_tensor(features)
    if indices.dtype not in INTEGERS or indices.ndim != 1 or len(indices) == 0:
        raise UsageError(
            f"features holds {indices.dtype} in shape {tuple(indices.shape)}; a list of feature "
            "numbers was expected."
        )
    if int(indices.min()) < 0 or int(indices.max()) >= num_features:
        raise UsageError(
            f"features runs from {int(indices.min())} to {int(indices.max())}; the dictionary has "
            f"features 0 to {num_features - 1}."
        )
    return indices.long()
