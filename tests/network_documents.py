"""Documents of readings of networks that together need every sentence of their page."""

from typing import Any

from msgspec.structs import replace

from bilens.records.base import to_json
from bilens.records.common import IN_MEMORY, Run, Source
from bilens.records.network_reading import (
    DistanceReading,
    InductionReading,
    LookedAt,
    NetworkReading,
    NetworkSummary,
    PathShare,
    TokenRule,
)

RUN = Run("bilens read net", 0, {"bilens": "0.1.0"}, "a processor", "2026-01-01")
PARTS = ("attention 0", "mlp 0", "attention 1", "mlp 1")


def rule(*ids: int, distance: tuple[int, ...] = (), **more: Any) -> TokenRule:
    names = tuple(f" t{one}" for one in ids)
    paths = (PathShare(PARTS, 0.75), PathShare((), -0.125), PathShare(("mlp 0",), 0.25))
    made = TokenRule(names[:-1], names[-1], ids, distance, 0.5, 2.5, None, 0.001, paths, 0.125)
    return replace(made, **more)


def reading(**more: Any) -> NetworkReading:
    """A network of two blocks, all of it looked at."""
    distances = (1, 2, 3)
    found = NetworkReading(
        model=NetworkSummary("PolynomialNetwork", PARTS, 100, 9, 8, 10, "the outputs of a probe"),
        looked=LookedAt("all", 9, 9, distances, 9, (2, 1), 10, 0),
        single=(rule(1, 2), rule(3, 4, chance=0.25)),
        single_beyond=1,
        pairs=(rule(1, 2, 3, distance=(2,), lowest=0.25),),
        distances=tuple(DistanceReading(at, 0.5, at, 0.875, 0.5) for at in distances),
        triples=(rule(1, 2, 1, 2, distance=(2, 1), chance=None),),
        triples_explained=0.25,
        induction=InductionReading(36, 72, 0.125, (" t1", " t2"), 9, 0.5),
        source=Source("net.safetensors", "ab" * 32, {}, {"net.safetensors": "ab" * 32}),
        reproduce=RUN,
    )
    return replace(found, **more)


def variants() -> dict[str, dict[str, Any]]:
    """Documents by name."""
    whole = reading()
    asked, after = (
        replace(whole.looked, chosen="given", tokens=5, single_tokens=5),
        tuple(map(str, range(50))),
    )
    often = InductionReading(72, 72, None, after, 60, 1.0)
    some = replace(whole.looked, chosen="strongest", tokens=5, distances=(1, 2, 4), samples=0)
    some = replace(some, from_start=True)
    far = tuple(DistanceReading(at, 0.5, None, 1.0, 0.5) for at in (1, 2, 4))
    alone = replace(whole.looked, distances=(), triple_tokens=0, triple_distance=(), samples=0)
    bare = replace(whole.model, parts=(), n_ctx=None, checked_against="")
    near = replace(whole.looked, distances=(1,), triple_tokens=0, triple_distance=())
    none: dict[str, Any] = {"triples": (), "triples_explained": None, "induction": None}
    deep = tuple(rule(1, 2, chance=None, paths=(), others=1.0) for _ in range(2))
    found = {
        "whole": whole,
        "given": reading(looked=asked, induction=often, single_beyond=0),
        "strongest": reading(looked=some, distances=far, induction=replace(often, tried=0)),
        "alone": reading(
            model=bare, looked=alone, single=deep, pairs=(), distances=(), source=IN_MEMORY, **none
        ),
        "few": reading(looked=replace(asked, triple_tokens=5), pairs=()),
        "some": reading(looked=asked),
        "chance": reading(single_beyond=0),
        "near": reading(looked=near, distances=whole.distances[:1], single=(), **none),
    }
    return {name: to_json(one) for name, one in found.items()}
