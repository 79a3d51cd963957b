"""The first stages of a conversion: each MLP becomes a bilinear one, fitted to what it sees.

Sequential: a block is fitted on the stream of the student, whose earlier blocks are replaced
already, with what the teacher's MLP would give there as the target.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.algebra.approximation.data_fit import (
    fit_neurons,
    gaussian_neurons,
    refit_down,
    row_weights,
    rows_to_refit,
)
from bilens.algebra.approximation.layer_weights import in_dtype
from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.base.checks import check_choice
from bilens.base.files import write_file
from bilens.io.host import Host, Site
from bilens.io.model_config import arguments_of
from bilens.io.tensors import read_safetensors
from bilens.nn.mlp import BilinearMLP
from bilens.train.layer_inputs import Walk, check_enough
from bilens.train.loop import learning_rate
from bilens.train.randomness import ORDER, stream
from bilens.train.recipe import Recipe, check_fields

Optimizer = Literal["adamw", "muon"]
Stage = Literal["fit", "training", "distillation"]
RATE, ROWS = 1e-3, 1024  # of a step of a layer's training
TYPICAL = 0.034  # median |w| of the weights that this rate suits
HALVINGS = 3  # of this rate, where the training makes a layer worse


@dataclass(frozen=True)
class ConversionRecipe(Recipe):
    """How a language model is converted. The defaults suit SmolLM2-135M."""

    n_ctx: int = 128  # tokens of a text
    tokens: int = 200_000  # in all stages together
    layer_tokens: int = 10_240  # that each layer is fitted to
    layer_steps: int = 60  # of Adam for each layer
    batch_size: int = 4  # texts of a step of distillation
    learning_rate: float = 2e-4  # of it, behind the warm-up
    optimizer: Optimizer = "adamw"
    linear_skip: bool = False  # a linear path past the products
    layers: tuple[int, ...] = ()  # blocks to convert, from 0; empty for all
    keep: tuple[int, ...] = ()  # blocks that stay as they are
    skip: tuple[Stage, ...] = ()  # stages that are left out
    measured_tokens: int = 16_384  # of held-out text of each domain
    seed: int = 0

    def __post_init__(self) -> None:
        ones = ("tokens", "layer_tokens", "batch_size", "measured_tokens")
        check_fields(
            self,
            counts={**dict.fromkeys(ones, 1), "layer_steps": 0, "seed": 0, "n_ctx": 2},
            numbers=("learning_rate",),
            positive=("learning_rate",),
            flags=("linear_skip",),
            choices={"optimizer": get_args(Optimizer)},
        )
        for stage in self.skip:
            check_choice("skip", stage, get_args(Stage))


def fit_site(
    site: Site, x: Tensor, held: Tensor, recipe: ConversionRecipe, place: int
) -> tuple[BilinearMLP, dict[str, Any]]:
    """Return a bilinear block for a site, fitted to rows x, and its R² on held-out rows."""
    layer, about = site.view.weights(torch.float64), {"name": site.name, "rows": len(x)}
    if site.view.exact:
        return BilinearMLP.of(layer), about
    plain = in_dtype(layer, x.dtype)
    y, y_held = in_blocks(plain, x), in_blocks(plain, held)
    weights = row_weights(y)
    if "fit" in recipe.skip:
        found = gaussian_neurons(layer, None, None, linear=recipe.linear_skip)
    else:
        found = fit_neurons(layer, x, weights=weights, linear=recipe.linear_skip)
        if recipe.linear_skip and found.linear is None:
            found = replace(found, linear=x.new_zeros(len(found.down), layer.d_in).double())
        check_enough(len(x), rows_to_refit(found), site.name)
        found = refit_down(found, x.double(), y, weights=weights)
    block = BilinearMLP.of(found)
    start, before = copy.deepcopy(block.state_dict()), r_squared_on(y_held, in_blocks(block, held))
    after = before
    for halving in range(0 if "training" in recipe.skip else HALVINGS):
        train_block(block, (x, y.float(), weights.float()), recipe, RATE / 2**halving, place)
        after = r_squared_on(y_held, in_blocks(block, held).nan_to_num())
        about |= {"halvings": halving}
        if after.overall >= before.overall or after.median >= before.median:
            break
        block.load_state_dict(start)  # the last good state
        after = before
    if math.isfinite(after.overall):  # something varies
        about |= {"r_squared": after.overall, "trimmed": after.trimmed, "median": after.median}
        about |= {"closed_form": before.overall}
    return block, about


def train_block(
    block: BilinearMLP,
    rows: tuple[Tensor, Tensor, Tensor],
    recipe: ConversionRecipe,
    peak: float,
    place: int,
) -> None:
    """Train a block on rows x → y with weights, by Adam."""
    x, y, weights = rows
    groups = [
        {"params": [one], "scale": max(float(one.detach().abs().median()), 1e-3) / TYPICAL}
        for one in block.requires_grad_(True).parameters()
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    share = weights / (weights * y.square().sum(dim=1)).mean()
    for step in range(recipe.layer_steps):
        rate = learning_rate(peak, "linear", 0.05, step, recipe.layer_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        generator = stream(recipe.seed, ORDER, place, step)
        chosen = torch.randint(len(x), (min(ROWS, len(x)),), generator=generator)
        miss = (block(x[chosen]) - y[chosen]).square().sum(dim=1)
        optimizer.zero_grad(set_to_none=True)
        (share[chosen] * miss).mean().backward()
        optimizer.step()
    block.requires_grad_(False)


def convert_layers(
    host: Host,
    chosen: Collection[int],
    texts: tuple[Tensor, Tensor],
    recipe: ConversionRecipe,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Replace the MLPs of chosen blocks, one by one, on texts to fit to and texts held out.

    Yields what is known of each. Each is written to the folder as it is finished, and read from
    there when the stage is repeated: the result is the same to the bit.
    """
    at_once = max(1, ROWS // recipe.n_ctx)
    walks = [Walk(host, part, min(at_once, len(part))) for part in texts]
    for block in range(max(chosen, default=-1) + 1):
        here = [site for site in host.sites if site.block == block and block in chosen]
        fitted: dict[str, tuple[BilinearMLP, dict[str, Any]]] = {}
        paths = {site.name: folder / f"{site.name}.safetensors" for site in here}
        if all(path.exists() for path in paths.values()):
            fitted = {name: read_site(path) for name, path in paths.items()}
        else:
            x, held = (walk.inputs(here) for walk in walks)
            for place, site in enumerate(here, start=block * len(host.sites)):
                one, about = fit_site(site, x[site.name], held[site.name], recipe, place)
                said = {"about": json.dumps(about), "arguments": json.dumps(arguments_of(one))}
                write_file(paths[site.name], to_safetensors(one.state_dict(), said))
                fitted[site.name] = one, about
        host.replace({name: one for name, (one, _) in fitted.items()})
        for walk in walks:
            walk.advance()
        yield from (about for _, about in fitted.values())


def read_site(path: Path) -> tuple[BilinearMLP, dict[str, Any]]:
    state, said = read_safetensors(path)
    block = BilinearMLP(**json.loads(said["arguments"])).requires_grad_(False)
    block.load_state_dict(state, strict=True)
    return block, json.loads(said["about"])
