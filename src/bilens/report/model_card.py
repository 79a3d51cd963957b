"""What a report says of a model, on its card: scores as the hub lists them, and the words."""

from pathlib import PurePath
from typing import Any

from msgspec import structs

from bilens.base.model_card import ModelCard, front_matter
from bilens.records.audit import Audit
from bilens.records.bilinear_conversion import Conversion
from bilens.report.markdown import audit_markdown, escaped
from bilens.report.sections.conversion import summary
from bilens.report.text import load_catalogue

INDEX = "model-index"  # the field of a card that has the scores
OF_LLAMA = """
`config.json` says `"hidden_act": "linear"`: **a program that hard-codes another activation runs a
different model**, without an error.
"""


def scores_of(record: Audit | Conversion, name: str) -> dict[str, Any]:
    """Return the field of the scores that a report measured; empty where it measured none."""
    found = audit_scores(record) if isinstance(record, Audit) else conversion_scores(record)
    return {INDEX: [{"name": name, "results": found}]} if found else {}


def audit_scores(record: Audit) -> list[dict[str, Any]]:
    """Return accuracy or R², on rows that the training may have seen named as such."""
    found = record.performance
    score = None if found is None else found.classification or found.regression
    if found is None or score is None:
        return []
    is_accuracy = found.classification is not None
    value = found.classification.accuracy.value if found.classification else score.r_squared
    if value is None:
        return []
    data = (record.data and record.data.name) or "unnamed"
    dataset, metric = {"type": data, "name": data}, dict[str, Any]()
    if found.rows_seen:
        seen_all = found.rows_seen == "all"
        dataset["split"] = "train" if seen_all else "train and test"
        rows = "training rows" if seen_all else f"rows of which {found.trained} are training rows"
        metric = {"name": f"{'accuracy' if is_accuracy else 'R²'} on {rows}"}
    metric |= {"type": "accuracy" if is_accuracy else "r_squared", "value": value}
    return [{"task": {"type": task_of(record)}, "dataset": dataset, "metrics": [metric]}]


def conversion_scores(record: Conversion) -> list[dict[str, Any]]:
    """Return what the conversion adds to the loss on held-out inputs of each domain."""
    task = "text-generation" if record.unit == "nats per token" else "other"
    said = f"loss added to that of the model that was converted, {record.unit}, held-out inputs"
    return [
        {
            "task": {"type": task},
            "dataset": {"type": one.name, "name": one.name},
            "metrics": [{"type": "loss_added", "value": one.loss_added, "name": said}],
        }
        for one in record.domains
    ]


def task_of(record: Audit) -> str:
    found = record.performance
    if record.columns is not None:
        return f"tabular-{record.model.task}"
    if found is not None and found.regression is not None:
        return "tabular-regression"
    shape = record.model.input_shape if record.classes is not None else found and found.image_shape
    return "image-classification" if shape and shape[0] > 1 else "tabular-classification"


def words_of(record: Audit | Conversion) -> str:
    """Return what a report says, in Markdown; of where the model lay its name alone."""
    if isinstance(record, Audit):
        source = structs.replace(record.source, path=PurePath(record.source.path).name)
        return audit_markdown(structs.replace(record, source=source))
    lines = summary(load_catalogue("en"), record)
    return "\n".join(["## What the conversion cost", "", *(f"- {escaped(one)}" for one in lines)])


def audit_card(record: Audit, name: str, markdown: str) -> str:
    """Return an audit as a section of a card, as evidence has it."""
    front = front_matter({"tags": ["bilens-audit"], **scores_of(record, name)})
    return f"{front}\n{markdown}"


def conversion_card(record: Conversion) -> ModelCard:
    """Return the card of a model with MLPs that were made bilinear."""
    package, is_llama = record.loaded_by.partition(".")[0], record.loaded_by.startswith("Auto")
    opened = (
        "from transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")'
        if is_llama
        else f'import bilens as {package}\n\nmodel = {record.loaded_by}("path/to/this/folder")'
    )
    layers = f"{len(record.layers)} of {len(record.layers) + len(record.kept)} layers"
    text = f"A `{record.model.kind}` of which {layers} were made bilinear, to be read exactly.\n"
    text += f"{OF_LLAMA if is_llama else ''}\n```python\n{opened}\n```"
    return ModelCard(
        title="Bilinear conversion",
        text=text,
        weights_sha256=record.source.weights_sha256,
        sizes={"parameters": record.num_parameters, "read exactly": record.exact_parameters},
        provenance=record.source.provenance,
        library="transformers" if is_llama else "bilens",
        task="text-generation" if record.unit == "nats per token" else "",
        tags=["bilinear"],
        scores=scores_of(record, PurePath(record.folder).name),
        measured=words_of(record),
    )
