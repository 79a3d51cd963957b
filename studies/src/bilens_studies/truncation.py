"""How few eigenvectors of a class keep the accuracy, by size of the classifier.

Axes in this file: K vectors kept of each class, C classes, B images.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor

from bilens import EigenDecomposition, ImageDataset
from bilens.algebra import select
from bilens.findings import IMAGES_AT_ONCE, predictions
from bilens.report import Curve, line_figure
from bilens.train import ImageRecipe
from bilens_studies.consistency import sized_recipes, sizes_of
from bilens_studies.page_writer import spread
from bilens_studies.published import Reproduced
from bilens_studies.study import Record, StudyOptions
from bilens_studies.vision import Model, SeedStudy, class_spectra

MOST, SHOWN = 60, 30  # vectors kept of a class at most; published
KEPT = range(MOST + 1)
DROPS = (0.01, 0.1, 1.0)  # % of the images
PUBLISHED_BASIS = "embedding"
DRAWN = 10.0  # % lost, above which nothing is drawn


class TruncationStudy(SeedStudy):
    """Accuracy against eigenvectors kept, on the classifiers of the study of consistency."""

    name = "vision/truncation"
    title = "Accuracy with few eigenvectors a class"
    datasets = ("mnist",)

    def recipes(self, options: StudyOptions, seed: int) -> dict[str, ImageRecipe]:
        return sized_recipes(options, seed)

    @torch.no_grad()
    def read_model(self, _options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        """Return accuracies, whole and by vectors kept from 0, in both bases."""
        x, y = data.test_images.double(), data.test_labels
        f = model.quadratic_map().detach().to(torch.float64)
        return {
            "whole": float((f(x).argmax(dim=1) == y).double().mean()),
            "input": by_count(class_spectra(model, "input"), x, y),
            "embedding": by_count(
                class_spectra(model, "embedding"), x @ model.embed.weight.double().T, y
            ),
        }

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        return {str(h): [cell[str(h)] for cell in cells.values()] for h in sizes_of(options)}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {}
        for h, runs in result.items():
            note = f"in the input basis {spread(errors(runs, 'input'), 2)}"
            found[f"error-{h}"] = Reproduced(tuple(errors(runs, PUBLISHED_BASIS)), note=note)
            counts = [enough(run, DROPS[1], PUBLISHED_BASIS) for run in runs]
            note = f"in the input basis {counts_shown(runs, DROPS[1])}"
            if beyond := sum(k > MOST for k in counts):
                note = f"more than {MOST} in {beyond} runs; {note}"
            known = () if beyond else tuple(map(float, counts))
            found[f"enough-{h}"] = Reproduced(
                known, False if beyond else None, note, runs=len(runs)
            )
        smallest = next(iter(result.values()))
        first = [enough(run, DROPS[0]) for run in smallest]
        note = f"{counts_shown(smallest, DROPS[0])} in the input basis; holds where it is at most "
        note += "five in every run"
        known = tuple(map(float, first)) if max(first) <= MOST else ()
        found["handful"] = Reproduced(known, max(first) <= 5, note, runs=len(first))  # fingers
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        curves = []
        for h, runs in result.items():
            lost = [100 * mean(run["whole"] - run["input"][k] for run in runs) for k in KEPT]
            points = tuple((k, value) for k, value in enumerate(lost) if value < DRAWN)
            curves.append(Curve(f"h {h}", points))
        title = "Accuracy lost by keeping k eigenvectors a class"
        return {"truncation.svg": line_figure(title, "k", "% lost", curves)}


def errors(runs: Sequence[Record], basis: str) -> list[float]:
    """Return the test errors with the published number of eigenvectors, %."""
    return [100 * (1 - float(run[basis][SHOWN])) for run in runs]


def whole_errors(runs: Sequence[Record]) -> list[float]:
    """Return the test errors without truncation, %."""
    return [100 * (1 - run["whole"]) for run in runs]


def counts_shown(runs: Sequence[Record], drop: float) -> str:
    """Return from how many vectors on each run stays within a drop."""
    counts = (enough(run, drop) for run in runs)
    return ", ".join(f"> {MOST}" if k > MOST else str(k) for k in counts)


def enough(run: Record, drop: float, basis: str = "input") -> int:
    """Return from how many vectors on the accuracy stays within a drop, %, of the whole one.

    More than are read, where it is too low with all of them.
    """
    counted = enumerate(run[basis], start=1)
    return max((k for k, one in counted if 100 * (run["whole"] - one) > drop + 1e-9), default=0)


def by_count(eigs: EigenDecomposition, x: Tensor, y: Tensor) -> list[float]:
    """Return the accuracy with the first 0, 1, … MOST eigenvectors of each class."""
    leading = select(eigs, MOST, "magnitude")
    right = [
        predictions(leading, part) == labels
        for part, labels in zip(*(torch.split(one, IMAGES_AT_ONCE) for one in (x, y)), strict=True)
    ]
    found: list[float] = torch.cat(right, dim=1).double().mean(dim=1).tolist()
    return found + found[-1:] * (MOST + 1 - len(found))  # a small embedding has fewer vectors
