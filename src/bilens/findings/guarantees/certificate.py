"""All that is proven about one classifier, from its weights and, where given, for test inputs."""

from __future__ import annotations

from torch import nn

from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.base.checks import check_count
from bilens.base.errors import NotQuadraticError, NumericalError, UsageError
from bilens.base.memory import check_memory
from bilens.certify.inputs import checked_number
from bilens.findings.exactness import check_exactness
from bilens.findings.guarantees.guarantees import (
    SAMPLES,
    ClassForms,
    Extent,
    classifier_guarantees,
)
from bilens.findings.subject import (
    SEED_LIMIT,
    LabelledImages,
    Progress,
    in_float64,
    silent,
    summarise,
)
from bilens.nn import BilinearClassifier
from bilens.records.guarantees import Certificate
from bilens.records.origin import UNKNOWN, Origin
from bilens.records.verdict import Exactness


def certify_classifier(
    module: nn.Module,
    data: LabelledImages | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    output_names: tuple[str, ...] | None = None,
    input_names: tuple[str, ...] | None = None,
    samples: int = SAMPLES,
    truncate: int | None = None,
    radius: float | None = None,
    seed: int = 0,
    progress: Progress = silent,
    origin: Origin = UNKNOWN,
) -> Certificate:
    """Return what is proven about a one-layer bilinear classifier; the model is not changed.

    Cost: O(classes² · in³) for the radii, O(classes · in³) for the rest: a quarter of a minute
    and more for 784 pixels, 256 hidden units, ten classes and 1,000 inputs.

    Args:
        module: a `BilinearClassifier` with one layer and no gate.
        data: test inputs; without them nothing is said about radii and predictions.
        input_shape: how an input is laid out; None assumes a square image where that fits.
        output_names: one name for each class; None counts them.
        input_names: one name for each input; None numbers them.
        samples: the first so many test inputs are read, fewer where there are fewer.
        truncate: k; None looks for one that provably keeps 99 % of the predictions.
        radius: of the ball over which errors of truncation are bounded; None takes the length of
            the longest input, without data the farthest corner of the box.
        seed: of the attack that bounds ℓ∞ distances from above, and of the check of exactness.
        progress: called with (stage, done, total).
        origin: of weights and data.

    Raises:
        UsageError: If the module is not a classifier of ours or has one class only, or an
            argument is out of range.
        NotQuadraticError: If it is gated or has more than one layer: nothing is proven then.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight or an input is NaN or infinite.
        NumericalError: If formula and model disagree, or a spectrum did not pass its checks.
        MemoryLimitError: If the work would not fit.
    """
    module = checked_classifier(module)
    samples = check_count("samples", samples, minimum=1)
    seed = check_count("seed", seed, minimum=0)
    if seed >= SEED_LIMIT:
        raise UsageError(f"seed must be below 2**32, got {seed}.")
    summary = summarise(module, input_shape, output_names, input_names)
    width, classes = summary.d_input, summary.d_output
    if truncate is not None and check_count("truncate", truncate, minimum=0) > width:
        raise UsageError(
            f"truncate={truncate}, but a class form of {width} inputs has {width} eigenpairs: "
            f"keep 0 to {width}."
        )
    if radius is not None and checked_number("radius", radius) == 0:
        raise UsageError("radius must be above 0: in a ball of radius 0 nothing is cut off.")
    if data is not None:
        data.check(width, classes)
    check_memory(
        8 * 4 * classes * width**2,
        f"the spectra of {classes} classes of {width} inputs",
        "take single forms apart with bl.eigendecompose(form, k)",
    )
    progress("exactness", 0, 1)
    exactness = agreeing(check_exactness(module, seed))
    wide = in_float64(module)
    f = wide.quadratic_map().detach()
    centred = outputs_of(f, centred=True)
    eigs = eigendecompose_all(centred, k=None)
    eigs.check_usable()
    extent = Extent(samples, truncate, radius, linf_seed=seed, rounding=True)
    forms = ClassForms(wide, f, centred, eigs)
    proven = classifier_guarantees(forms, data, extent, progress)
    return Certificate(
        model=summary,
        exactness=exactness,
        box=proven.box,
        l2=proven.l2,
        linf=proven.linf,
        truncation=proven.truncation,
        input_use=proven.input_use,
        stability=proven.stability,
        seed=seed,
        source=origin.source,
        data=origin.data,
        reproduce=origin.reproduce,
    )


def checked_classifier(module: nn.Module) -> BilinearClassifier:
    """Return a classifier that is one quadratic map; say which claims fail for any other.

    Raises:
        UsageError: If it is no classifier, or has one output.
        NotQuadraticError: If it is gated or has more than one layer.
    """
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


def agreeing(exactness: tuple[Exactness, ...]) -> tuple[Exactness, ...]:
    """Return the check of exactness, if it was passed: a proof about another function is none.

    Raises:
        NumericalError: If formula and model disagree.
    """
    for item in exactness:
        if not item.passed:
            raise NumericalError(
                f"formula and model differ by {item.relative_error:.1e} of the largest logit in "
                f"{item.precision} ({item.tolerance:.0e} is tolerated): nothing is certified. "
                "Audit the model to see where."
            )
    return exactness
