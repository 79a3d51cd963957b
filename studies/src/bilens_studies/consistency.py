"""Do two trainings find the same eigenvectors? Within a size and between sizes, beside chance.

Every number is a mean over pairs of different runs; the runs are what is independent, so intervals
leave out one run at a time. What the published script would have printed stands beside.

Axes in this file: R runs, C classes, K leading vectors, D pixels.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from statistics import mean, stdev

import torch
from scipy.stats import t as student
from torch import Tensor
from torch.nn import functional

from bilens import (
    EigenDecomposition,
    ImageDataset,
    QuadraticMap,
    eigendecompose_all,
    match_eigenvectors,
)
from bilens.algebra import mean_and_covariance
from bilens.base.errors import UsageError
from bilens.nn import BilinearClassifier
from bilens.report import Curve, line_figure
from bilens.train import STEP, ImageRecipe, accuracy, stream
from bilens_studies.page_writer import formatted
from bilens_studies.published import Reproduced
from bilens_studies.study import CellContext, Measure, Record, StudyOptions
from bilens_studies.vision import Model, SeedStudy, in_pixels, recipe_of

SIZES, NUM_USUAL, QUICK_SIZES = (30, 50, 100, 300, 500, 1000), 4, (30, 50)
NOISE = 0.4
TOP, SPACE = 20, 10  # vectors of a class by |λ|; those whose space is compared in the tables
SELF_SHARE = 1 / 3  # of the published pairs: 5 of 15 are a run with itself


def sizes_of(options: StudyOptions) -> tuple[int, ...]:
    return options.choose(QUICK_SIZES, SIZES[:NUM_USUAL], SIZES)


def sized_recipes(options: StudyOptions, seed: int) -> dict[str, ImageRecipe]:
    """Return the recipes of one pass: every size, the same images and noise."""
    recipe = partial(recipe_of, options, noise=NOISE, seed=seed)
    return {str(h): recipe(d_hidden=h) for h in sizes_of(options)}


class ConsistencyStudy(SeedStudy):
    """Cosines of eigenvectors between runs of one size, and between sizes."""

    name = "vision/consistency"
    title = "Eigenvectors across seeds and sizes"
    datasets = ("mnist",)

    def check(self, options: StudyOptions) -> None:
        """Refuse what any study refuses, and a single run."""
        super().check(options)
        if (num := len(self.seeds(options))) < 2:
            raise UsageError(
                f"{self.name} compares runs and was given --seeds {num}: give at least 2."
            )

    def recipes(self, options: StudyOptions, seed: int) -> dict[str, ImageRecipe]:
        return sized_recipes(options, seed)

    def read_model(self, _options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        return {"accuracy": accuracy(model, data.test_images, data.test_labels)}

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        pairs = partial(compare_runs, options, self.seeds(options))
        return {**super().cells(options), "pairs": pairs}

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        runs = [cell for name, cell in cells.items() if name != "pairs"]
        sizes = map(str, sizes_of(options))
        right = {h: mean(run[h]["accuracy"] for run in runs) for h in sizes}
        return {"seeds": len(runs), "accuracy": right, **cells["pairs"]}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {}
        for h, one in result["sizes"].items():
            script, top = one["script"][0], one["by_index"][0]
            found[f"top-{h}"] = Reproduced(tuple(top["runs"]))
            note = f"with 5 self-pairs of 15 {printed_by_script(script):.3f}; by |λ|, input basis "
            note += formatted(top, ".3f")
            found[f"script-{h}"] = Reproduced(tuple(script["runs"]), note=note)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        drawn = {}
        chance = Curve("other class", tuple(enumerate(result["other_classes"])), dashed=True)
        for key, title in (
            ("by_index", "Input basis, by |λ|, pairs of different runs"),
            ("script", "Published order (most negative first), no self-pairs"),
        ):
            curves = [
                Curve(f"h {h}", tuple((k, x["value"]) for k, x in enumerate(one[key])))
                for h, one in result["sizes"].items()
            ]
            drawn[f"{key}.svg"] = line_figure(title, "index", "mean |cos|", [*curves, chance])
        return drawn


def printed_by_script(without_self: Record) -> float:
    """Return the number that the script prints of five runs, each paired with itself too."""
    return SELF_SHARE + (1 - SELF_SHARE) * float(without_self["value"])


def compare_runs(options: StudyOptions, seeds: Sequence[int], context: CellContext) -> Record:
    """Read all runs, and return what their eigenvectors have in common, by size and between."""
    data, sizes, n = options.images("mnist"), sizes_of(options), len(seeds)
    recipes = [recipe for seed in seeds for recipe in sized_recipes(options, seed).values()]
    trained = context.classifiers(data, recipes)
    runs = [model for index in range(len(sizes)) for model in trained[index :: len(sizes)]]
    maps = (model.quadratic_map().detach().to(torch.float64) for model in runs)
    eigs, centred = zip(*(leading_eigenpairs(f) for f in maps), strict=True)
    vectors = torch.stack([eig.eigenvectors for eig in eigs])
    (by_index, space), ((first, *_), _) = overlaps(vectors), overlaps(torch.stack(centred))
    published = torch.stack([published_vectors(model) for model in runs])
    script, _ = overlaps(published)
    assigned, chance = match_between_runs(eigs)
    found: Record = {"sizes": {}, "between": {}}
    for (a, h), (b, other) in product(enumerate(sizes), repeat=2):

        def over(pairs: Tensor, a: int = a, b: int = b) -> Record:
            return mean_over_pairs(pairs[a * n : (a + 1) * n, b * n : (b + 1) * n], a == b)

        found["between"][f"{h}-{other}"] = {"first": over(by_index[0]), "space": over(space)}
        if a == b:
            found["sizes"][str(h)] = {
                "by_index": [over(one) for one in by_index],
                "centred": over(first),
                "all": over(by_index.mean(dim=0)),
                "assigned": over(assigned),
                "space": over(space),
                "script": [over(one) for one in script],
                "as_published": published_half(published[a * n : (a + 1) * n, :, 0]),
            }
    others = other_classes(vectors)
    _, covariance = mean_and_covariance(data.train_images)
    effective = float(covariance.trace() ** 2 / covariance.square().sum())
    half = len(covariance) / 2  # E|cos| of two random directions: Γ(n/2) / (√π Γ((n + 1)/2))
    levels = {
        "random directions": math.exp(math.lgamma(half) - math.lgamma(half + 0.5))
        / math.sqrt(math.pi),
        "random smooth images": math.sqrt(2 / (math.pi * effective)),
        "other class, 1st": others[0],
        "matched": chance,
    }
    return {**found, "chance": levels, "other_classes": others}


def leading_eigenpairs(f: QuadraticMap) -> tuple[EigenDecomposition, Tensor]:
    """Return the leading pairs of all classes; and the first vectors, class-centred, (C, 1, D)."""
    eye = torch.eye(f.sizes.d_out, dtype=f.dtype)
    centred = eigendecompose_all(f, directions=eye - 1 / len(eye), k=1)
    return eigendecompose_all(f, k=TOP), centred.eigenvectors


def published_half(first: Tensor) -> float:
    """Return half the published kind of interval of vectors (R, C, D): all pairs are independent.

    A pair of a class is one of 150, and a run is paired with itself too.
    """
    runs, _, _ = first.shape
    cosines = torch.einsum("rcd,scd->crs", first, first).abs()
    pairs = cosines[:, *torch.triu_indices(runs, runs)].flatten()
    half = float(student.ppf(0.95, len(pairs) - 1)) * float(pairs.std())
    return half / math.sqrt(len(pairs))


def published_vectors(model: BilinearClassifier) -> Tensor:
    """Return (C, K, D): by rising eigenvalue in the embedding basis, mapped to pixels."""
    f = model.quadratic_map("embedding").detach().to(torch.float64)
    eig = eigendecompose_all(f, k=TOP, which="smallest")  # by |λ| among those
    order = eig.eigenvalues.argsort(dim=1)[..., None].expand(-1, -1, model.embed.in_features)
    return functional.normalize(in_pixels(model, eig).gather(1, order), dim=-1)


def overlaps(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Compare the vectors of any two runs of (R, C, K, D), means over the classes.

    |cos| of the vectors of a rank, (K, R, R), and the share of the space of the first, (R, R).
    """
    cosines = torch.einsum("rckd,scld->crskl", vectors, vectors).abs()
    space = cosines[..., :SPACE, :SPACE].square().sum(dim=(3, 4)) / SPACE
    return cosines.diagonal(dim1=3, dim2=4).mean(dim=0).permute(2, 0, 1), space.mean(dim=0)


