"""Documents without the rows of data that stand in them, for readers who are not to have these."""

from typing import Any, TypeVar

from msgspec import structs

from bilens.records import (
    ActiveContext,
    ClassReadings,
    ColumnReadings,
    GivenInputs,
    Performance,
    Record,
    Regression,
)

# Records that hold single rows of data → the field in which they are.
ROWS: dict[type[Record], str] = {
    ClassReadings: "explanations",
    ColumnReadings: "rows",
    GivenInputs: "examples",
    Performance: "mistakes",
    Regression: "residuals",
}
Shown = TypeVar("Shown")


def without_rows(value: Shown) -> Shown:
    """Return a document without inputs, labels and answers of single rows.

    Of a stretch of text the token at which a latent is strongest is left.
    """
    return _cut(value)  # type: ignore[no-any-return]


def _cut(value: Any) -> Any:
    match value:
        case ActiveContext(peak=peak):
            token, activation = value.tokens[peak], value.activations[peak]
            return structs.replace(value, peak=0, tokens=(token,), activations=(activation,))
        case Record():
            left_out = ROWS.get(type(value), "")
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            return structs.replace(
                value,
                **{name: () if name == left_out else _cut(one) for name, one in fields.items()},
            )
        case (Record(), *_) | ((Record(), *_), *_):
            return tuple(map(_cut, value))
    return value
