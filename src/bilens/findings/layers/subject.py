"""A layer that is to be audited: what is known without its weights, and how to read these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.approximation.layer_weights import Layer
from bilens.records.layer_audit import LayerReading


@dataclass(frozen=True, eq=False)
class LayerSubject:
    """One layer of a model.

    Attributes:
        name: as in `LoadedModel.layers`.
        d_input: width of its input.
        d_hidden: hidden units.
        d_output: width of its output.
        gated: whether it has two branches.
        activation: φ, by name; "identity" is exact.
        read: returns the weights; called once, and nothing keeps them.
        embedding: returns E, (width, in), contained in both branches; None where there is none.
        classes: whether its outputs are logits, of which only differences matter.
    """

    name: str
    d_input: int
    d_hidden: int
    d_output: int
    gated: bool
    activation: str
    read: Callable[[], Layer]
    embedding: Callable[[], Tensor] | None = None
    classes: bool = False

    @property
    def exact(self) -> bool:
        """Whether the layer is a quadratic map."""
        return self.activation == "identity"


def described(subject: LayerSubject) -> LayerReading:
    """Return what is known of a layer before its weights are read."""
    return LayerReading(
        name=subject.name,
        kind="gated" if subject.gated else "plain",
        activation=subject.activation,
        exact=subject.exact,
        d_input=subject.d_input,
        d_hidden=subject.d_hidden,
        d_output=subject.d_output,
        class_centred=subject.classes,
    )
