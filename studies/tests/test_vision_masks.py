"""Masks: what is read off curves that are given, and that the study's settings are the paper's."""

from functools import partial

import pytest

from bilens_studies import masks
from bilens_studies.masks import FIG_B, MaskStudy
from bilens_studies.published import Reproduced, finding
from bilens_studies.study import Record, StudyOptions


def model(setting: str, seed: int, accuracy: float) -> Record:
    effect = {"accuracy": [1.0, accuracy, 0.1]}
    best = {"accuracy": [1.0, 0.5, 0.1]}
    curves = {"optimal": (best, -4.0, 0.0), "published": (effect, -1.0, 3.0)}
    return {
        "setting": setting,
        "seed": seed,
        "epsilons": [0.0, 4.2, 8.4],
        "curves": [
            {"kind": kind, "effect": effect, "change": [0, change, 0], "gap": [0, gap, 0]}
            for kind, (effect, change, gap) in curves.items()
        ],
    }


def test_effects_are_those_of_a_kind_and_a_length() -> None:
    models = [model(FIG_B, 0, 0.4), model(FIG_B, 1, 0.6), model("another", 0, 0.0)]
    read = [
        masks.mask_effects(models, FIG_B, "published", name, 4.2) for name in ("accuracy", "gap")
    ]
    assert read == [[0.4, 0.6], pytest.approx([75, 75])]  # it changes 1 of the 4 that can be


def test_images_without_dark_pixels_leave_out_masks_of_the_edge() -> None:
    models = [model(setting, 0, 0.4) for setting in (masks.FIG_A, FIG_B)]
    for one in models:
        for curve in one["curves"]:
            curve["effect"]["target_rate"] = [0.0, 0.2, 0.3]
    found = MaskStudy().reproduced({"models": models})
    assert found["a"].values == (0.4,)
    assert found["b"].values == ()
    assert finding(MaskStudy().published["b"], found["b"])["verdict"] == "not measured"


def test_every_published_row_is_read_at_a_length_that_is_measured() -> None:
    settings, lengths = ({row[place] for row in masks.ROWS.values()} for place in (0, 3))
    assert lengths <= set(masks.SHOWN)
    assert settings <= set(masks.SETTINGS)
    quantity = "Fig. 7 B, std 0.15: accuracy under random masks"
    assert MaskStudy().published["b-random"].quantity == quantity


def test_only_masks_of_the_published_length_are_judged() -> None:
    ours = Reproduced((0.9,) * 3)
    verdicts = {name: finding(one, ours)["verdict"] for name, one in MaskStudy().published.items()}
    assert verdicts["a"] == "agrees"
    assert verdicts["b-target"] not in ("agrees", "differs")
    unstated = [one for one in MaskStudy().published.values() if "TMLR" in one.source]
    assert not unstated


def test_the_noise_of_app_m_is_of_the_full_size() -> None:
    for full, noises in ((True, [0.15, 0.0, 0.3]), (None, [0.15, 0.0])):
        cells = MaskStudy().cells(StudyOptions(full=full, seeds=1))
        cell = cells["30-epochs-seed-0"]
        assert isinstance(cell, partial)
        assert [recipe.noise for recipe in cell.args[2].values()] == noises
