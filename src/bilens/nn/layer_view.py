"""One layer of a loaded model: what it is without reading it, and its quadratic map on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any, Literal, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import Layer, in_dtype, in_float64, reading
from bilens.algebra.approximation.quadratic_fit import QuadraticFit, fit_layers
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.notebook import frozen_result
from bilens.records.sweep import StoredPart


def nothing_assumed() -> None:
    """Return no input: a standard normal one is assumed."""


Built = TypeVar("Built")
Reads = Literal["inputs", "neurons", "residual stream", "activations"]
Gives = Literal["logits", "neurons", "outputs"]


@frozen_result("name", "sizes", "activation", "exact", "about_input", "dtype")
class LayerView:
    """One layer of a model, read as a quadratic map of its input.

    A view holds no weights. Its map and fit are made when they are asked for and kept for as long
    as somebody holds them, so that a walk over the layers of a large model needs the memory of
    one; of a module, which may be trained on, they are made each time, and the layer is compared
    with it as it runs then. A program that uses one often should keep it, `f = view.quadratic_map`.

    Attributes:
        sizes: (d_out, d_hidden, d_in), known without reading the weights.
        activation: φ; "identity" where the layer is exactly quadratic.
        dtype: of the weights, as they are stored.
        read: reads the layer as it runs, in `dtype` or, where weights were multiplied, in float64.
        gated: whether it is the product of two branches, and not one branch of neurons.
        reads: what comes in: the "inputs" of the model, "neurons" of the layer before, or, in a
            language model, the "residual stream" as the MLP receives it; "activations" are anything
            else inside a model.
        gives: what comes out: "logits", "neurons" inside a model, or "outputs" of an MLP.
        about_input: what comes in, in words, as far as it needs some: which norm is before it, and
            whether the weights contain its gain.
        name: that the model calls it by.
        embedding: returns E, (width, in), that both branches contain; None where there is none.
        tensors: name of a tensor of the source → how many of its parameters the layer reads.
        stored: returns what of which tensors and files it is read from; nothing for what no file
            holds byte by byte.
        basis_name: returns the name of the coordinates that it reads; None for "input".
        centre: (in,) float64, the mean of its inputs, or what a scaler makes 0; None where nothing
            says.
        compare: compares it with the module in memory that it reads, as that runs now, and raises
            where they differ; None for what files hold, which is the same each time.
        assumed_input: returns the input that is assumed where none is given: the one that a
            normalisation in the model has learnt; None for N(0, I).
    """

    sizes: FactorSizes
    activation: Activation
    dtype: torch.dtype
    read: Callable[[], Layer]
    gated: bool = True
    reads: Reads = "inputs"
    gives: Gives = "outputs"
    about_input: str = ""
    name: str = ""
    embedding: Callable[[], Tensor] | None = None
    tensors: Mapping[str, int] = field(default_factory=dict)
    stored: Callable[[], tuple[StoredPart, ...]] = tuple
    basis_name: Callable[[], str] | None = None
    compare: Callable[[], object] | None = None
    centre: Tensor | None = None
    assumed_input: Callable[[], GaussianInput | None] = nothing_assumed
    _alive: dict[str, ReferenceType[Any]] = field(default_factory=dict, init=False, repr=False)

    @property
    def exact(self) -> bool:
        """Whether the map is the layer, and not its quadratic approximation."""
        return self.activation.name == "identity"

    @property
    def classes(self) -> bool:
        """Whether its outputs are logits, of which only differences matter."""
        return self.gives == "logits" and self.sizes.d_out > 1

    @property
    def basis(self) -> str:
        """The name of the coordinates that it reads; maps compare where the names are equal."""
        return "input" if self.basis_name is None else self.basis_name()

    def in_own_basis(self, fit: QuadraticFit) -> QuadraticFit:
        """Return a fit of the layer that says which coordinates it reads."""
        return replace(fit, quadratic_map=replace(fit.quadratic_map, basis=self.basis))

    def weights(self, dtype: torch.dtype | None = None) -> Layer:
        """Return the layer as plain weights, `GLUWeights` or `MLPWeights`.

        Args:
            dtype: what it is wanted in; None is the dtype that it is stored in.
        """
        return in_dtype(self.read(), self.dtype if dtype is None else dtype)

    def behind(self, matrix: Tensor, shift: Tensor) -> LayerView:
        """Return x ↦ layer(matrix x + shift), in float64; a vector scales each input."""

        def embedded(embedding: Callable[[], Tensor]) -> Tensor:
            wide = embedding().double()
            return wide @ matrix if matrix.ndim > 1 else wide * matrix

        return replace(
            self,
            read=lambda: reading(in_float64(self.read()), matrix, shift),
            sizes=self.sizes._replace(d_in=matrix.shape[-1]),
            dtype=torch.float64,
            centre=None,
            assumed_input=nothing_assumed,
            embedding=None if self.embedding is None else partial(embedded, self.embedding),
        )

    def before(self, matrix: Tensor, gives: Gives) -> LayerView:
        """Return x ↦ matrix layer(x), in float64."""
        sizes = self.sizes._replace(d_out=len(matrix))
        read = partial(written_through, self.read, matrix)
        return replace(self, read=read, sizes=sizes, gives=gives, dtype=torch.float64)

    @property
    def quadratic_map(self) -> QuadraticMap:
        """The layer where it is exact, its quadratic approximation where it is not.

        That is under its assumed input, N(0, I) where nothing in the model speaks for another.

        Computed in float64 and rounded once, to the dtype of the weights (float32 for
        half-precision weights).

        Cost: O(out · hidden · in).
        """

        def approximation() -> QuadraticMap:
            layer = self.read()
            assumed = self.assumed_input()
            assumed = assumed or GaussianInput.from_moments(
                self.sizes.d_in, device=layer.down.device
            )
            f = approximate_layer(layer, assumed)
            f = f.to(torch.promote_types(self.dtype, torch.float32))
            return replace(f, basis=self.basis)

        return self._kept("quadratic_map", approximation)

    @property
    def device(self) -> torch.device:
        """The device of its map, which is built for that if there is none yet."""
        return self.read().down.device

    @property
    def fit(self) -> QuadraticFit | None:
        """The quadratic approximation with its R², as `bl.quadratic_fit` finds it without data.

        None where the layer is exact: there is nothing to fit.

        Cost: 10,000 runs of the layer and of the map in float64; `bl.quadratic_fit(view,
        samples=1000)` has two digits of R² for a tenth of that.
        """

        def fitted() -> QuadraticFit:
            layer = in_float64(self.read())
            how: dict[str, Any] = {"classes": self.classes, "assumed": self.assumed_input()}
            return self.in_own_basis(fit_layers([layer], layer, **how))

        return None if self.exact else self._kept("fit", fitted)

    def _kept(self, name: str, build: Callable[[], Built]) -> Built:
        """Return the map or fit that is still alive; of a module compare, and build it again."""
        known: Built | None = self._alive[name]() if name in self._alive else None
        if self.compare is not None:
            self.compare()
        elif known is not None:
            return known
        built = build()
        self._alive[name] = ref(built)
        return built


def written_through(read: Callable[[], Layer], matrix: Tensor) -> Layer:
    """Return x ↦ matrix layer(x), in float64."""
    layer = in_float64(read())
    parts = {name: getattr(layer, name) for name in ("down", "linear", "constant")}
    moved = {name: matrix @ part for name, part in parts.items() if part is not None}
    return replace(layer, **moved)