def match_between_runs(eigs: Sequence[EigenDecomposition]) -> tuple[Tensor, float]:
    """Return the mean cosine after the best pairing, (R, R), mean over classes; and chance."""
    num, classes, draws = len(eigs), len(eigs[0].eigenvalues), stream(0, STEP)
    found, chances = torch.zeros(num, num, dtype=torch.float64), []
    for i, j, c in product(range(num), range(num), range(classes)):
        if j < i:
            match = match_eigenvectors(eigs[i][c], eigs[j][c], draws, num_samples=1)
            found[i, j] += match.score / classes
            chances.append(match.chance)
    return found + found.T, mean(chances)


def mean_over_pairs(pairs: Tensor, same: bool) -> Record:
    """Return the mean over the pairs (n, n) of runs, of the same size: of different runs.

    The 90 % interval is of the jackknife: the values of the runs are n θ − (n − 1) θ₍₋ᵢ₎, θ₍₋ᵢ₎
    without the pairs of run i.
    """
    n, runs = len(pairs), torch.arange(len(pairs))
    used = (runs[:, None] != runs) if same else torch.ones(n, n, dtype=torch.bool)
    whole = float(pairs[used].mean())
    if n < 3:
        return {"value": whole, "low": None, "high": None, "runs": [whole]}
    values = []
    for i in range(n):
        rest = used & (runs != i) & (runs != i)[:, None]
        values.append(n * whole - (n - 1) * float(pairs[rest].mean()))
    half = float(student.ppf(0.95, n - 1)) * stdev(values) / math.sqrt(n)
    return {"value": whole, "low": whole - half, "high": whole + half, "runs": values}


def other_classes(vectors: Tensor) -> list[float]:
    """Return, by index, the mean |cos| of eigenvectors of different classes in different runs."""
    runs, classes = (~torch.eye(n, dtype=torch.bool) for n in vectors.shape[:2])
    cosines = torch.einsum("rckd,sekd->krsce", vectors, vectors).abs()
    return cosines[:, runs[:, :, None, None] & classes].mean(dim=1).tolist()
