"""Activations, their derivatives, and the moments of these under a normal input."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import html_summary

ActivationName = Literal[
    "identity",
    "relu",
    "leaky_relu",
    "squared_relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "tanh",
    "sigmoid",
    "clamped_swiglu",
]
LEAK = 0.01  # torch's slope of a leaky ReLU
CLAMPED: Final = "clamped_swiglu"  # of gpt-oss
GATE_SLOPE, GATE_LIMIT, VALUE_LIMITS = 1.702, 7.0, (-6.0, 8.0)  # the other branch, and 1 in it
CUBIC = 0.044715  # of the tanh form of GELU
TANH_SCALE = math.sqrt(2 / math.pi)


@dataclass(frozen=True)
class Activation:
    """φ: "gelu" is t·Φ(t) with the normal distribution function, "gelu_tanh" the usual tanh form.

    "clamped_swiglu" is that of a gate alone, g·σ(1.702 g) with g = min(t, 7), and has the other
    branch between −6 and 8 (that of gpt-oss, from −7 to 7, with the 1 that is added to it).

    Attributes:
        name: one of the names of `ActivationName`.
        slope: of "leaky_relu" below zero; None is 0.01 there, and what it has to be elsewhere.

    Raises: UsageError if there is no such activation, or a slope that it does not have.
    """

    name: ActivationName
    slope: float | None = None

    _repr_html_ = html_summary()

    def __post_init__(self) -> None:
        known = get_args(ActivationName)
        if self.name not in known:
            raise UsageError(f"activation {self.name!r} is not known: use {', '.join(known)}.")
        if self.slope is None:
            return
        if self.name != "leaky_relu":
            raise UsageError(f"{self.name} has no slope: leave it out.")
        if not isinstance(self.slope, int | float) or not math.isfinite(self.slope):
            raise UsageError(f"slope must be a finite number, got {self.slope!r}.")

    def __str__(self) -> str:
        return self.name if self.name != "leaky_relu" else f"leaky_relu with slope {self.leak:g}"

    @property
    def leak(self) -> float:
        """The slope below zero of a ReLU, leaky or not."""
        if self.name == "leaky_relu":
            return LEAK if self.slope is None else float(self.slope)
        return 0.0

    def __call__(self, t: Tensor) -> Tensor:
        if self.name == "leaky_relu":
            return torch.where(t > 0, t, self.leak * t)
        return ACTIVATIONS[self.name][0](t)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return φ(t), φ'(t), φ''(t), φ'''(t); at a kink the mean of both sides, jumps left out."""
        if self.name == "leaky_relu":
            return leaky_derivatives(t, self.leak)
        return ACTIVATIONS[self.name][1](t)


Derivatives = tuple[Tensor, Tensor, Tensor, Tensor]


def density(t: Tensor) -> Tensor:
    """Return the standard normal density."""
    return torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)


def normal_derivatives(t: Tensor) -> Derivatives:
    bell = density(t)
    return torch.special.ndtr(t), bell, -t * bell, (t.square() - 1) * bell


def tanh_derivatives(t: Tensor) -> Derivatives:
    y = torch.tanh(t)
    first = 1 / torch.cosh(t.clamp(-300, 300)).square()  # 1 − y² cancels where it is small
    second = -2 * y * first
    return y, first, second, -2 * (first.square() + y * second)


def sigmoid_derivatives(t: Tensor) -> Derivatives:
    y = torch.sigmoid(t)
    first = y * torch.sigmoid(-t)
    tilt = torch.sigmoid(-t) - y
    second = first * tilt
    return y, first, second, second * tilt - 2 * first.square()


def times_argument(gate: Derivatives, t: Tensor) -> Derivatives:
    """Return t·g(t) and its derivatives from those of g."""
    g, first, second, third = gate
    return t * g, g + t * first, 2 * first + t * second, 3 * second + t * third


def tanh_gate(t: Tensor) -> Derivatives:
    """Return ½ (1 + tanh √(2/π) (t + 0.044715 t³)) and its derivatives, by the chain rule."""
    scale = TANH_SCALE
    y, first, second, third = tanh_derivatives(scale * (t + CUBIC * t**3))
    u1, u2, u3 = scale * (1 + 3 * CUBIC * t.square()), scale * 6 * CUBIC * t, scale * 6 * CUBIC
    return (
        (1 + y) / 2,
        first * u1 / 2,
        (second * u1.square() + first * u2) / 2,
        (third * u1**3 + 3 * second * u1 * u2 + first * u3) / 2,
    )


