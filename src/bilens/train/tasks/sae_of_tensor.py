"""A sparse autoencoder on activations that are at hand, of whatever model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError
from bilens.io.model_folder import save
from bilens.train.activations import ActivationBuffer
from bilens.train.processes import Processes
from bilens.train.randomness import ORDER, stream
from bilens.train.tasks.sae import Run, SAERecipe, SAESteps, members

ACTIVATIONS = "activations"  # in the place of a hook point


class TensorActivations:
    """Rows of a tensor as buffers: parts of one shuffled order, a new one for each pass."""

    hooks: tuple[str, ...] = (ACTIVATIONS,)

    def __init__(self, rows: Tensor, size: int, seed: int) -> None:
        self.all, self.seed, self.rows = rows, seed, min(size, len(rows))

    def buffer(self, index: int) -> ActivationBuffer:
        """Return buffer number `index`, always the same one."""
        number, part = divmod(index, len(self.all) // self.rows)
        order = torch.randperm(len(self.all), generator=stream(self.seed, ORDER, number))
        chosen = order[part * self.rows :][: self.rows].to(self.all.device)
        return ActivationBuffer({ACTIVATIONS: self.all[chosen]}, torch.arange(self.rows))


class ActivationsTask(SAESteps):
    """One autoencoder on activations, in a run folder."""

    def __init__(self, recipe: SAERecipe, activations: Tensor, group: Processes) -> None:
        shape = check_float_tensor("activations", activations)
        if len(shape) != 2 or 0 in shape:
            raise ShapeError(f"activations have shape {shape}; expected (rows, width), none empty.")
        rows = activations.detach().to(group.device, torch.float32)
        super().__init__(recipe, TensorActivations(rows, recipe.buffer_size, recipe.seed), group)
        self.width = shape[1]
        self.sha256 = hashlib.sha256(rows.cpu().contiguous().numpy().tobytes()).hexdigest()
        self.about = {"recipe": recipe.to_dict(), "data": self.sha256}

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        """Write the autoencoder into the run folder."""
        about = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "seed": str(self.recipe.seed),
            "data_source": "activations of the caller",
            "data_sha256": self.sha256,
        }
        (sae,) = members(run)
        save(sae.cpu(), folder, provenance={**about, **provenance}, overwrite=True)
