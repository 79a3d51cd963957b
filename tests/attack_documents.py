"""Documents of attacks for tests, from a tiny model on strokes with dark edges."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import tiny
from bilens.api.classifier import attack_model
from bilens.data.images import ImageDataset

EPSILONS = (0.0, 1.0, 4.0)


def dark_edge() -> ImageDataset:
    """The strokes of `tiny.images`, their first row dark in training and test images."""
    data = tiny.images()
    train, test = data.train_images.clone(), data.test_images.clone()
    train[:, : tiny.SIDE] = test[:, : tiny.SIDE] = 0
    return replace(data, train_images=train, test_images=test)


@cache
def _made() -> dict[str, Any]:
    model = tiny.loaded(tiny.trained(), seed="1")
    report = attack_model(
        model, dark_edge(), epsilons=EPSILONS, random_perturbations=2, command="here"
    )
    return report.to_dict()


def make_attack() -> dict[str, Any]:
    """Return a document that a test may change."""
    return copy.deepcopy(_made())


def variants() -> dict[str, dict[str, Any]]:
    """Return documents that together need every sentence."""
    failed, pairs = make_attack(), make_attack()
    failed["holds"] = failed["objectives"][0]["holds"] = False
    pairs["objectives"] = [
        {**item, "source": (item["target"] + 1) % 3} for item in 8 * pairs["objectives"]
    ]
    free = make_attack()  # of data whose box is not known
    for objective in free["objectives"]:
        objective["clipped_images"] = 0
        for item in objective["perturbations"]:
            item["clipped"] = None
    for curve in free["curves"]:
        curve["clipped"] = None
    halved, older = make_attack(), make_attack()
    halved["split"]["halved"] = True
    older["split"] = None
    for curve in older["curves"]:
        curve["reads"] = ["training_images" if one == "inputs" else one for one in curve["reads"]]
    made = {"plain": make_attack(), "failed": failed, "pairs": pairs, "free": free}
    return {**made, "halved": halved, "older": older}
