"""How the certificate of one input ended, whichever the norm."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from bilens.certify.samples import Samples


class RadiusStatus(Enum):
    """How the certificate of one input ended."""

    CERTIFIED = "the radius is proven, and an example bounds the true distance from above"
    MISCLASSIFIED = "another output is larger at the input itself"
    TIED = "at the input itself, two outputs cannot be told apart: equal within their rounding"
    UNREACHABLE = "no input whatever is given to another output"
    NO_EXAMPLE = "the radius is proven, but no example was found: the distance may be larger"
    NOT_FINITE = "the input, or the map at it, is not finite: nothing is said"


def statuses(samples: Samples, radius: Tensor, distance: Tensor) -> tuple[RadiusStatus, ...]:
    """Return one status for each input, from its radius and the distance of its example."""
    status = [RadiusStatus.CERTIFIED] * len(radius)
    for kind, where in (  # a later one takes precedence
        (RadiusStatus.NO_EXAMPLE, distance.isinf()),
        (RadiusStatus.UNREACHABLE, radius.isinf()),
        (RadiusStatus.TIED, samples.stays),
        (RadiusStatus.MISCLASSIFIED, samples.lost),
        (RadiusStatus.NOT_FINITE, ~samples.usable),
    ):
        for row in where.nonzero()[:, 0].tolist():
            status[row] = kind
    return tuple(status)
