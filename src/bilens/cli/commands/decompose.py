"""`bilens decompose`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilens.api.decomposition_request import Request
from bilens.base.errors import NumericalError
from bilens.base.option_rules import refuse_idle
from bilens.cli.console import Output, after
from bilens.cli.options import METHOD_PANEL, Lang, Overwrite, option
from bilens.cli.shared_options import DataFiles, NamedFile

if TYPE_CHECKING:
    from rich.table import Table

PATIENCE = 2.0  # seconds before a decomposition reports its progress


@dataclass(frozen=True)
class Doing:
    """Which layers, within what, and where to."""

    layer: list[str] | None = option(None, "Layer; may be repeated. All layers without.")
    memory_limit: str | None = option(
        None, "Memory beside the model, such as 800M or 4GiB.", panel=METHOD_PANEL
    )
    out: Path | None = option(
        None,
        "Folder for <layer>.safetensors and <layer>.json; layers that are there already are not "
        "computed again.",
    )
    plan: bool = option(False, "Only say what would be done: method, memory, and why.")
    lang: Lang = option("en", "Language of the tables; messages are in English.")


def decompose(
    output: Output,
    source: NamedFile,
    asked: Request,
    data: DataFiles,
    doing: Doing,
    overwrite: Overwrite = False,
) -> None:
    """Take the outputs of each layer apart: eigenvalues, residuals, effective rank.

    Example: bilens decompose runs/demo --top 5 --contrast 4 9
    """
    from bilens.api.layer_decomposition import decompose_layers, plan_layers
    from bilens.api.layer_reading import moments_of
    from bilens.records.base import SCHEMA_VERSION, read_document, to_json
    from bilens.records.decomposition import LayerDecomposition
    from bilens.report.terminal_readings import (
        decomposition_lines,
        decomposition_table,
        plan_lines,
        plan_table,
    )

    refuse_idle("decompose", {**vars(asked), **vars(data)}, *asked.facts)
    model = source.open(output.say)
    inputs = None
    if asked.basis == "whitened":
        inputs = moments_of(data.find(model, output.say), model)
    how: dict[str, Any] = {"layers": doing.layer or [], "inputs": inputs}
    how["memory_limit"] = doing.memory_limit
    if doing.plan:
        plans = plan_layers(model, asked, **how)
        document = {"schema_version": SCHEMA_VERSION, "kind": "decomposition plan"}
        document["layers"] = [*map(to_json, plans)]
        output.answer(document, plan_table(plans, doing.lang), *plan_lines(plans, doing.lang))
        return
    how |= {"folder": doing.out, "overwrite": overwrite}
    with output.progress() as progress:
        records = decompose_layers(model, asked, progress=after(PATIENCE, progress), **how)
    document = {"schema_version": SCHEMA_VERSION, "kind": "decomposition", "layers": records}
    parts: list[Table | str] = []
    for record in () if output.as_json else records:
        found = read_document(LayerDecomposition, record)
        parts += [*decomposition_lines(found, doing.lang)]
        parts.append(decomposition_table(found, doing.lang))
    output.answer(document, *parts)
    if doing.out is not None:
        output.say(f"Pairs and records: {doing.out}")
    check_decomposed(records)


def check_decomposed(records: Sequence[dict[str, Any]]) -> None:
    """Refuse to end as if all were well where outputs were not decomposed."""
    from bilens.algebra.eigen.decomposition import Status

    outputs = [item for record in records for item in record["outputs"]]
    failed = [item for item in outputs if item["status"] != Status.OK.value]
    if failed:
        raise NumericalError(
            f"{len(failed)} of {len(outputs)} outputs were not decomposed: "
            "rescale the weights, or read the outputs that are complete."
        )
