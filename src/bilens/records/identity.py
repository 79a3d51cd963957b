"""What a result is of: weights, how they were read, data, baseline and options, as one key."""

import hashlib
from collections.abc import Mapping
from typing import Literal, get_args

from bilens.records.base import Record, json_text

Part = Literal["weights", "reading", "data", "baseline", "options"]
PARTS: tuple[Part, ...] = get_args(Part)


class Identity(Record, frozen=True):
    """What a result is of; it counts for another one only where every part is the same.

    Each part is a SHA-256, empty for nothing: no data, no baseline. Without a hash of the weights
    it is nobody's.
    """

    weights: str  # of the files; of an adapter with its base
    reading: str = ""  # activation, roles, sizes, names of inputs and outputs, and head
    data: str = ""  # inputs and right answers as the model was given them
    baseline: str = ""  # weights and reading of the model that it was compared with
    options: str = ""  # what else the numbers depend on

    def parts_unlike(self, other: "Identity") -> tuple[Part, ...]:
        """Return the parts in which two results differ."""
        return tuple(one for one in PARTS if getattr(self, one) != getattr(other, one))


def key_of(values: Mapping[str, object]) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their names."""
    ordered = {name: values[name] for name in sorted(values)}
    return hashlib.sha256(json_text(ordered).encode()).hexdigest()
