"""Documents without the rows of data that stand in them, for readers who are not to have these."""

from typing import Any, TypeVar

from msgspec import structs

from bilens.findings import rules_asked_for
from bilens.records import ActiveContext, Finding, Record, views
from bilens.report import NONE

Shown = TypeVar("Shown")


def without_rows(value: Shown) -> Shown:
    """Return a document without what its fields and rules mark as rows, cells or answers of data.

    Of a stretch of text the token at which a latent is strongest is left.
    """
    return _cut(value)  # type: ignore[no-any-return]


def _cut(value: Any) -> Any:
    match value:
        case ActiveContext(peak=peak):
            token, activation = value.tokens[peak], value.activations[peak]
            return structs.replace(value, peak=0, tokens=(token,), activations=(activation,))
        case Finding() if rule := rules_asked_for().get(value.rule):
            cells = {name: NONE for name in value.values if rule.values.get(name) == "cell"}
            return structs.replace(value, values=value.values | cells)
        case Record():
            left_out = {name: one.instead for name, one in views(type(value)).items()}
            fields = {name: _cut(getattr(value, name)) for name in value.__struct_fields__}
            cut = {name: one for name, one in left_out.items() if one is not ...}
            return structs.replace(value, **fields | cut)
        case (Record(), *_) | ((Record(), *_), *_):
            return tuple(map(_cut, value))
    return value
