"""Many image classifiers side by side: cells that read the same batches train in one pass.

Cells of one seed, batch size and augmentations see the same images in the same order and the same
draws of noise, so these are made once for all of them; and cells of one shape multiply as one
stack. What each cell computes is what it computes alone, up to rounding.

Axes in this file: S cells of a stack, B batch, H hidden, C classes, D pixels.
"""

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens import ImageDataset, load
from bilens.base import file_sha256, read_json, write_file
from bilens.base.errors import CheckpointError, NumericalError, UsageError
from bilens.nn import BilinearClassifier
from bilens.train import (
    CPU,
    RUN_NAME,
    ActivationNoise,
    ImageRecipe,
    ImageTask,
    Line,
    NoisePool,
    TrainingRun,
    TrainingTask,
    autocast,
    check_training_memory,
    new_classifier,
    run_in_folder,
    save_classifier,
)

WEIGHTS_NAME = "model.safetensors"
HASH_NAME = "weights.sha256"  # of a classifier that is kept
OF_A_CELL = ("weight_decay", "noise")  # may differ in a stack
ARCHITECTURE = ("d_hidden", "n_layers", "bias", "residual", "gate")
OF_A_STACK = (*ARCHITECTURE, "model_noise", "dropout")  # may differ between the stacks of a pass

Run: TypeAlias = TrainingRun[nn.ModuleList]  # sums: losses by stack, then steps


@dataclass(frozen=True)
class StackMetrics(Line):
    """One line of the history of a pass."""

    epoch: int  # from 1
    learning_rate: float
    # of each cell: mean cross-entropy over the steps, nats; None where no longer finite
    train_losses: tuple[float | None, ...]
    seconds: float  # wall time of the steps


def in_passes(recipes: Iterable[ImageRecipe]) -> list[list[ImageRecipe]]:
    """Return the recipes that can be trained in one pass together, in the order given."""
    return list(group_recipes(recipes, without=(*OF_A_CELL, *OF_A_STACK)))


def group_recipes(
    recipes: Iterable[ImageRecipe], without: Sequence[str]
) -> Iterable[list[ImageRecipe]]:
    """Return the recipes that differ in nothing else, group by group."""
    shared = [field.name for field in fields(ImageRecipe) if field.name not in without]
    groups: dict[tuple[object, ...], list[ImageRecipe]] = {}
    for recipe in recipes:
        groups.setdefault(tuple(getattr(recipe, name) for name in shared), []).append(recipe)
    return groups.values()


