"""One layer, ready to be taken apart: whatever can be refused is refused before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bilens.algebra.eigen.eigendecompose import plan_eigendecomposition
from bilens.algebra.eigen.plan import EigenPlan
from bilens.algebra.rotation_null import CHUNK_BYTES, solved_width
from bilens.api.decomposition_request import Request
from bilens.api.input_moments import InputMoments
from bilens.api.layer_map import LayerMap, choose_layer, layer_map
from bilens.api.output_selection import LayerOutputs, OutputReading, read_outputs
from bilens.base.errors import MemoryLimitError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE, readable
from bilens.findings.rank_chance import null_estimate
from bilens.io.load import LoadedModel
from bilens.records.decomposition import LayerPlan

WHOLE_WIDTH, WHOLE_OUTPUTS = 1024, 128  # the largest that "auto" reads whole
WHOLE_WORK = 3e11  # outputs · width³, with the rotations: a minute by the costs of the eigensolver


@dataclass(frozen=True, eq=False)
class LayerJob:
    """What will be done for one layer.

    Attributes:
        request: what was asked.
        outputs: of the layer.
        read: the directions that are read.
        layer: the map.
        whole: whether whole spectra are computed.
        null_samples: rotations for the level of chance of effective ranks; 0 for none.
        plan: how the spectra are computed.
        peak_bytes: memory beside the map, at most.
    """

    request: Request
    outputs: LayerOutputs
    read: OutputReading
    layer: LayerMap
    whole: bool
    null_samples: int
    plan: EigenPlan
    peak_bytes: int

    @property
    def num_pairs(self) -> int | None:
        """How many pairs of each form are computed; None for all of them."""
        return None if self.whole else min(self.request.top, self.layer.f.sizes.d_in)

    @property
    def map_bytes(self) -> int:
        """Memory of the map."""
        f = self.layer.f
        parts = (f.tensor.down, f.tensor.left, f.tensor.right, f.linear)
        return sum(part.nbytes for part in parts if part is not None)

    def plan_record(self) -> LayerPlan:
        """Return the plan: sizes, method, memory in bytes, and why."""
        sizes, plan = self.layer.f.sizes, self.plan
        return LayerPlan(
            layer=self.outputs.layer,
            basis=self.request.basis,
            output_kind=self.outputs.kind,
            reading=self.read.reading,
            d_in=sizes.d_in,
            d_hidden=sizes.d_hidden,
            num_outputs=len(self.read.names),
            num_pairs=sizes.d_in if self.num_pairs is None else self.num_pairs,
            spectrum="whole" if self.whole else "top",
            null_samples=self.null_samples,
            method=plan.method,
            precision=plan.precision,
            batch=plan.batch,
            peak_bytes=self.peak_bytes,
            limit_bytes=plan.limit_bytes,
            reason=plan.reason,
            approximation=self.layer.approximation,
        )


def plan_layers(
    model: LoadedModel,
    request: Request,
    *,
    layers: Sequence[str] = (),
    inputs: InputMoments | None = None,
    memory_limit: int | str | None = None,
) -> list[LayerPlan]:
    """Return what would be done for each layer of a model, without doing it.

    Args:
        model: what `bl.load` returned.
        request: what is wanted of each layer.
        layers: their names; none for all layers.
        inputs: for the basis "whitened".
        memory_limit: as in `eigendecompose_all`.

    Raises:
        UsageError: As `prepare`.
        NotQuadraticError: If a layer is not quadratic and the closest map explains too little.
        MemoryLimitError: If no method, or the level of chance, fits into the memory allowed.
    """
    return [
        prepare(model, request, name, inputs, memory_limit).plan_record()
        for name in (layers or model.layers)
    ]


def prepare(
    model: LoadedModel,
    request: Request,
    layer: str | None = None,
    inputs: InputMoments | None = None,
    memory_limit: int | str | None = None,
) -> LayerJob:
    """Return what a request means for one layer.

    Args:
        model: what `bl.load` returned.
        request: what is wanted.
        layer: its name; None where the model has one layer.
        inputs: for the basis "whitened".
        memory_limit: as in `eigendecompose_all`.

    Raises:
        UsageError: If there is no such layer, output, basis or reading, or a reading of classes is
            asked of neurons.
        NotQuadraticError: If the layer is not quadratic and the closest map explains too little.
        MemoryLimitError: If no method, or the level of chance, fits into the memory allowed.
    """
    name = choose_layer(model, layer)
    outputs = LayerOutputs.of(model, name)
    read = read_outputs(outputs, request)
    mapped = layer_map(model, name, request.basis, inputs)
    num, d_in = len(read.names), mapped.f.sizes.d_in
    null = null_estimate(mapped.behind, mapped.embedding, num, request.null_samples)
    d_before = d_in if mapped.embedding is None else mapped.embedding.shape[1]
    width = solved_width(mapped.behind.sizes, d_before)
    work = num * (d_in**3 + request.null_samples * width**3)
    small = d_in <= WHOLE_WIDTH and num <= WHOLE_OUTPUTS and work <= WHOLE_WORK
    whole = request.spectrum == "whole" or (request.spectrum == "auto" and small)
    plan = plan_eigendecomposition(
        read.of(mapped.f),
        None,
        None if whole else min(request.top, d_in),
        request.method,
        precision=request.precision,
        memory_limit=memory_limit,
    )
    samples = request.null_samples if whole else 0
    peak = plan.peak_bytes
    if samples:
        least = null.fixed + null.each
        if least > plan.limit_bytes:
            raise MemoryLimitError(
                f"the level of chance of {num} effective ranks needs at least {readable(least)} "
                f"beside the map, the limit is {readable(plan.limit_bytes)}: allow more with "
                f"memory_limit or {MEMORY_LIMIT_VARIABLE}, or leave it out with --null-samples 0."
            )
        peak = max(peak, min(null.peak(num, CHUNK_BYTES), plan.limit_bytes))
    return LayerJob(request, outputs, read, mapped, whole, samples, plan, peak)
