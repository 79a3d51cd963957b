"""Runs the study of the findings' power; see `bench.power.page` for what it writes.

`make study-power DATA=folder` trains 180 models that overfit more or less, and 120 clean and
120 poisoned ones, into the folder of --models, and takes from there those that it holds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.power.models import measured, overfitting_setting, trigger_setting
from bench.power.overfitting import scores, weightwatcher
from bench.power.page import PAGE, page
from bench.power.trigger_section import roc_figure
from bench.power.triggers import trigger_row
from bilens.api.provenance import describe_run
from bilens.data.images import ImageDataset, load_images
from bilens.records.base import to_json

FIX, JUDGE = 120, 60  # models that overfit more or less: they fix the score, and judge it
TRIGGER_FIX, TRIGGER_JUDGE = 80, 40  # clean models, and poisoned ones: likewise
CLEAN, POISONED = 1000, 2000  # first seeds


def measure(data: ImageDataset, folder: Path) -> dict[str, Any]:
    """Return the numbers of all models as JSON values."""
    folder.mkdir(parents=True, exist_ok=True)
    overfitting = []
    for seed in range(FIX + JUDGE):
        model = measured("over", overfitting_setting(seed), data, folder)
        own = scores(model, data.image_shape)
        others = weightwatcher(model)
        half = "fix" if seed < FIX else "judge"
        overfitting.append({**model.numbers, "half": half, "scores": own, "weightwatcher": others})
        print("overfitting", seed, own["score"], model.numbers["gap"], flush=True)
    triggers = []
    for kind, first in (("clean", CLEAN), ("poison", POISONED)):
        for seed in range(TRIGGER_FIX + TRIGGER_JUDGE):
            setting = trigger_setting(first + seed, kind == "poison", data.image_shape)
            row = trigger_row(measured(kind, setting, data, folder), data.image_shape)
            half = "fix" if seed < TRIGGER_FIX else "judge"
            triggers.append({"kind": kind, "half": half, **row})
            print(kind, seed, row["score"], row["target_found"], flush=True)
    return {
        "data": data.source_kind,
        "num_test": len(data.test_images),
        "overfitting": overfitting,
        "triggers": triggers,
        "run": to_json(describe_run("make study-power", 0)),
    }


def compact(value: Any) -> Any:
    """Return JSON values with numbers of six digits, which is more than any of them bears."""
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [compact(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main() -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--models", type=Path, default=Path("runs/power-models"))
    options = parser.parse_args()
    result = compact(measure(load_images("mnist", options.data_dir, report=print), options.models))
    PAGE.mkdir(parents=True, exist_ok=True)
    (PAGE / "power.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "power.md").write_text(page(result))
    (PAGE / "power_roc.svg").write_text(roc_figure(result["triggers"]))


if __name__ == "__main__":
    main()
