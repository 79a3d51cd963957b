"""Do two trainings find the same eigenvectors? Within a size and between sizes, beside chance.

Every number is a mean over pairs of different runs; the runs are what is independent, so intervals
leave out one run at a time. What the published script would have printed stands beside.

Axes in this file: R runs, C classes, K leading vectors, D pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from statistics import mean, stdev

import torch
from scipy.stats import t as student
from torch import Tensor
from torch.nn import functional

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigenvector_matching import match_eigenvectors
from bilens.algebra.gaussian import mean_and_covariance
from bilens.base.errors import UsageError
from bilens.data.images import ImageDataset
from bilens.nn import BilinearClassifier
from bilens.report.charts.curves import Curve, line_figure
from bilens.studies.comparison import Measured, Published, table
from bilens.studies.study import CellContext, Measure, Record, StudyOptions
from bilens.studies.vision import VisionStudy, image_cell, in_pixels, recipe_of
from bilens.train.randomness import STEP, stream
from bilens.train.tasks.image import ImageRecipe, accuracy

SIZES, NUM_USUAL, QUICK_SIZES = (30, 50, 100, 300, 500, 1000), 4, (30, 50)
NOISE = 0.4
TOP, SPACE = 20, 10  # vectors of a class by |λ|; those whose space is compared in the tables
READ_OFF = 0.1  # relative error of numbers that are read off a published figure
WITH_SELF = (0.82, 0.84, 0.91, 0.91, 0.92, 0.92)
WITHOUT_SELF = (0.73, 0.76, 0.87, 0.87, 0.88, 0.88)
SELF_SHARE = 1 / 3  # of the published pairs: 5 of 15 are a run with itself
SELF_PAIRS = (
    "5 of its 15 pairs are a run with itself, and 150 values count as independent: compared "
    "without self-pairs, intervals over runs; the most negative eigenvalues come first, in the "
    "embedding basis: ours by |λ| in the input basis beside it"
)
ORDER = (
    "the most negative eigenvalues come first, in the embedding basis, and a run may be paired "
    "with itself: ours is of the largest |λ| in the input basis, of different runs, so that it may "
    "lie elsewhere; like is compared with like in the row of the published script"
)


def sizes_of(options: StudyOptions) -> tuple[int, ...]:
    return options.choose(QUICK_SIZES, SIZES[:NUM_USUAL], SIZES)


def sized_recipes(options: StudyOptions, seed: int) -> list[ImageRecipe]:
    """Return the recipes of one pass: every size, the same images and noise."""
    return [recipe_of(options, d_hidden=h, noise=NOISE, seed=seed) for h in sizes_of(options)]


class ConsistencyStudy(VisionStudy):
    """Cosines of eigenvectors between runs of one size, and between sizes."""

    name = "vision/consistency"
    title = "Eigenvectors across seeds and sizes"
    datasets = ("mnist",)
    published = {  # noqa: RUF012 - a constant
        **{
            f"top-{h}": Published(
                f"h {h}: cosine of the first eigenvectors of two runs, by |λ| in the input basis",
                "§4.2, Fig. 5 A",
                value=0.85,
                tolerance=0.05,
                flaw=ORDER if h == SIZES[0] else "as above",
            )
            for h in SIZES
        },
        **{
            f"script-{h}": Published(
                f"the published script without self-pairs, h {h}: cosine at index 0",
                "ipantelidis/bilinear-mlp-repro, read off",
                value=without,
                tolerance=READ_OFF * without,
                others=f"with self-pairs {value}",
                flaw=SELF_PAIRS if h == SIZES[0] else "as above",
            )
            for h, value, without in zip(SIZES, WITH_SELF, WITHOUT_SELF, strict=True)
        },
    }

    def check(self, options: StudyOptions) -> None:
        """Refuse what any study refuses, and a single run."""
        super().check(options)
        if (num := len(self.seeds(options))) < 2:
            raise UsageError(
                f"{self.name} compares runs and was given --seeds {num}: give at least 2."
            )

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        passes = {
            f"seed-{seed}": image_cell(options, "mnist", sized_recipes(options, seed), accuracies)
            for seed in self.seeds(options)
        }
        return {**passes, "pairs": partial(compare_runs, options, self.seeds(options))}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        runs = [cell["accuracy"] for name, cell in cells.items() if name != "pairs"]
        accuracy_by_size = {
            str(h): mean(run[index] for run in runs) for index, h in enumerate(sizes_of(options))
        }
        return {"seeds": len(runs), "accuracy": accuracy_by_size, **cells["pairs"]}

    def ours(self, result: Record) -> Mapping[str, Measured]:
        found = {}
        for h, one in result["sizes"].items():
            script, top = one["script"][0], one["by_index"][0]
            found[f"top-{h}"] = Measured(tuple(top["runs"]))
            note = f"with 5 self-pairs of 15 {printed(script):.3f}; by |λ|, input basis {told(top)}"
            found[f"script-{h}"] = Measured(tuple(script["runs"]), note=note)
        return found

    def figures(self, document: Record) -> Mapping[str, str]:
        result = document["result"]
        chance = Curve("other class", tuple(enumerate(result["other_classes"])), dashed=True)
        drawn = {}
        for file, key, title in (
            ("consistency.svg", "by_index", "Input basis, by |λ|, pairs of different runs"),
            ("script.svg", "script", "Published order (most negative first), no self-pairs"),
        ):
            curves = [
                Curve(f"h {h}", tuple((k, x["value"]) for k, x in enumerate(one[key])))
                for h, one in result["sizes"].items()
            ]
            drawn[file] = line_figure(title, "index", "mean |cos|", [*curves, chance])
        return drawn

    def parts(self, result: Record) -> Record:
        sizes = result["sizes"]
        rows = (
            [
                h,
                f"{result['accuracy'][h]:.2%}",
                *(told(one["by_index"][k]) for k in (0, 1, 4)),
                *(told(one[name]) for name in ("first_assigned", "centred", "assigned", "space")),
                f"{printed(one['script'][0]):.3f} ± {one['as_published']:.3f}",
                told(one["script"][0]),
            ]
            for h, one in sizes.items()
        )
        heads = (
            "h | accuracy | 1st | 2nd | 5th | 1st, matched | 1st, class-centred | all matched | "
            "space | script | script, no self-pairs"
        )
        by_class = (
            [c, *(f"{one['by_class'][c]:.3f}" for one in sizes.values())] for c in range(10)
        )
        between = {
            name: table(
                f"h | {' | '.join(sizes)}",
                ([a, *(told(result["between"][f"{a}-{b}"][name]) for b in sizes)] for a in sizes),
            )
            for name in ("first", "space")
        }
        return {
            "rows": table(heads, rows),
            "by_class": table(f"class | {' | '.join(f'h {h}' for h in sizes)}", by_class),
            "first": between["first"],
            "space": between["space"],
            "chance": table(
                "chance | mean cosine",
                ([name, f"{value:.3f}"] for name, value in result["chance"].items()),
            ),
            "num_space": SPACE,
            "top": TOP,
            "noise": NOISE,
        }


def told(one: Record) -> str:
    if one["low"] is None:
        return f"{one['value']:.3f}"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def printed(without_self: Record) -> float:
    """Return what the script would print of five runs, each paired with itself too."""
    return SELF_SHARE + (1 - SELF_SHARE) * float(without_self["value"])


def accuracies(data: ImageDataset, models: Sequence[BilinearClassifier]) -> Record:
    return {"accuracy": [accuracy(one, data.test_images, data.test_labels) for one in models]}


def compare_runs(options: StudyOptions, seeds: Sequence[int], context: CellContext) -> Record:
    """Read all runs, and return what their eigenvectors have in common, by size and between."""
    data, sizes, n = options.images("mnist"), sizes_of(options), len(seeds)
    recipes = [recipe for seed in seeds for recipe in sized_recipes(options, seed)]
    trained = context.classifiers(data, recipes)
    runs = [model for index in range(len(sizes)) for model in trained[index :: len(sizes)]]
    eigs = [leading(model) for model in runs]
    vectors = torch.stack([eig.eigenvectors for eig in eigs])
    cosines = overlaps(vectors)  # (C, R, R, K, K)
    script = overlaps(torch.stack([published_vectors(model) for model in runs]))
    centred = overlaps(torch.stack([leading(model, True).eigenvectors[:, :1] for model in runs]))
    assigned, first_assigned, by_match = matched(eigs)
    by_index = cosines.diagonal(dim1=3, dim2=4)
    by_index_script = script.diagonal(dim1=3, dim2=4)
    space = cosines[..., :SPACE, :SPACE].square().sum(dim=(3, 4)) / SPACE
    found: Record = {"sizes": {}, "between": {}}
    for a, h in enumerate(sizes):
        for b, other in enumerate(sizes):
            rows, columns = (slice(place * n, (place + 1) * n) for place in (a, b))
            used = ~torch.eye(n, dtype=torch.bool) if a == b else torch.ones(n, n, dtype=torch.bool)

            def over(
                pairs: Tensor, r: slice = rows, c: slice = columns, u: Tensor = used
            ) -> Record:
                return over_runs(pairs[:, r, c].mean(dim=0), u)

            found["between"][f"{h}-{other}"] = {
                "first": over(by_index[..., 0]),
                "space": over(space),
            }
            if a == b:
                found["sizes"][str(h)] = {
                    "by_index": [over(by_index[..., k]) for k in range(TOP)],
                    "by_class": by_index[:, rows, rows, 0][:, used].mean(dim=1).tolist(),
                    "centred": over(centred[..., 0, 0]),
                    "first_assigned": over(first_assigned),
                    "assigned": over(assigned),
                    "space": over(space),
                    "script": [over(by_index_script[..., k]) for k in range(TOP)],
                    "as_published": published_half(by_index_script[:, rows, rows, 0]),
                }
    by_class = other_classes(vectors)
    chance = {**chance_of(data), "other class, 1st": by_class[0], "all matched": by_match}
    return {**found, "chance": chance, "other_classes": by_class}


def leading(model: BilinearClassifier, centred: bool = False) -> EigenDecomposition:
    """Return the leading pairs of all classes, of the logits or of their distance to the mean."""
    f = model.quadratic_map().detach().to(torch.float64)
    eye = torch.eye(f.sizes.d_out, dtype=f.dtype)
    return eigendecompose_all(f, directions=eye - centred / len(eye), k=TOP)


def published_vectors(model: BilinearClassifier) -> Tensor:
    """Return (C, K, D): by rising eigenvalue in the embedding basis, mapped to pixels."""
    f = model.quadratic_map("embedding").detach().to(torch.float64)
    eig = eigendecompose_all(f, k=TOP, which="smallest")  # by |λ| among those
    order = eig.eigenvalues.argsort(dim=1)[..., None].expand(-1, -1, model.embed.in_features)
    return functional.normalize(in_pixels(model, eig).gather(1, order), dim=-1)


def overlaps(vectors: Tensor) -> Tensor:
    """Return |cos| of unit vectors (R, C, K, D) of any two runs, (C, R, R, K, K)."""
    return torch.einsum("rckd,scld->crskl", vectors, vectors).abs()


def matched(eigs: Sequence[EigenDecomposition]) -> tuple[Tensor, Tensor, float]:
    """Return cosines after the best pairing, (C, R, R): of all vectors, of the first; and chance.

    The mean of all pairs, and of the pairs of either run's first vector; chance is of the mean.
    """
    num, classes, draws = len(eigs), len(eigs[0].eigenvalues), stream(0, STEP)
    found, chances = torch.ones(2, classes, num, num, dtype=torch.float64), []
    for i, j, c in product(range(num), range(num), range(classes)):
        if j < i:
            match = match_eigenvectors(eigs[i][c], eigs[j][c], draws, num_samples=1)
            first = [0 in mine or 0 in theirs for mine, theirs in match.pairs]
            cosines = match.cosines[torch.tensor(first)]
            pair = torch.tensor([match.score, float(cosines.mean()) if len(cosines) else 0.0])
            found[:, c, i, j] = found[:, c, j, i] = pair
            chances.append(match.chance)
    return found[0], found[1], mean(chances)


def over_runs(pairs: Tensor, used: Tensor) -> Record:
    """Return the mean over the pairs (n, n) that are used, with a 90 % interval over runs.

    Jackknife: the values of the runs are n θ − (n − 1) θ₍₋ᵢ₎, θ₍₋ᵢ₎ without the pairs of run i.
    """
    n, whole = len(pairs), float(pairs[used].mean())
    if n < 3:
        return {"value": whole, "low": None, "high": None, "runs": [whole]}
    values = []
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        kept = pairs[rest][:, rest][used[rest][:, rest]]
        values.append(n * whole - (n - 1) * float(kept.mean()))
    half = float(student.ppf(0.95, n - 1)) * stdev(values) / math.sqrt(n)
    return {"value": whole, "low": whole - half, "high": whole + half, "runs": values}


def published_half(cosines: Tensor) -> float:
    """Return half the published kind of interval: all pairs (C, n, n), self-pairs too, are one."""
    n = cosines.shape[-1]
    pairs = cosines[:, *torch.triu_indices(n, n)].flatten()
    half = float(student.ppf(0.95, len(pairs) - 1)) * float(pairs.std())
    return half / math.sqrt(len(pairs))


def chance_of(data: ImageDataset) -> dict[str, float]:
    """Return E|cos| ≈ √(2/πd) of random directions, and of random images: d = (tr Σ)² / tr Σ²."""
    _, covariance = mean_and_covariance(data.train_images)
    effective = float(covariance.trace() ** 2 / covariance.square().sum())
    return {
        name: math.sqrt(2 / (math.pi * d))
        for name, d in (("random pixels", len(covariance)), ("random smooth images", effective))
    }


def other_classes(vectors: Tensor) -> list[float]:
    """Return, by index, the mean |cos| of eigenvectors of different classes in different runs."""
    runs, classes, top, _ = vectors.shape
    apart = ~torch.eye(runs, dtype=torch.bool)[:, None, :, None]
    apart = (apart & ~torch.eye(classes, dtype=torch.bool)[:, None]).reshape(runs * classes, -1)
    by_index = (vectors[:, :, k].flatten(0, 1) for k in range(top))
    return [float((v @ v.T).abs()[apart].mean()) for v in by_index]
