"""Shared by the studies of images: data and recipes by size, and the readings of a classifier.

All of them train the paper's classifier (embedding, bilinear layer, head; no bias) and read its
weights. Classifiers are trained in batched passes and kept for the other studies of a folder.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bilens import EigenDecomposition, ImageDataset, Proof, effective_rank, eigendecompose_all
from bilens.algebra import mean_and_covariance, roughness, symmetric_root
from bilens.nn import BilinearClassifier
from bilens.train import ImageRecipe, accuracy
from bilens_studies.drawings import TileRow, tile_plate, valued_tiles, vector_image
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions

QUICK = {"epochs": 10, "batch_size": 256, "d_hidden": 64}  # 4,000 embedded digits
PUBLISHED_WIDTH = 512  # of the spectra that are published
DARK = 0.01  # mean of a pixel over the training images, below which it is nearly always dark
LEADING = 5  # eigenvectors of a class, by |λ|
TOP_SHARE = 10
BASES = ("embedding", "input", "whitened")
MEASURES = {  # what `read_classifier` finds: its name on pages, and how many digits it has there
    "accuracy": ("accuracy", 4),
    **{f"effective_rank_{x}": (f"effective rank, {x} basis", 2) for x in BASES},
    **{f"top_share_{x}": (f"share of the 10 largest eigenvalues, {x} basis", 3) for x in BASES},
    "sparsity": ("pixels used", 1),
    "roughness": ("roughness", 4),
    "dark_mass": ("on dark pixels", 4),
}


Model: TypeAlias = BilinearClassifier
Read: TypeAlias = Callable[[Model, ImageDataset], Record]


class VisionStudy(Study):
    """A study of image classifiers; --quick takes small ones on the digits that are at hand."""

    uses = frozenset({"data_dir", "seeds", "full", "quick"})
    datasets: tuple[str, ...] = ("mnist", "fashion-mnist")

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        """Return the records by data set."""
        return {
            data: [cell for cell in cells.values() if cell["data"] == data]
            for data in self.images_read(options)
        }


class SeedStudy(VisionStudy):
    """A study with a cell for each data set and seed: a pass of classifiers, each read alone."""

    def recipes(self, options: StudyOptions, seed: int) -> dict[str, ImageRecipe]:
        """Return the recipes of a pass by name: the paper's, where a study has no others."""
        return {"": recipe_of(options, d_hidden=PUBLISHED_WIDTH, seed=seed)}

    @abstractmethod
    def read_model(self, options: StudyOptions, model: Model, data: ImageDataset) -> Record:
        """Return the readings of one classifier."""

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        """Return the measurements; those of one data set are named by their seeds alone."""
        read, found = partial(self.read_model, options), {}
        for data, seed in product(self.images_read(options), self.seeds(options)):
            name = f"{data}-seed-{seed}" if len(self.datasets) > 1 else f"seed-{seed}"
            found[name] = partial(measure_pass, options, data, self.recipes(options, seed), read)
        return found


def recipe_of(options: StudyOptions, **changes: Any) -> ImageRecipe:
    """Return the paper's recipe with changes; a smaller one for --quick."""
    small = {
        name: min(value, changes.get(name, value)) for name, value in QUICK.items() if options.quick
    }
    return ImageRecipe(**{**changes, **small})


def measure_pass(
    options: StudyOptions,
    name: str,
    recipes: Mapping[str, ImageRecipe],
    read: Read,
    context: CellContext,
) -> Record:
    """Train classifiers on images of a name, side by side, and read each.

    Readings stand under the names of the recipes, those of a recipe without a name alone.
    """
    data = options.images(name)
    models = context.classifiers(data, list(recipes.values()))
    found = {key: read(model, data) for key, model in zip(recipes, models, strict=True)}
    told = [recipe.resolved().to_dict() for recipe in recipes.values()]
    return {"data": name, "recipes": told, **(found.get("") or found)}


def recipe_in_words(recipe: Record) -> str:
    """Return the settings in which recipes differ most, in words."""
    return (
        f"{recipe['d_hidden']} hidden units, {recipe['epochs']} epochs, weight decay "
        f"{recipe['weight_decay']:g}, noise {recipe['noise']:g}, products in {recipe['precision']}"
    )


