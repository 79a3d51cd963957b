"""Certificate documents for tests: of tiny models, and changed so that every sentence is needed."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import bilens as bl
import tiny


@cache
def _certified(data: bool, pixels: bool) -> dict[str, Any]:
    model = tiny.loaded(tiny.trained(), seed="1")
    if pixels:
        model = replace(model, provenance={**model.provenance, "data_name": "strokes"})
    asked: dict[str, Any] = {"data": tiny.images(), "samples": 40} if data else {}
    return bl.certify_model(model, **asked, command="bilens certify runs/tiny").to_dict()


def make_certificate(*, data: bool = True, pixels: bool = True) -> dict[str, Any]:
    """The document of a trained tiny model, a copy of its own."""
    return copy.deepcopy(_certified(data, pixels))


def variants() -> dict[str, dict[str, Any]]:
    """Documents that together need every sentence of a page."""
    found = {"data": make_certificate(), "no data": make_certificate(data=False)}
    found["unlimited"] = unlimited = make_certificate()
    unlimited["l2"].update(median=None, num_open=2)
    unlimited["linf"].update(median_lower=None, median_upper=None)
    unlimited["l2"]["inputs"][0].update(radius=None, distance=None, rival=None)
    unlimited["l2"]["statuses"] = dict.fromkeys(unlimited["l2"]["statuses"], 1)
    found["asked"] = asked = make_certificate()
    asked["input_use"]["num_undecided"] = 3
    asked["truncation"].update(radius_origin="asked", chosen=2, chosen_by="asked")
    found["never enough"] = never = make_certificate()
    never["truncation"].update(chosen=None, chosen_by="none")
    found["unused"] = unused = make_certificate(data=False)
    unused["input_use"]["unused"] = list(range(25))
    unused["stability"][0].update(refused="a weight of size 7e+04 is beyond float16", classes=[])
    for item in unused["stability"][1]["classes"]:
        item["sines"] = [1.0] * len(item["sines"])
    found["own box"] = own = make_certificate()
    own["box"]["origin"] = "data"
    found["no box"] = make_certificate(data=False, pixels=False)
    found["row"] = row = make_certificate(data=False)
    row["model"].update(input_shape=[1, tiny.PIXELS])
    return found
