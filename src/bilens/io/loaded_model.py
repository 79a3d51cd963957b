"""A model read from disk: its layers, and the module of ours where there is a whole one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from bilens.base.errors import UsageError
from bilens.io.exactness import Exactness
from bilens.io.layer_view import LayerView
from bilens.io.module_layers import Module, compare_with_module, layer_views
from bilens.io.reading import Reading


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model read from disk.

    Attributes:
        module: the PyTorch module, on the CPU, in evaluation mode; None where the layers alone are
            read, lazily, out of a model of another library.
        layers: name → view. The first layer of a classifier is read from the input, the last
            one to the logits; with one layer it is the whole model. Those of a transformer are
            its MLPs, read from the normalised residual stream to what they add to it.
        source: the path it was read from.
        weights_sha256: SHA-256 of the weights file.
        input_shape: how an input is laid out, for instance (28, 28); None if nothing says.
        output_names: one name for each output; None if nothing says.
        input_names: one name for each input; None if nothing says.
        provenance: where the weights come from, as far as the file says.
        input_mean: of each input, where the model was trained; None if nothing says.
        input_scale: standard deviation of each input there; None if nothing says.
        views: the layers, where there is no module.
        reading: what was taken for what, and how exactly, where something had to be found out.
        compare: compares the first and the last layer, as they were read, with their source; None
            where the module is the source.
    """

    module: Module | None
    source: str
    weights_sha256: str
    input_shape: tuple[int, ...] | None = None
    output_names: tuple[str, ...] | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    input_names: tuple[str, ...] | None = None
    views: Mapping[str, LayerView] = field(default_factory=dict)
    reading: Reading | None = None
    compare: Callable[[], Exactness] | None = None
    input_mean: tuple[float, ...] | None = None
    input_scale: tuple[float, ...] | None = None

    @cached_property
    def layers(self) -> Mapping[str, LayerView]:
        """Name → view of each layer."""
        return self.views if self.module is None else layer_views(self.module)

    @property
    def network(self) -> tuple[LayerView, ...]:
        """The layers one behind the other, where they are the whole model; empty where not."""
        views = tuple(self.layers.values())
        chained = bool(views) and views[0].reads == "inputs"
        return views if chained and all(view.reads == "neurons" for view in views[1:]) else ()

    @cached_property
    def exactness(self) -> Exactness:
        """How far layers, as they were read, compute what their source does.

        The first and the last layer of a file of others, and the first one of a module of ours,
        measured when it is first asked for, on random inputs in float64; where all layers were
        compared while they were found, the worst of them.

        Raises:
            NumericalError: If it is another function.
        """
        if self.compare is not None:
            return self.compare()
        if self.reading is not None:
            return self.reading.exactness()
        assert self.module is not None, "layers alone come with a source"
        return compare_with_module(self.module, self.layers)

    def whole(self, reader: str) -> Module:
        """Return the module.

        Args:
            reader: who needs it, for the message: "an audit".

        Raises:
            UsageError: If the layers alone were read.
        """
        if self.module is None:
            first = next(iter(self.layers))
            raise UsageError(
                f"{reader} runs a whole model, and of {self.source} "
                f"({self.provenance.get('format', 'another library')}) the layers alone are read: "
                f"read one of its {len(self.layers)} layers with `bilens decompose "
                f"{self.source} --layer {first}`, or bl.load(...).layers[{first!r}]."
            )
        return self.module
