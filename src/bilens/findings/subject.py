"""The classifier and the data of an audit: exactness of the reading, accuracy of the model."""

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from bilens.algebra.directions import largest_outputs, output_form, outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_finite
from bilens.base.errors import NonFiniteError
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.class_readings import TruncationPoint
from bilens.records.common import Exactness, ModelSummary, Share

DRAWN_DIGITS = 5  # decimals of vectors that are only drawn; they have unit length


def drawn(tensor: Tensor) -> tuple[float, ...]:
    """Return a vector as numbers that are precise enough to draw it."""
    return tuple(round(value, DRAWN_DIGITS) for value in tensor.tolist())


def in_float64(module: BilinearClassifier) -> BilinearClassifier:
    """Return a copy in float64: the products of the weights are rounded there, not in float32."""
    return copy.deepcopy(module).double()


def gauge_free(f: QuadraticMap) -> QuadraticMap:
    """Return the map that is read: class-centred outputs, or the one output as it is."""
    f = f.to(torch.float64)
    return f if f.sizes.d_out == 1 else outputs_of(f, centred=True)


def as_loaded(model: LoadedModel | nn.Module) -> LoadedModel:
    """Return a model with what is known of it, which of a module is nothing."""
    return model if isinstance(model, LoadedModel) else LoadedModel(model, "", "")  # type: ignore[arg-type]


def summarise(model: LoadedModel, shape: tuple[int, ...] | None = None) -> ModelSummary:
    """Return sizes, options and the input layout of a classifier.

    `shape` is that of its data, where it does not say one.
    """
    module, input_names, output_names = model.module, model.input_names, model.output_names
    assert isinstance(module, BilinearClassifier), "asked of classifiers alone"
    d_input, d_output = module.embed.in_features, module.head.out_features
    input_shape = model.input_shape or shape
    layer = module.layers[0]
    return ModelSummary(
        kind=type(module).__name__,
        d_input=d_input,
        d_hidden=module.embed.out_features,
        d_output=d_output,
        bias=bool(getattr(layer, "has_bias", False)),
        residual=module.residual,
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        dtype=str(module.embed.weight.dtype).removeprefix("torch."),
        input_shape=image_shape(d_input, input_shape if input_names is None else (1, d_input)),
        input_shape_assumed=input_shape is None and input_names is None,
        output_names=output_names or tuple(str(index) for index in range(d_output)),
        input_names=input_names,
    )


def image_shape(d_input: int, input_shape: tuple[int, ...] | None) -> tuple[int, int]:
    """Return rows and columns for drawing: the shape given, a square, or a single row."""
    if input_shape is not None and len(input_shape) == 2:
        return input_shape[0], input_shape[1]
    side = math.isqrt(d_input)
    return (side, side) if input_shape is None and side * side == d_input else (1, d_input)


NUM_INPUTS = 1000
Precision = Literal["float32", "float64"]
TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "float64": 1e-12}
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


@torch.no_grad()
def check_exactness(module: BilinearClassifier, seed: int) -> tuple[Exactness, ...]:
    """Return the largest |forward − (xᵀQx + b·x + c)|, with Q dense, in each precision."""
    generator = torch.Generator().manual_seed(seed)
    size = NUM_INPUTS, module.embed.in_features
    inputs = torch.randn(size, generator=generator, dtype=torch.float64)
    found = []
    for precision, dtype in precisions_to_compare(module).items():
        evaluated, x = copy.deepcopy(module).to(dtype).eval(), inputs.to(dtype)
        try:
            forward = check_finite("the forward pass", evaluated(x))
            reading = check_finite("the reading", read_densely(evaluated.quadratic_map(), x))
        except NonFiniteError:
            raise NonFiniteError(
                f"the weights of the model, or their products, exceed the range of {precision} "
                f"(±{torch.finfo(dtype).max:.1e}), in which an audit compares the model with its "
                "reading: scale the weights down; a factor on the head's is one on every logit."
            ) from None
        found.append(compare_results(precision, forward, reading))
    return tuple(found)


def precisions_to_compare(module: BilinearClassifier) -> dict[Precision, torch.dtype]:
    """Return float32 and float64; of a model in float64 that alone, in which it is meant to run."""
    if module.embed.weight.dtype == torch.float64:
        return {"float64": torch.float64}
    return DTYPES


def compare_results(precision: Precision, forward: Tensor, reading: Tensor) -> Exactness:
    """Return how far two results of the same inputs are apart."""
    error, largest = float((forward - reading).abs().max()), float(forward.abs().max())
    relative, tolerance = error / largest if largest > 0 else error, TOLERANCES[precision]
    return Exactness(precision, error, relative, tolerance, len(forward), relative <= tolerance)


def read_densely(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return f(x) through the dense matrix of each output, (batch, out)."""
    outputs = []
    for output in range(f.sizes.d_out):
        form = output_form(f, output)
        outputs.append(((x @ form.dense()) * x).sum(dim=1) + x @ form.linear + form.constant)
    return torch.stack(outputs, dim=1)


KEPT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300)
LEVEL = 0.95
ACCURACY_DROP = 0.01  # what "as good as the whole model" may lose
IMAGES_AT_ONCE = 500


def share_right(predicted: Tensor, labels: Tensor) -> Share:
    """Return the share of right answers and its exact 95 % interval."""
    plain = int(torch.bincount(labels).max()) / len(labels)
    return share_of(int((predicted == labels).sum()), len(labels), plain)


def share_of(right: int, total: int, plain: float | None = None) -> Share:
    """Return a share and its exact 95 % interval (Clopper–Pearson)."""
    from scipy.stats import binomtest  # slow to import, needed only where data are given

    interval = binomtest(right, total).proportion_ci(LEVEL, method="exact")
    return Share(right, total, right / total, float(interval.low), float(interval.high), plain)


def truncation_curve(
    eigs: EigenDecomposition, images: Tensor, labels: Tensor, full: Tensor
) -> tuple[tuple[TruncationPoint, ...], int]:
    """Return accuracy and agreement when each class keeps its k leading eigenvectors."""
    width = eigs.eigenvalues.shape[1]
    right, agreeing = torch.zeros(width + 1), torch.zeros(width + 1)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = slice(start, start + IMAGES_AT_ONCE)
        predicted = predictions(eigs, images[rows])  # (width + 1, images)
        right += (predicted == labels[rows]).sum(dim=1)
        agreeing += (predicted == full[rows]).sum(dim=1)
    accuracy, agreement = right.double() / len(images), agreeing.double() / len(images)
    worse = torch.nonzero(accuracy < accuracy[-1] - ACCURACY_DROP - 1e-12).flatten()
    enough = int(worse[-1]) + 1 if len(worse) > 0 else 0
    kept = sorted({k for k in KEPT if k < width} | {enough, width})
    points = (TruncationPoint(k, float(accuracy[k]), float(agreement[k])) for k in kept)
    return tuple(points), enough


def predictions(eigs: EigenDecomposition, images: Tensor) -> Tensor:
    """Return the predicted class for every number of eigenvectors kept, (in + 1, batch), or −1."""
    parts = eigs.contributions(images)  # (classes, batch, in)
    none = (parts.linear + parts.constant[:, None])[..., None]
    scores = torch.cat([none, none + parts.pairs.cumsum(dim=2)], dim=2)
    return largest_outputs(scores, scores[..., -1:]).T
