"""What hypothesis draws: tensors, maps and inputs in float64, small enough to read a failure."""

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap

MAX_SIZE = 5
SCALES = st.floats(0.1, 10.0)


@st.composite
def entries(draw: st.DrawFn, *shape: int, bound: float = 3.0) -> Tensor:
    """A float64 tensor of one shape; steps of 2⁻¹⁰ keep the rounding of a test predictable."""
    steps = draw(arrays(np.int64, shape, elements=st.integers(-1024, 1024)))
    return torch.from_numpy(steps.astype(np.float64)) * (bound / 1024)


@st.composite
def tensors(draw: st.DrawFn, max_size: int = MAX_SIZE) -> BilinearTensor:
    """Any bilinear tensor with axes of 1 to `max_size`."""
    d_out, d_hidden, d_in = (draw(st.integers(1, max_size)) for _ in range(3))
    return BilinearTensor(
        draw(entries(d_out, d_hidden)), draw(entries(d_hidden, d_in)), draw(entries(d_hidden, d_in))
    )


@st.composite
def maps(draw: st.DrawFn, max_size: int = MAX_SIZE) -> QuadraticMap:
    """Any quadratic map; its linear and constant parts may each be absent."""
    tensor = draw(tensors(max_size))
    d_out, _, d_in = tensor.sizes
    return QuadraticMap(
        tensor, draw(st.none() | entries(d_out, d_in)), draw(st.none() | entries(d_out))
    )


@st.composite
def maps_with_direction(draw: st.DrawFn) -> tuple[QuadraticMap, Tensor]:
    """A map and an output direction of it."""
    f = draw(maps())
    return f, draw(entries(f.sizes.d_out))


@st.composite
def maps_with_inputs(draw: st.DrawFn) -> tuple[QuadraticMap, Tensor]:
    """A map and a batch of one to three inputs."""
    f = draw(maps())
    return f, draw(entries(draw(st.integers(1, 3)), f.sizes.d_in))


@st.composite
def rotations(draw: st.DrawFn, n: int) -> Tensor:
    """An orthogonal (n, n) matrix."""
    seed = draw(st.integers(0, 2**31))
    gauss = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    orthogonal: Tensor = torch.linalg.qr(gauss).Q
    return orthogonal
