"""How few eigenvectors of a class keep the accuracy, by size, and what is proven of the answers.

Axes in this file: K vectors kept of each class, C classes, B images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, select
from bilens.certify.truncation import certified_agreement
from bilens.data.images import ImageDataset
from bilens.findings.subject import IMAGES_AT_ONCE, predictions
from bilens.nn import BilinearClassifier
from bilens.report.charts.curves import Curve, line_figure
from bilens.studies.comparison import Measured, Published, spread, table
from bilens.studies.consistency import READ_OFF, SIZES, sized_recipes, sizes_of, told_once
from bilens.studies.study import Record, StudyOptions
from bilens.studies.vision import Models, SeedStudy, class_spectra
from bilens.train.tasks.image import ImageRecipe

MOST, SHOWN = 60, 30  # vectors kept of a class at most; published
KEPT = range(MOST + 1)
ERRORS = (4.0, 3.2, 2.4, 1.8, 1.65, 1.55)  # % at 30
ENOUGH = "eigenvectors a class for a drop of at most 0.1 %"
COUNTS = (11, 13, 16, 20, 22, 28)
DROPS = (0.01, 0.1, 1.0)  # % of the images
CERTIFIED_SIZES = (100, 30)  # the first that is trained
CERTIFIED_AT = (1, 2, 5, 10, 20, 30, 50, 100, 200)
PLOT = "Fig. 5 B by ipantelidis/bilinear-mlp-repro, read off"
AXIS = "the published axis ends at 0.1 %, so 0.01 % cannot be read off it: k for three drops"
ORDER = (
    "by |λ| in the embedding basis, where the order depends on how the embedding is written: the "
    "input basis beside it"
)
PUBLISHED_BASIS = "embedding"
DRAWN = 10.0  # % lost, above which nothing is drawn


class TruncationStudy(SeedStudy):
    """Accuracy against eigenvectors kept, on the classifiers of the study of consistency."""

    name = "vision/truncation"
    title = "Accuracy with few eigenvectors a class"
    datasets = ("mnist",)
    published = {  # noqa: RUF012 - a constant
        "handful": Published(
            "eigenvectors a class for a drop of at most 0.01 %, the smallest size",
            "§4.2, text",
            claim="a handful",
            flaw=AXIS,
        ),
        **{
            f"error-{h}": Published(
                f"h {h}: test error with {SHOWN} eigenvectors a class, %",
                PLOT,
                error,
                tolerance=READ_OFF * error,
            )
            for h, error in zip(SIZES, ERRORS, strict=True)
        },
        **{
            f"enough-{h}": Published(
                f"h {h}: {ENOUGH}", PLOT, k, tolerance=1 + READ_OFF * k, flaw=flaw
            )
            for h, k, flaw in zip(SIZES, COUNTS, told_once(ORDER), strict=True)
        },
    }

    def recipes(self, options: StudyOptions, seed: int) -> list[ImageRecipe]:
        return sized_recipes(options, seed)

    def read(self, options: StudyOptions, data: ImageDataset, models: Models) -> Record:
        sizes = sizes_of(options)
        chosen = next(h for h in CERTIFIED_SIZES if h in sizes)
        pairs = zip(sizes, models, strict=True)
        return {"sizes": [truncated(model, data, h == chosen) for h, model in pairs]}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {
            str(h): [cell["sizes"][index] for cell in cells.values()]
            for index, h in enumerate(sizes_of(options))
        }

    def ours(self, result: Record) -> Mapping[str, Measured]:
        found = {}
        for h, runs in result.items():
            errors = tuple(error(run, PUBLISHED_BASIS) for run in runs)
            note = f"in the input basis {spread([error(run, 'input') for run in runs], 2)}"
            found[f"error-{h}"] = Measured(errors, note=note)
            counts = [enough(run, DROPS[1], PUBLISHED_BASIS) for run in runs]
            known = tuple(float(k) for k in counts if k is not None)
            note = f"in the input basis {several([enough(run, DROPS[1]) for run in runs])}"
            if len(known) < len(runs):
                known, note = (), f"more than {MOST} in {len(runs) - len(known)} runs; {note}"
            found[f"enough-{h}"] = Measured(known, None if known else False, note)
        first = [enough(run, DROPS[0]) for run in next(iter(result.values()))]
        found["handful"] = Measured(
            tuple(float(k) for k in first if k is not None),
            all(k is not None and k <= 5 for k in first),  # fingers
            "holds where it is at most five in every run",
        )
        return found

    def figures(self, document: Record) -> Mapping[str, str]:
        curves = []
        for h, runs in document["result"].items():
            lost = [100 * mean(run["whole"] - run["input"][k] for run in runs) for k in KEPT]
            points = tuple((k, value) for k, value in enumerate(lost) if value < DRAWN)
            curves.append(Curve(f"h {h}", points))
        title = "Accuracy lost by keeping k eigenvectors a class"
        return {"truncation.svg": line_figure(title, "k", "% lost", curves)}

    def parts(self, result: Record) -> Record:
        rows = (
            [
                h,
                spread([100 * (1 - run["whole"]) for run in runs], 2),
                spread([error(run, "input") for run in runs], 2),
                *(several([enough(run, drop) for run in runs]) for drop in DROPS),
            ]
            for h, runs in result.items()
        )
        drops = " | ".join(f"k for {drop:g} %" for drop in DROPS)
        size, runs = next((h, runs) for h, runs in result.items() if "certified" in runs[0])
        certified = (
            [same[0][0], *(spread([100 * one[place] for one in same], 2) for place in (1, 2))]
            for same in zip(*(run["certified"] for run in runs), strict=True)
        )
        return {
            "rows": table(f"h | error, % | error at {SHOWN}, % | {drops}", rows),
            "certified": table("k | class proven unchanged, % | class unchanged, %", certified),
            "size": size,
            "most": MOST,
        }


def error(run: Record, basis: str) -> float:
    """Return the test error with the published number of eigenvectors, %."""
    return 100 * (1 - float(run[basis][SHOWN]))


def enough(run: Record, drop: float, basis: str = "input") -> int | None:
    """Return from how many vectors on the accuracy stays within a drop, %, of the whole one."""
    lost = [100 * (run["whole"] - one) > drop + 1e-9 for one in run[basis]]
    return None if lost[-1] else len(lost) - lost[::-1].index(True) if any(lost) else 0


def several(counts: Sequence[int | None]) -> str:
    return ", ".join(f"> {MOST}" if k is None else str(k) for k in counts)


@torch.no_grad()
def truncated(model: BilinearClassifier, data: ImageDataset, certified: bool) -> Record:
    """Return accuracies, whole and by vectors kept from 0, in both bases; and certificates."""
    x, y = data.test_images.double(), data.test_labels
    f = model.quadratic_map().detach().to(torch.float64)
    eigs = class_spectra(model, "input")
    embedded = x @ model.embed.weight.double().T
    found: Record = {
        "whole": float((f(x).argmax(dim=1) == y).double().mean()),
        "input": by_count(eigs, x, y),
        "embedding": by_count(class_spectra(model, "embedding"), embedded, y),
    }
    if certified:
        proofs = ((k, certified_agreement(f, k, x, eigs)) for k in CERTIFIED_AT)
        found["certified"] = [(k, one.certified_share, one.agreeing_share) for k, one in proofs]
    return found


def by_count(eigs: EigenDecomposition, x: Tensor, y: Tensor) -> list[float]:
    """Return the accuracy with the first 0, 1, … MOST eigenvectors of each class."""
    leading = select(eigs, MOST, "magnitude")
    right = [
        predictions(leading, part) == labels
        for part, labels in zip(*(torch.split(one, IMAGES_AT_ONCE) for one in (x, y)), strict=True)
    ]
    found: list[float] = torch.cat(right, dim=1).double().mean(dim=1).tolist()
    return found + found[-1:] * (MOST + 1 - len(found))  # a small embedding has fewer vectors
