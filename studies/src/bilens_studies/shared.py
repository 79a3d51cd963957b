"""Components that classes share, against eigenvectors of each class, at equal size (App. K)."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import torch

from bilens import (
    ImageDataset,
    QuadraticMap,
    cp_decompose,
    dual_expression,
    eigendecompose_all,
    similarity,
)
from bilens.algebra import map_difference
from bilens.findings import gauge_free
from bilens.report import Curve, line_figure
from bilens_studies.drawings import vector_image
from bilens_studies.published import Reproduced
from bilens_studies.study import Record, StudyOptions
from bilens_studies.vision import Model, SeedStudy, vector_plate

BUDGETS = (1, 2, 3, 4, 5, 7, 10, 13)  # eigenvectors a class; 13 have the numbers of 64 products
FURTHER = (20, 30)  # of eigenvectors, which need no fit
EXERCISE_RANK, DRAWN = 64, 6  # of the official exercise; components drawn
LOSSES = (0.001, 0.01)  # of accuracy
EXACT = 1e-10
DIRECTIONS = (1, 2)  # of App. K, in units of the outputs
PARAMETERS: Mapping[str, Callable[[int, int, int], int]] = {  # of a size, n inputs, m outputs
    "eigenvectors": lambda k, n, m: m * k * (n + 1),
    "products": lambda r, n, m: r * (2 * n + m),
}


class SharedStudy(SeedStudy):
    """How many components a classifier needs, each class alone or all together."""

    name = "vision/shared"
    title = "Shared components of a digit classifier against eigenvectors of each class"
    datasets = ("mnist",)

    def read_model(self, options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        """Return the accuracy lost by each way at each budget, fitted to class-centred logits."""
        budgets = options.choose(BUDGETS[:4], BUDGETS, BUDGETS)
        raw = model.quadratic_map().detach().to(torch.float64)
        f = gauge_free(raw)
        m, hidden, n = f.sizes.d_out, f.sizes.d_hidden, f.sizes.d_in
        images = data.test_images.double()

        def right(g: QuadraticMap) -> float:
            return float((g(images).argmax(dim=1) == data.test_labels).double().mean())

        full, eigs = right(f), eigendecompose_all(f)

        def compare_with(way: str, size: int, g: QuadraticMap) -> Record:
            error = float(map_difference(f, g).tensor.norm() / f.tensor.norm())
            about = {"size": size, "parameters": PARAMETERS[way](size, n, m), "error": error}
            return {**about, "cosine": float(similarity(f, g)), "lost": full - right(g)}

        allowed = [PARAMETERS["eigenvectors"](budget, n, m) for budget in budgets]
        ranks = [min(hidden, one // PARAMETERS["products"](1, n, m)) for one in allowed]
        fits = [cp_decompose(f, rank, num_starts=1, max_sweeps=100) for rank in ranks]
        eigenvectors = [
            compare_with("eigenvectors", k, eigs.truncate_map(k)) for k in (*budgets, *FURTHER)
        ]
        pairs = zip(ranks, fits, strict=True)
        products = [compare_with("products", rank, cp.quadratic_map()) for rank, cp in pairs]
        values, vectors = (part[:DRAWN].tolist() for part in fits[-1].eigenpairs())
        largest = {  # products: eigenvectors of each, which need balanced rows, and classes
            "images": [[vector_image(v, data.image_shape) for v in pair] for pair in vectors],
            "eigenvalues": values,
            "classes": fits[-1].down.T[:DRAWN].tolist(),
        }
        return {
            "accuracy": full,
            "ways": {"eigenvectors": eigenvectors, "products": products},
            "components": largest,
            "duals": [read_duals(raw, share * m) for share in DIRECTIONS],
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        runs = result["mnist"]
        errors = tuple(run["duals"][0]["error"] for run in runs)
        keys = tuple(run["duals"][1]["off_target"] for run in runs)
        found = {
            "dual": Reproduced(errors, max(errors) <= EXACT, once=True),
            "keys": Reproduced(keys, max(keys) <= EXACT, once=True),
        }
        last = [run["ways"]["products"][-1] for run in runs]
        if last[0]["size"] == EXERCISE_RANK:
            lost = tuple(row["lost"] for row in last)
            note = f"cosine {mean(row['cosine'] for row in last):.4f}"
            found["exercise"] = Reproduced(lost, mean(lost) <= LOSSES[1], note)
        return found

    def figures(self, result: Record) -> Mapping[str, str]:
        runs = result["mnist"]
        curves = [
            Curve(way, tuple((row["parameters"], row["lost"]) for row in mean_rows(runs, way)))
            for way in PARAMETERS
        ]
        title, found = "Largest shared products", runs[0]["components"]
        note = "Eigenvectors of each product of rows of length one, their λ; bars: classes."
        names = [f"no. {n + 1}" for n in range(len(found["classes"]))]
        return {
            "lost.svg": line_figure("Accuracy lost", "parameters", "accuracy lost", curves),
            "products.svg": vector_plate(title, note, names, found, found["classes"]),
        }


def mean_rows(runs: Sequence[Record], way: str) -> list[Record]:
    """Return the rows of a way, each number the mean over the runs."""
    rows = zip(*(run["ways"][way] for run in runs), strict=True)
    return [{name: mean(row[name] for row in same) for name in same[0]} for same in rows]


def read_duals(f: QuadraticMap, count: int) -> dict[str, float]:
    """Return how well a map is written through the forms of random directions (App. K)."""
    draws = torch.Generator().manual_seed(0)
    u = torch.randn(count, f.sizes.d_out, generator=draws, dtype=torch.float64)
    dual = dual_expression(f, u)
    off = (dual.directions @ dual.duals - torch.eye(count, dtype=torch.float64)).abs().max()
    error = float(map_difference(f, dual.map).tensor.norm() / f.tensor.norm())
    return {"error": error, "off_target": float(off)}