class ClassifierStack(nn.Module):
    """Classifiers of one shape: (S, H, B) embedded images → (S, C, B) logits."""

    decays: Tensor  # (S,)

    def __init__(self, recipes: Sequence[ImageRecipe], data: ImageDataset) -> None:
        super().__init__()
        models = [new_classifier(recipe, data) for recipe in recipes]
        self.recipes, self.template = tuple(recipes), (models[0],)  # whose weights are not ours
        self.activation_noise = ActivationNoise(recipes[0].model_noise, recipes[0].dropout)
        states = [model.state_dict() for model in models]
        self.weights = nn.ParameterDict()  # under the names of a classifier, with _ for a dot
        for name in states[0]:
            stacked = torch.stack([state[name] for state in states])
            self.weights[name.replace(".", "_")] = nn.Parameter(stacked)
        decays = torch.tensor([recipe.weight_decay for recipe in recipes])
        self.register_buffer("decays", decays, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        recipe, h = self.recipes[0], self.disturbed(h)
        for index in range(recipe.n_layers):
            left, right = self.branches(f"layers_{index}", h)
            if recipe.gate is not None:
                left = getattr(functional, recipe.gate)(left)
            product = self.disturbed(left * right)
            h = product + h if recipe.residual else product
        return torch.bmm(self.weights["head_weight"], h)

    def branches(self, layer: str, h: Tensor) -> tuple[Tensor, ...]:
        """Return both branches of a layer, (S, H, B) each, from one product."""
        sides = [f"{layer}_left", f"{layer}_right"]
        weight = torch.cat([self.weights[f"{side}_weight"] for side in sides], dim=1)
        if not self.recipes[0].bias:
            return torch.bmm(weight, h).chunk(2, dim=1)
        bias = torch.cat([self.weights[f"{side}_bias"] for side in sides], dim=1)
        return torch.baddbmm(bias[..., None], weight, h).chunk(2, dim=1)

    def disturbed(self, h: Tensor) -> Tensor:
        return self.activation_noise(self, (), h.mT).mT

    @torch.no_grad()
    def decay(self, rate: float) -> None:
        """Shrink the weights, each cell's by its own weight decay."""
        factor = 1 - rate * self.decays
        for parameter in self.parameters():
            parameter.mul_(factor.view(-1, *[1] * (parameter.ndim - 1)))

    @torch.no_grad()
    def classifiers(self) -> list[BilinearClassifier]:
        """Return the cells as models of their own."""
        found = []
        for index in range(len(self.recipes)):
            one = copy.deepcopy(self.template[0])
            names = one.state_dict()
            state = {name: self.weights[name.replace(".", "_")][index] for name in names}
            one.load_state_dict(state, strict=True)
            found.append(one)
        return found


class StackTask(TrainingTask[nn.ModuleList, StackMetrics]):
    """Classifiers of one pass, from their recipes and images."""

    data_noun = "images"
    line_type = StackMetrics

    def __init__(
        self, data: ImageDataset, recipes: Sequence[ImageRecipe], device: torch.device = CPU
    ) -> None:
        if len(in_passes(recipes)) != 1:
            differing = sorted({len(one) for one in in_passes(recipes)})
            raise UsageError(
                f"the recipes make {len(in_passes(recipes))} passes of {differing} cells; expected "
                "those of one: group them with in_passes."
            )
        self.data, self.device = data, device
        self.alone = ImageTask(data, recipes[0], device)  # what is shared is as it is for one
        ordered = sorted((one.resolved(device) for one in recipes), key=lambda one: one.noise)
        self.groups = [*group_recipes(ordered, OF_A_CELL)]
        self.recipes = [*chain(*self.groups)]  # in the order of the stacks
        self.epochs, self.steps = self.alone.epochs, self.alone.steps
        shown = {"cells": [recipe.to_dict() for recipe in self.recipes]}
        self.about = {"recipe": shown, "data": data.fingerprint}

    def start(self) -> Run:
        stacks = (ClassifierStack(group, self.data) for group in self.groups)
        model = nn.ModuleList(stacks).to(self.device)
        num_weights = sum(parameter.numel() for parameter in model.parameters())
        check_training_memory(num_weights, "train fewer cells at once", self.device)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
        sums = torch.zeros(len(self.recipes) + 1, dtype=torch.float64, device=self.device)
        return Run(model, optimizer, sums)

    def learning_rate(self, epoch: int, step: int) -> float:
        return self.alone.learning_rate(epoch, step)

    def prepare_epoch(self, run: Run) -> tuple[Tensor, Mapping[float, NoisePool]]:
        return self.alone.drawn(run.epoch, {one.noise for one in self.recipes})

    def take_step(self, run: Run, drawn: tuple[Tensor, Mapping[float, NoisePool]]) -> None:
        recipe, (order, pools) = self.recipes[0], drawn
        clean, y, generator = self.alone.batch(run, order)
        place, stacks = generator.get_state(), [*stacks_of(run)]
        parts: list[list[Tensor]] = [[] for _ in stacks]
        with autocast(self.device, recipe.precision):
            for noise in sorted({one.noise for one in self.recipes}):
                generator.set_state(place)  # every level of noise is read from the same place
                x = clean + pools[noise].batch(generator) if noise else clean
                for part, h in zip(parts, embed_images(stacks, noise, x), strict=True):
                    part.append(h)
            logits = []
            for stack, part in zip(stacks, parts, strict=True):
                stack.activation_noise.start_step(recipe.seed, run.epoch, run.step)
                logits.append(stack(torch.cat(part)))
        cells = torch.cat(logits).float()
        each = functional.cross_entropy(cells, y.expand(len(cells), -1), reduction="none")
        each = each.mean(dim=1)
        each.sum().backward()  # type: ignore[no-untyped-call]
        for stack in stacks:
            stack.decay(run.optimizer.param_groups[0]["lr"])
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.sums += torch.cat([each.detach(), y.new_ones(1)]).double()

    def metrics(self, run: Run, rate: float) -> StackMetrics:
        *sums, steps = run.sums.tolist()
        found = tuple(value / steps if math.isfinite(value) else None for value in sums)
        if not any(loss is not None for loss in found):
            raise divergence_error(self.recipes)
        return StackMetrics(run.epoch + 1, rate, found, run.seconds)

    def classifiers(self, run: Run) -> list[BilinearClassifier]:
        """Return the cells as models of their own, in the order of the recipes."""
        return [model for stack in stacks_of(run) for model in stack.classifiers()]

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        models = zip(self.recipes, self.classifiers(run), strict=True)
        for index, (recipe, model) in enumerate(models):
            if all(bool(part.isfinite().all()) for part in model.parameters()):
                cell = folder / cell_name(index)
                save_classifier(model, cell, self.data, recipe, provenance)
                write_file(cell / HASH_NAME, file_sha256(cell / WEIGHTS_NAME).encode())

    def finished(self, folder: Path) -> bool:
        cells = (folder / cell_name(index) for index in range(len(self.recipes)))
        return all(self.alone.finished(cell) for cell in cells)

    def position(self, epoch: int) -> str:
        return f"epoch {epoch}"


def stacks_of(run: Run) -> Iterable[ClassifierStack]:
    return cast("Iterable[ClassifierStack]", run.model)


def embed_images(stacks: Sequence[ClassifierStack], noise: float, x: Tensor) -> list[Tensor]:
    """Embed images (B, D) with all cells of a noise, (S', H, B) a stack, in one product.

    S' cells of a stack have this noise, side by side.
    """
    weights = []
    for stack in stacks:
        own = [index for index, one in enumerate(stack.recipes) if one.noise == noise]
        cells = stack.weights["embed_weight"]
        weights.append(cells[own[0] : own[-1] + 1] if own else cells[:0])
    rows = torch.cat([weight.flatten(0, 1) for weight in weights]) @ x.T
    parts = torch.split(rows, [len(weight) * weight.shape[1] for weight in weights])
    return [part.view(*w.shape[:2], len(x)) for part, w in zip(parts, weights, strict=True)]


def divergence_error(recipes: Sequence[ImageRecipe]) -> NumericalError:
    """Return why there is no classifier of some recipes."""
    return NumericalError(
        f"the loss is no longer finite with {', '.join(str(one.to_dict()) for one in recipes)}: "
        "lower the learning rate or the noise, or leave this cell out."
    )


def cell_name(index: int) -> str:
    return f"cell-{index:03}"


def train_classifiers_in_folder(
    folder: Path, data: ImageDataset, recipes: Sequence[ImageRecipe], **options: Any
) -> list[BilinearClassifier]:
    """Return a classifier at the end of each recipe; what the folder holds is not trained again.

    Each recipe has a model folder there. A pass has a run folder until its models are in theirs;
    one that was broken off, wherever that was, is resumed. A recipe that diverges is told when the
    others are in their folders. The options are those of `run_in_folder`.
    """
    wanted = [recipe.resolved() for recipe in recipes]
    owns = {recipe: folder / name_of(data, recipe) for recipe in wanted}
    for group in in_passes(owns):
        work = folder / f"pass-{name_of(data, *group)}"
        begun = (work / RUN_NAME).exists()
        known = read_json(work / RUN_NAME).get("recipe") if begun else None
        cells = known.get("cells", ()) if isinstance(known, dict) else ()
        trained = [recipe for recipe in group if recipe.to_dict() in cells]
        trained = trained or [recipe for recipe in group if not owns[recipe].exists()]
        if trained:
            task = StackTask(data, trained)
            run_in_folder(work, task, resume=begun, **options)
            for index, recipe in enumerate(task.recipes):
                cell = work / cell_name(index)
                if cell.exists() and not owns[recipe].exists():
                    cell.replace(owns[recipe])
            shutil.rmtree(work)
    if lost := [recipe for recipe, own in owns.items() if not own.exists()]:
        raise divergence_error(lost)
    found = {recipe: read_classifier(own, data, recipe) for recipe, own in owns.items()}
    return [found[recipe] for recipe in wanted]


def read_classifier(own: Path, data: ImageDataset, recipe: ImageRecipe) -> BilinearClassifier:
    """Return the classifier of a folder; refuse a damaged one, of another recipe or images."""
    model, kept_hash = load(own), own / HASH_NAME
    if kept_hash.exists() and kept_hash.read_text() != model.weights_sha256:
        raise CheckpointError(
            f"{own}: holds other weights than those that were trained (their SHA-256 differs): "
            "remove it, and it is trained again."
        )
    said = [model.provenance.get(key) for key in ("recipe", "data_sha256")]
    if said != [json.dumps(recipe.to_dict()), data.fingerprint]:
        raise CheckpointError(
            f"{own}: holds a classifier of another recipe or of other images than its name says: "
            "remove it, and it is trained again."
        )
    assert isinstance(model.module, BilinearClassifier), "saved in StackTask.save"
    return model.module


def name_of(data: ImageDataset, *recipes: ImageRecipe) -> str:
    """Return the name of a folder for recipes on data: two that differ have other names."""
    about = [data.fingerprint, *(recipe.to_dict() for recipe in recipes)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"seed-{recipes[0].seed}-{digest[:16]}"
