"""What is refused before a conversion begins, while its folder is as it was."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from bilens.base.errors import DataError, NonFiniteError, UsageError
from bilens.io.host import Host, Site
from bilens.train.distillation import text_losses
from bilens.train.layer_fit import ConversionRecipe
from bilens.train.layer_inputs import Mixture, Rows
from bilens.train.recipe import device_of

KNOWN_TEXTS = 4  # of a domain, that tell whether the teacher knows it
CHANCE = 0.9  # of log(vocabulary): from this loss on the model does not know the text


def blocks_to_convert(teacher: Host, recipe: ConversionRecipe) -> list[int]:
    """Return the numbers of the blocks; refuse a recipe that does not suit the model."""
    blocks = range(len(teacher.blocks))
    if teacher.unit == "tokens" and not 2 <= recipe.n_ctx <= (most := teacher.n_ctx):
        raise UsageError(f"the model reads {most} tokens; choose such a --context-length.")
    chosen = [one for one in dict.fromkeys(recipe.layers or blocks) if one not in recipe.keep]
    if {*recipe.layers, *recipe.keep} - {*blocks}:
        raise UsageError(f"the model has the blocks 0 to {blocks[-1]}: name some of these.")
    if len(chosen) <= recipe.keep_worst:
        raise UsageError(
            f"of {len(chosen)} blocks to convert {recipe.keep_worst} more are kept: convert one or "
            "more (--layers, --keep, --keep-worst)."
        )
    if all(site.view.exact for site in teacher.sites if site.block in chosen):
        raise UsageError(f"{teacher.source} is exact there already: there is nothing to convert.")
    return chosen


def check_place(folder: Path, source: Path) -> None:
    """Refuse to write over the model."""
    read = source.resolve()
    if source.exists() and folder.resolve() in (read, *read.parents):
        raise UsageError(f"{folder} holds the model that is read: choose another folder.")


def check_budget(recipe: ConversionRecipe, given: int, texts_left: int) -> None:
    """Refuse a budget that the layers use up."""
    if not (recipe.minutes or "distillation" in recipe.skip or texts_left):
        raise UsageError(
            f"--tokens {recipe.tokens:,} is the budget of all stages, and the layers take "
            f"{given:,} of it: choose more, or fewer --layer-tokens."
        )


def check_layer_tokens(sites: Sequence[Site], recipe: ConversionRecipe, given: int) -> None:
    """Refuse fewer tokens than the widest layer has unknowns; experts see some of them."""
    for site in sites if "fit" not in recipe.skip else ():
        products = site.view.sizes.d_hidden * recipe.hidden_multiplier
        needed = products + 1 + recipe.linear_skip * site.view.sizes.d_in
        if site.expert is None and given < needed:
            raise DataError(
                f"{site.name} of {products:,} products needs {needed:,} tokens or more, and gets "
                f"{given:,}: raise --layer-tokens, and --tokens with it."
            )


def check_known(teacher: Host, mixture: Mixture | Rows) -> None:
    """Refuse a broken teacher, and text on which it is hardly better than a guess."""
    for name, texts in mixture.held_out.items():
        with torch.no_grad():
            found = teacher.logits(texts[:1].to(device_of(teacher.module)))
        if not bool(found.isfinite().all()):
            raise NonFiniteError(f"the model gives NaN or infinity on {name}: repair its weights.")
        if teacher.gives != "next tokens":
            continue
        guess = math.log(teacher.config.vocab_size)
        loss = float(text_losses(teacher, texts[:KNOWN_TEXTS]).mean())
        if loss > CHANCE * guess:
            raise DataError(
                f"{name}: the teacher's loss is {loss:.2f} nats per token, a guess has "
                f"{guess:.2f}. It does not know this text: give text of the kind and language "
                "that it was made for."
            )
