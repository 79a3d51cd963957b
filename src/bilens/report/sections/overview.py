"""What was read: model, sizes, data."""

from __future__ import annotations

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import whole


def facts(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return terms and values, in the order in which they are shown."""
    model = document["model"]
    pairs = [("facts.model", model["kind"])]
    if document["source"]["path"]:
        pairs.append(("facts.file", document["source"]["path"]))
    pairs += [
        ("facts.input", input_layout(t, document)),
        ("facts.hidden", whole(model["d_hidden"])),
        ("facts.classes", whole(model["d_output"])),
        (
            "facts.parameters",
            t(
                "facts.parameters_value",
                count=whole(model["num_parameters"]),
                dtype=model["dtype"],
            ),
        ),
        ("facts.terms", f"{yes_or_no(t, model['bias'])} / {yes_or_no(t, model['residual'])}"),
        ("facts.data", test_data(t, document)),
    ]
    return [(t(key), value) for key, value in pairs]


def yes_or_no(t: Catalogue, flag: bool) -> str:
    """Return a flag as a word."""
    return t("yes") if flag else t("no")


def input_layout(t: Catalogue, document: Document) -> str:
    """Return how an input is laid out, and whether that is an assumption."""
    model = document["model"]
    rows, columns = model["input_shape"]
    if rows == 1:
        return t("facts.input_row", inputs=whole(columns))
    shape = t("facts.input_image", rows=rows, columns=columns)
    return t("facts.input_assumed", shape=shape) if model["input_shape_assumed"] else shape


def test_data(t: Catalogue, document: Document) -> str:
    """Return which data the predictions were made on."""
    data = document["data"]
    if data is None:
        return t("facts.no_data")
    name, count = data["name"] or t("facts.unnamed_data"), whole(data["num_images"])
    return t("facts.data_value", name=name, count=count)