def step(t: Tensor) -> Tensor:
    """Return 1 above zero, 0 below, ½ at zero."""
    return torch.heaviside(t, t.new_tensor(0.5))


def leaky_derivatives(t: Tensor, leak: float) -> Derivatives:
    slope = leak + (1 - leak) * step(t)
    zero = torch.zeros_like(t)
    return slope * t, slope, zero, zero


def squared_relu_derivatives(t: Tensor) -> Derivatives:
    positive = torch.relu(t)
    return positive.square(), 2 * positive, 2 * step(t), torch.zeros_like(t)


def identity_derivatives(t: Tensor) -> Derivatives:
    zero = torch.zeros_like(t)
    return t, torch.ones_like(t), zero, zero


def clamped(t: Tensor) -> Derivatives:
    """Return g·σ(1.702 g), g = min(t, 7), and its derivatives."""
    scale = GATE_SLOPE
    g = scale * t.clamp(max=GATE_LIMIT)
    y, first, second, third = times_argument(sigmoid_derivatives(g), g)
    open_to = step(GATE_LIMIT - t)
    return y / scale, first * open_to, scale * second * open_to, scale**2 * third * open_to


def gelu_derivatives(t: Tensor) -> Derivatives:
    return times_argument(normal_derivatives(t), t)


# φ, and φ with its first three derivatives; the slope of a leaky ReLU is an argument of its own.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Derivatives]]] = {
    "identity": (lambda t: t, identity_derivatives),
    "relu": (torch.relu, lambda t: leaky_derivatives(t, 0.0)),
    "squared_relu": (lambda t: torch.relu(t).square(), squared_relu_derivatives),
    "gelu": (lambda t: t * torch.special.ndtr(t), gelu_derivatives),
    "gelu_tanh": (
        lambda t: t * (1 + torch.tanh(TANH_SCALE * (t + CUBIC * t**3))) / 2,
        lambda t: times_argument(tanh_gate(t), t),
    ),
    "clamped_swiglu": (lambda t: clamped(t)[0], clamped),
    "silu": (lambda t: t * torch.sigmoid(t), lambda t: times_argument(sigmoid_derivatives(t), t)),
    "tanh": (torch.tanh, tanh_derivatives),
    "sigmoid": (torch.sigmoid, sigmoid_derivatives),
}


def as_activation(activation: Activation | ActivationName) -> Activation:
    return activation if isinstance(activation, Activation) else Activation(activation)


NODES = 256  # steps stay below a fifth of the distance of the nearest pole, whatever m and s
DEVIATIONS = 9.0  # beyond them lies 2e-19 of the mass
BLOCK = 4096  # inputs at a time: 10 MB an array


def relu_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of max(t, 0): mΦ + sϕ, Φ, ϕ/s, −mϕ/s³ with Φ and ϕ at m/s."""
    varies = deviation > 0
    s = torch.where(varies, deviation, 1.0)
    share = torch.where(varies, torch.special.ndtr(mean / s), step(mean))
    bell = torch.where(varies, density(mean / s), 0.0)
    return mean * share + s * bell, share, bell / s, -mean * bell / s**3


def leaky_moments(mean: Tensor, deviation: Tensor, leak: float) -> Derivatives:
    """Return e₀ … e₃ of leak·t + (1 − leak)·max(t, 0)."""
    e0, e1, e2, e3 = relu_moments(mean, deviation)
    rest = 1 - leak
    return leak * mean + rest * e0, leak + rest * e1, rest * e2, rest * e3


def squared_relu_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of max(t, 0)², whose derivative is twice a ReLU."""
    e0, e1, e2, _ = relu_moments(mean, deviation)
    return mean * e0 + deviation.square() * e1, 2 * e0, 2 * e1, 2 * e2


def normal_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of Φ: those of Φ(m/√v), v = 1 + s², as a function of m."""
    v = 1 + deviation.square()
    at = mean / v.sqrt()
    bell = density(at) / v.sqrt()
    return torch.special.ndtr(at), bell, -at * bell / v.sqrt(), (at.square() - 1) * bell / v


def gelu_moments(mean: Tensor, deviation: Tensor) -> Derivatives:
    """Return e₀ … e₃ of t·Φ(t): E tg(t) = m E g + s² E g' for any g (Stein), here g = Φ."""
    variance = deviation.square()
    v = 1 + variance
    share, bell, second, _ = normal_moments(mean, deviation)
    bend = 2 - variance / v - (mean / v).square()
    return (
        mean * share + variance * bell,
        share + mean * bell + variance * second,
        bend * bell,
        bend * second - 2 * mean / v.square() * bell,
    )


