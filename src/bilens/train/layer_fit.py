"""The first stages of a conversion: each MLP becomes a bilinear one, fitted to what it sees.

Sequential: a block is fitted on the stream of the student, whose earlier blocks are replaced
already, with what the teacher's MLP would give there as the target.
"""

import json
import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.algebra.approximation.data_fit import (
    RATE,
    fit_neurons,
    gaussian_neurons,
    refit_down,
    row_weights,
    rows_to_refit,
    train_factors,
)
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, in_dtype
from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.algebra.approximation.r_squared import RSquared, centred, r_squared_on
from bilens.algebra.repeated_rows import rows_alone
from bilens.base.errors import NonFiniteError
from bilens.base.files import write_file
from bilens.io.host import Host, Site
from bilens.io.model_config import arguments_of
from bilens.io.tensors import read_safetensors
from bilens.nn.mlp import BilinearMLP
from bilens.train.device import autocast, device_of
from bilens.train.layer_inputs import Walk, check_enough
from bilens.train.randomness import ORDER, stream
from bilens.train.recipes import ConversionRecipe as ConversionRecipe

ROWS = 1024  # that run through a block together
SCORES = ("r_squared", "trimmed", "median", "closed_form")
HALVINGS = 3  # of the rate, where the training makes a layer worse


def fit_site(
    site: Site,
    rows: tuple[Tensor, Tensor, Tensor],
    recipe: ConversionRecipe,
    place: int,
    unit: str = "tokens",
) -> tuple[BilinearMLP, dict[str, Any]]:
    """Return a bilinear block for a site, and its R² on held-out rows.

    `rows` are of texts, held out, and of first tokens, which weigh no more than those of the texts.
    """
    texts, held, first = rows
    new = rows_alone(held, texts) if len(held) else torch.zeros(0, dtype=torch.bool)
    judges = int(new.sum()) > 1  # rows that were fitted to say nothing of others
    held = held[new] if judges else held
    x = torch.cat([texts, first])
    layer, about = site.view.weights(torch.float64), {"name": site.name, "rows": len(texts)}
    needed = layer.down.shape[1] + 1 + recipe.linear_skip * layer.d_in
    unreached = site.expert is not None and (len(texts) < needed or len(held) < 2)
    if isinstance(layer, GLUWeights) and site.view.exact:
        return BilinearMLP.from_weights(layer), about | dict.fromkeys(SCORES, 1.0)
    if isinstance(layer, GLUWeights) and unreached:  # an expert, which stays as it is
        return BilinearMLP.from_weights(layer), about | {"unreached": True}
    plain = in_dtype(layer, x.dtype)
    y, y_held = in_blocks(plain, x), in_blocks(plain, held)
    classes = site.view.classes
    weights = row_weights(centred(y, classes))
    weights[len(texts) :] *= len(texts) / recipe.n_ctx / max(1, len(first))
    if "fit" in recipe.skip:
        found = widen_fit(gaussian_neurons(layer, None, None, linear=recipe.linear_skip), recipe)
    else:
        neurons = fit_neurons(layer, x, weights=weights, linear=recipe.linear_skip)
        found = widen_fit(neurons, recipe)
        check_enough(len(texts), rows_to_refit(found), site.name, unit)
        found = refit_down(found, x.double(), y, weights=weights, classes=classes)
    start = cast(GLUWeights, in_dtype(found, x.dtype))

    def judged(fit: Layer) -> RSquared:
        return r_squared_on(centred(y_held, classes), centred(in_blocks(fit, held), classes))

    best = before = judged(start)
    trains = recipe.layer_steps > 0 and "training" not in recipe.skip
    train = partial(train_factors, start, x, y.to(x), weights=weights.to(x), classes=classes)
    for halving in range(HALVINGS if trains else 0):
        generator, rate = stream(recipe.seed, ORDER, place), RATE / 2**halving
        with suppress(NonFiniteError):
            with autocast(x.device, recipe.precision):
                trained = train(steps=recipe.layer_steps, generator=generator, rate=rate)
            after = judged(trained)
            if after.overall >= before.overall or after.median >= before.median:
                found, best = trained, after
                break  # and otherwise from the start, at half the rate
    if judges and math.isfinite(best.overall):  # something varies
        about |= {"r_squared": best.overall, "trimmed": best.trimmed, "median": best.median}
        about |= {"closed_form": before.overall}
    return BilinearMLP.from_weights(found), about