def class_spectra(
    model: BilinearClassifier, basis: str, data: ImageDataset | None = None
) -> EigenDecomposition:
    """Return the spectra of all classes in the basis input, embedding or whitened.

    What is not returned is zero: pixels are read through the rows of the embedding alone, so the
    forms are decomposed in the space of these. The whitened basis takes the covariance of the
    training images of `data`.
    """
    f = model.quadratic_map("embedding").detach().to(torch.float64)
    if basis == "embedding":
        return eigendecompose_all(f)
    rows, offset = model.embed.weight.detach().double(), None
    if basis == "whitened":
        assert data is not None, "the whitened basis is one of data"
        root, mean = root_and_mean(data)
        rows, offset = rows @ root, rows @ mean
    frame, inner = torch.linalg.qr(rows.T)  # rows = innerᵀ frameᵀ
    eig = eigendecompose_all(f.compose_input(inner.T, offset))
    vectors, linear = eig.eigenvectors @ frame.T, eig.linear @ frame.T
    proof = (Proof.RANK,) * len(eig)
    return replace(eig, eigenvectors=vectors, linear=linear, basis=basis, proof=proof)


@lru_cache(maxsize=2)
def root_and_mean(data: ImageDataset) -> tuple[Tensor, Tensor]:
    """Return Σ^½ and μ of the training images."""
    mean, covariance = mean_and_covariance(data.train_images)
    return symmetric_root(covariance, len(mean)), mean


def in_pixels(model: BilinearClassifier, eig: EigenDecomposition) -> Tensor:
    """Return eigenvectors as images, (..., k, pixels); those of an embedding by its transpose."""
    vectors = eig.eigenvectors
    return vectors if eig.basis == "input" else vectors @ model.embed.weight.detach().double()


def extremes(
    model: BilinearClassifier, eig: EigenDecomposition, count: int, data: ImageDataset
) -> Record:
    """Return the most positive and the most negative eigenpairs of each form, with images."""
    order = eig.eigenvalues.argsort(dim=1, descending=True)
    ends = torch.cat([order[:, :count], order.flip(1)[:, :count]], dim=1)
    vectors = in_pixels(model, eig)
    vectors = vectors.gather(1, ends[..., None].expand(-1, -1, vectors.shape[2]))
    largest = vectors.gather(2, vectors.abs().argmax(dim=2, keepdim=True))  # positive as drawn
    vectors = vectors * largest.sign()
    images = [[vector_image(v, data.image_shape) for v in rows] for rows in vectors.tolist()]
    return {"eigenvalues": eig.eigenvalues.gather(1, ends).tolist(), "images": images}


def vector_plate(
    title: str, note: str, names: Sequence[str], found: Record, bars: Sequence[Sequence[float]]
) -> str:
    """Return a drawing of what `extremes` finds: a row a form, with its name and bars."""
    each = zip(names, found["images"], found["eigenvalues"], bars, strict=True)
    rows = [TileRow(name, valued_tiles(images, values, 3), x) for name, images, values, x in each]
    return tile_plate(title, note, rows)


def read_classifier(model: BilinearClassifier, data: ImageDataset) -> dict[str, float]:
    """Return accuracy, effective rank by basis, and what its leading eigenvectors look like.

    Means over the classes. Of the leading eigenvectors by |λ| in the input basis: sparsity
    (Σ|v|)² / Σv² as published (smaller is sparser), roughness, and share of Σv² on pixels that are
    nearly always dark.
    """
    found = {"accuracy": accuracy(model, data.test_images, data.test_labels)}
    for basis in BASES:
        eig = class_spectra(model, basis, data)
        sizes = eig.eigenvalues.abs()
        found[f"effective_rank_{basis}"] = float(effective_rank(eig.eigenvalues).mean())
        top = sizes[:, :TOP_SHARE].sum(dim=1) / sizes.sum(dim=1)
        found[f"top_share_{basis}"] = float(top.mean())
        if basis == "input":
            v = eig.eigenvectors[:, :LEADING]
            found["sparsity"] = float(effective_rank(v).mean())
            found["roughness"] = float(roughness(v, data.image_shape).mean())
            dark = data.train_images.mean(dim=0) < DARK
            found["dark_mass"] = float(v.square()[..., dark].sum(dim=-1).mean())
    return found


def by_name(records: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the values of several records under their names."""
    return {name: [record[name] for record in records] for name in records[0]}
