"""All that is proven about one classifier, from its weights and, where given, for test inputs."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base import Progress, silent
from bilens.base.checks import check_count
from bilens.base.errors import NotQuadraticError, NumericalError, UsageError
from bilens.base.memory import check_memory
from bilens.base.option_rules import check_seed
from bilens.certify.contrast import PairSpectra
from bilens.certify.inputs import checked_number
from bilens.data.model_interface import LabelledData
from bilens.findings.guarantees import (
    euclidean_radii,
    input_use,
    largest_entry_radii,
    rounding_stability,
    truncation_guarantees,
)
from bilens.findings.subject import (
    as_loaded,
    check_exactness,
    in_float64,
    summarise,
)
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.common import UNKNOWN, Origin
from bilens.records.guarantees import Box, Certificate, Guarantees, RoundingStability

SAMPLES = 1000  # test inputs that are read
LINF_SAMPLES = 100  # of them, for the bounds in the ℓ∞ norm


class ClassForms:
    """A classifier as one map in float64, against the mean of its classes, with all spectra.

    Each part is computed once, when it is first asked for; the model is not changed.
    """

    pairs: PairSpectra | None = None  # of all pairs of classes, where they are at hand

    def __init__(self, module: BilinearClassifier) -> None:
        self.module = in_float64(module)

    @cached_property
    def f(self) -> QuadraticMap:
        return self.module.quadratic_map().detach()

    @cached_property
    def centred(self) -> QuadraticMap:
        return outputs_of(self.f, centred=True)

    @cached_property
    def eigs(self) -> EigenDecomposition:
        return eigendecompose_all(self.centred, k=None)


@dataclass(frozen=True)
class ProofOptions:
    """How much of it is proven."""

    samples: int = SAMPLES  # test inputs that are read, drawn at random
    seed: int = 0  # of the draw
    truncate: int | None = None  # k; None looks for one that provably keeps 99 % of predictions
    # of the ball over which errors of truncation are bounded; None takes the length of the longest
    # input, without data the farthest corner of the box, and 1 without either
    radius: float | None = None
    linf_seed: int | None = None  # of the attack that bounds ℓ∞ from above; None leaves it out
    rounding: bool = False  # say what fewer bits can do, at the cost of three spectra a class
    box: tuple[float, float] | None = None  # that the model says its inputs lie in


def classifier_guarantees(
    forms: ClassForms, data: LabelledData | None, options: ProofOptions, progress: Progress
) -> Guarantees:
    x = l2 = linf = None
    labels = None if data is None or data.targets is None else data.targets.long()
    every = None if data is None or labels is None else data.inputs.detach()
    told = data.box if data is not None and data.box is not None else options.box
    box = box_of(every, told)
    if every is not None and labels is not None:
        progress("radii", 0, 1)
        drawn = torch.Generator().manual_seed(options.seed)
        order = torch.randperm(len(every), generator=drawn)
        counts = options.samples, min(options.samples, LINF_SAMPLES)
        rows, few = (order[:count].sort().values for count in counts)
        x = every[rows].double()
        assert data is not None, "it holds them"
        numbers = torch.tensor(data.numbers or range(len(every)))
        l2 = euclidean_radii(forms.f, x, labels[rows], box, forms.pairs, numbers[rows])
        if options.linf_seed is not None:
            progress("ℓ∞ bounds", 0, 1)
            generator = torch.Generator().manual_seed(options.linf_seed)
            parts = every[few].double(), labels[few], generator, numbers[few]
            linf = largest_entry_radii(forms.f, *parts)
    progress("truncation", 0, 1)
    ball = ball_of(options.radius, every, box, forms.f.sizes.d_in)
    truncation = truncation_guarantees(forms.centred, forms.eigs, ball, x, options.truncate)
    progress("use of inputs", 0, 1)
    used = input_use(forms.f, forms.centred, box)
    stability: tuple[RoundingStability, ...] = ()
    if options.rounding:
        progress("rounding", 0, 1)
        stability = rounding_stability(forms.module)
    return Guarantees(box, l2, linf, truncation, used, stability)


def box_of(x: Tensor | None, told: tuple[float, float] | None = None) -> Box | None:
    """Return the box that is known, or with data the smallest interval around [0, 1] and them."""
    if x is None:
        return None if told is None else Box(told[0], told[1], "pixels")
    low, high = min(0.0, float(x.min())), max(1.0, float(x.max()))
    return Box(low, high, "pixels" if told == (low, high) else "data")


def ball_of(
    radius: float | None, x: Tensor | None, box: Box | None, width: int
) -> tuple[float, str]:
    """Return the radius of the ball over which errors of truncation are bounded, and its origin."""
    if radius is not None:
        return float(radius), "asked"
    if x is not None:
        longest = in_blocks(lambda rows: rows.double().norm(dim=1), x).max()
        if bool(longest > 0):
            return float(longest), "data"
    if box is None:
        return 1.0, "unit"
    corner = max(abs(box.low), abs(box.high)) * math.sqrt(width)
    return corner * (1 + 1e-15), "box"  # the root is rounded; the corner is inside


def certify_classifier(
    model: LoadedModel | nn.Module,
    data: LabelledData | None = None,
    *,
    samples: int = SAMPLES,
    truncate: int | None = None,
    radius: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
    origin: Origin = UNKNOWN,
) -> Certificate:
    """Prove guarantees for a one-layer bilinear classifier; the model is not changed."""
    loaded = as_loaded(model)
    module = checked_classifier(loaded.module)
    samples = check_count("samples", samples, minimum=1)
    seed = check_seed(seed)
    summary = summarise(loaded)
    width, classes = summary.d_input, summary.d_output
    if truncate is not None and check_count("truncate", truncate, minimum=0) > width:
        raise UsageError(
            f"truncate={truncate}, but a class form of {width} inputs has {width} eigenpairs: "
            f"keep 0 to {width}."
        )
    if radius is not None and checked_number("radius", radius) == 0:
        raise UsageError("radius must be above 0: in a ball of radius 0 nothing is cut off.")
    check_memory(
        8 * 4 * classes * width**2,
        f"the spectra of {classes} classes of {width} inputs",
        "take single forms apart with bl.eigendecompose(form, k)",
    )
    progress("exactness", 0, 1)
    exactness = check_exactness(module, seed)
    for item in exactness:  # a proof about another function is none
        if not item.passed:
            raise NumericalError(
                f"formula and model differ by {item.relative_error:.1e} of the largest logit in "
                f"{item.precision} ({item.tolerance:.0e} is tolerated): nothing is certified. "
                "Audit the model to see where."
            )
    forms = ClassForms(module)
    forms.eigs.check_usable()
    options = ProofOptions(samples, seed, truncate, radius, seed, True, loaded.input_box)
    proven = classifier_guarantees(forms, data, options, progress)
    return Certificate(
        model=summary, exactness=exactness, **proven.fields(), seed=seed, **origin.fields()
    )


def checked_classifier(module: nn.Module | None) -> BilinearClassifier:
    """Return a classifier that is one quadratic map; say which claims fail for any other."""
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"a certificate is about a BilinearClassifier, got a {type(module).__name__}: for "
            "other layers use bl.certify.truncation_error or bl.certify.l2_radius with "
            "layer.quadratic_map()."
        )
    if len(module.layers) > 1:
        raise NotQuadraticError(
            f"the model has {len(module.layers)} layers, so its logits are not quadratic in the "
            "input and no radius, truncation bound or influence is certified. What is proven of a "
            "single layer holds for that layer alone: read it with "
            "bl.certify.truncation_error(bl.eigendecompose_all(layer.quadratic_map), k, radius)."
        )
    if getattr(module.layers[0], "gate", None) is not None:
        raise NotQuadraticError(
            f"the layer has a {module.layers[0].gate} gate, so its logits are not quadratic in the "
            "input and no radius, truncation bound or influence is certified; of an approximation "
            "nothing could be proven about the model."
        )
    if module.head.out_features < 2:
        raise UsageError("the model has one output: a prediction needs two classes.")
    return module