def widen_fit(found: GLUWeights, recipe: ConversionRecipe) -> GLUWeights:
    """Return a fit with room for more: products, and a linear path, that add nothing yet."""
    if recipe.linear_skip and found.linear is None:
        found = replace(found, linear=found.down.new_zeros(len(found.down), found.gate.shape[1]))
    # u², then v², then products of neurons with others: each has an output weight of its own
    parts = [found]
    for extra in range(1, recipe.hidden_multiplier):
        order = torch.randperm(len(found.gate), generator=stream(recipe.seed, ORDER, extra))
        left = found.value if extra == 2 else found.gate
        right = {1: found.gate, 2: found.value}.get(extra, found.value[order])
        parts.append(replace(found, down=torch.zeros_like(found.down), gate=left, value=right))
    names = ("down", "gate", "value", "gate_bias", "value_bias")
    joined = {n: torch.cat([getattr(p, n) for p in parts], dim=int(n == "down")) for n in names}
    return replace(found, **joined)  # type: ignore[arg-type]


def convert_layers(
    host: Host,
    chosen: Collection[int],
    texts: tuple[Tensor, Tensor],
    recipe: ConversionRecipe,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Replace the MLPs of chosen blocks, one by one, on texts to fit to and texts held out.

    Yields what is known of each. Each is written to the folder as it is finished, and read from
    there when the stage is repeated: the result is the same to the bit. With `recipe.parallel` as
    many blocks are fitted at a time, in threads, on the stream of the teacher.
    """
    device = device_of(host.module)
    parts = [(part, recipe.n_ctx) for part in texts]
    parts += [(first_tokens(texts[0]), 1)] if host.unit == "tokens" else []
    walks = [Walk(host, part, max(1, ROWS // length)) for part, length in parts if len(part)]
    known = {site.name: folder / f"{site.name}.safetensors" for site in host.sites}
    count, together = max(chosen, default=-1) + 1, recipe.parallel or 1
    for first in range(0, count, together):
        jobs = []
        for block in range(first, min(first + together, count)):
            here = [site for site in host.sites if site.block == block and block in chosen]
            found = all(known[site.name].exists() for site in here)
            seen = [{} if found else walk.inputs(here) for walk in walks]
            for place, site in enumerate(here, start=block * len(host.sites)):
                rows = [] if found else [part[site.name].x for part in seen]
                rows += [rows[0][:0]] if len(rows) == 2 else []
                jobs.append((known[site.name], site, rows, recipe, place, host.unit))
            for walk in walks if recipe.parallel else ():
                walk.advance()
        with ThreadPoolExecutor(together) as threads:
            fitted = [*threads.map(lambda job: site_in(*job), jobs)]
        named = zip((site.name for _, site, *_ in jobs), fitted, strict=True)
        host.replace({name: one.to(device) for name, (one, _) in named})
        for walk in () if recipe.parallel else walks:
            walk.advance()
        yield from (about for _, about in fitted)


def first_tokens(texts: Tensor) -> Tensor:
    """Return each token of texts as a text of its own, (tokens, 1); none if all texts begin alike.

    What a model does with the first token (attention sinks, massive activations) depends on it
    alone, and fails for many where a layer has been fitted to the few that texts begin with.
    """
    found: Tensor = torch.unique(texts)
    if len(torch.unique(texts[:, 0])) == 1:
        return found[:0, None]
    return found[:, None]


def site_in(
    path: Path, site: Site, rows: Sequence[Tensor], *how: Any
) -> tuple[BilinearMLP, dict[str, Any]]:
    """Read the fit of a site from a file; with rows, fit it and write the file first."""
    if rows:
        one, about = fit_site(site, (rows[0], rows[1], rows[2]), *how)
        said = {"about": json.dumps(about), "arguments": json.dumps(arguments_of(one))}
        write_file(path, to_safetensors(one.state_dict(), said))
        return one, about
    state, said = read_safetensors(path)
    block = BilinearMLP(**json.loads(said["arguments"])).requires_grad_(False)
    block.load_state_dict(state, strict=True)
    return block, json.loads(said["about"])
