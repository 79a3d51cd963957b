"""The options of `bl.quadratic_fit` and `bilens fit`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from bilens.base.keyword_options import described
from bilens.base.option_rules import option

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bilens.algebra.gaussian import GaussianInput
else:  # the command line reads the types of the fields, and knows nothing of torch
    Generator = Tensor = GaussianInput = Any

SAMPLES = 10_000
THRESHOLD = 0.9


@dataclass(frozen=True)
class QuadraticFitOptions:
    """The inputs of a fit, how its R² is measured, and which R² is good enough."""

    mean: Tensor | None = described(
        None, "μ, (in,), of the closed form, without data; None is zero."
    )
    covariance: Tensor | None = described(
        None, "Σ, (in, in), singular or not, without data; None is I."
    )
    data: Tensor | None = described(None, "Inputs of the model, (rows, in), 13 or more.")
    _: KW_ONLY
    seed: int | Generator = option(
        0, "Seed of the rows held out, or of the random inputs.", min=0, kind=int
    )
    samples: int = option(
        SAMPLES, "Random inputs that R² is measured on without data, 100 or more.", min=100
    )
    threshold: float = option(
        THRESHOLD,
        "R² from which a map stands for the model: 0.9 is a correlation of 0.95.",
        min=0.0,
        max=1.0,
    )
    train_steps: int = option(
        0, "Steps of training, of Adam on all factors, after the last fit to data.", min=0
    )
    held_out: Tensor | None = described(
        None,
        "(rows, in), 13 or more, for R² in the place of a fifth of the data: of other documents or "
        "people than those.",
    )


@dataclass(frozen=True, kw_only=True)
class LayerFitOptions(QuadraticFitOptions):
    """The same of bare layers, of which nobody else says what they give."""

    classes: bool = described(False, "Whether scores are of outputs minus their mean.")
    assumed: GaussianInput | None = described(None, "The input without data, mean and Σ in one.")
    apart: bool = described(
        False, "Whether held_out is of other files, so that rows equal to others count as well."
    )