def activation_moments(
    activation: Activation | ActivationName, mean: Tensor, deviation: Tensor
) -> Tensor:
    """Return e_k = E φ⁽ᵏ⁾(t), t ~ N(m, s²), for k = 0 … 3.

    Math: closed forms for identity, the ReLUs and GELU. tanh, sigmoid, SiLU and the tanh form of
        GELU are a function with a closed form (Φ or t·Φ) and a rest that falls off
        exponentially; on it the trapezoidal rule converges exponentially in the number of nodes,
        which need not grow with s. A jump of φ' or φ'' counts, as the limit of smooth ones; for
        s = 0 there is none to be seen.
    Cost: O(1) an input, with 256 nodes for the four without a closed form.
    Accuracy: rounding, 1e-14 of the size of the terms.

    Args:
        activation: φ, or its name.
        mean: m, any shape.
        deviation: s, of the same shape, not negative.

    Returns: (4, …) float64.
    Raises: UsageError for an unknown activation or a negative deviation; ShapeError where the
        shapes differ; NonFiniteError for NaN or infinity.
    Source: L. N. Trefethen, J. A. C. Weideman, The exponentially convergent trapezoidal rule,
        SIAM Review 56 (2014).
    """
    phi = as_activation(activation)
    if phi.name == CLAMPED:
        raise UsageError(f"{CLAMPED} is a function of two branches: it has no moments of one.")
    shape = check_float_tensor("mean", mean)
    if check_float_tensor("deviation", deviation) != shape:
        raise ShapeError(
            f"mean has shape {shape} and deviation {tuple(deviation.shape)}; expected the same."
        )
    if bool((deviation < 0).any()):
        raise UsageError("deviation has a negative entry: pass standard deviations.")
    m, s = mean.detach().double(), deviation.detach().double()
    if phi.name in CLOSED:
        return torch.stack(CLOSED[phi.name](m, s, phi.leak))
    split = SPLITS[phi.name]
    closed = torch.stack(split.near_moments(m, s))
    rest = torch.cat(
        [
            rest_moments(phi, split, *part)
            for part in zip(*(torch.split(x.reshape(-1), BLOCK) for x in (m, s)), strict=True)
        ],
        dim=1,
    )
    return closed + rest.reshape(closed.shape)


# Moments from mean, deviation and the slope of a leaky ReLU.
CLOSED: dict[str, Callable[[Tensor, Tensor, float], Derivatives]] = {
    "identity": lambda m, _s, _leak: identity_derivatives(m),
    "relu": leaky_moments,
    "leaky_relu": leaky_moments,
    "squared_relu": lambda m, s, _leak: squared_relu_moments(m, s),
    "gelu": lambda m, s, _leak: gelu_moments(m, s),
}


@dataclass(frozen=True, eq=False)
class Split:
    """φ = near + rest, where near has closed moments and rest is below 1e-17 beyond `reach`."""

    near: Callable[[Tensor], Derivatives]
    near_moments: Callable[[Tensor, Tensor], Derivatives]
    reach: float


def twice_less_one(of: Derivatives) -> Derivatives:
    g, first, second, third = of
    return 2 * g - 1, 2 * first, 2 * second, 2 * third


SPLITS = {
    "tanh": Split(
        lambda t: twice_less_one(normal_derivatives(t)),
        lambda m, s: twice_less_one(normal_moments(m, s)),
        20.0,
    ),
    "sigmoid": Split(normal_derivatives, normal_moments, 40.0),
    "silu": Split(gelu_derivatives, gelu_moments, 45.0),
    "gelu_tanh": Split(gelu_derivatives, gelu_moments, 12.0),
}


def rest_moments(phi: Activation, split: Split, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the moments of φ − near by the trapezoidal rule, (inputs,) twice → (4, inputs)."""
    m, s = mean[:, None], torch.where(deviation > 0, deviation, 1.0)[:, None]
    low = ((-split.reach - m) / s).clamp(-DEVIATIONS, DEVIATIONS)
    high = ((split.reach - m) / s).clamp(-DEVIATIONS, DEVIATIONS)
    width = (high - low) / (NODES - 1)
    z = low + width * torch.arange(NODES, dtype=m.dtype, device=m.device)
    weight = width * density(z)
    still = (deviation == 0)[:, None]
    t = torch.where(still, m, m + s * z)
    weight = torch.where(still, 1 / NODES, weight)
    values = zip(phi.derivatives(t), split.near(t), strict=True)
    return torch.stack([((whole - near) * weight).sum(dim=1) for whole, near in values])
