"""Negation in a model of running text: §5.1 of the paper, where nobody knows the rule.

The study of the grammar asks whether the ranking finds a rule that is there. Here it is asked
first whether the model knows one: what a *not* does to the next word, on minimal pairs. Then every
block is read through autoencoders, ranked as the grammar's is, and looked through for
negation by words that took no part in the ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import torch

from bilens.api.train_sae import train_sae
from bilens.interp.traced_layer import TracedText, TraceOptions, open_layer, open_sae, read_text
from bilens.studies.negation_candidates import TOP
from bilens.studies.negation_circuit import corpus_blocks
from bilens.studies.negation_pairs import FRAMES, OPENERS, NegationPairs, over_words
from bilens.studies.negation_text_circuit import measure_block
from bilens.studies.negation_text_page import negation_page
from bilens.studies.negation_words import TruthWords
from bilens.studies.one_model import OneModelStudy, model_of
from bilens.studies.study import CellContext, Measure, Record, StudyOptions
from bilens.train.tasks.sae import SAERecipe

STEPS, BATCH, K = 384, 1024, 16
BUFFER_STEPS = 32  # at most


class NegationTextStudy(OneModelStudy):
    """What a negator does in a model of running text, and what the weights say of it."""

    name = "language/negation-text"
    title = "Negation in a model of running text"

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        """Return what the model does, and a measurement for each block, the last one first."""
        blocks = range(open_layer(model_of(options), 0).module.config.n_layer)
        return {
            "behaviour": partial(measure_behaviour, options),
            "mlps": partial(measure_mlps, options),
            **{f"block-{index}": partial(measure, options, index) for index in reversed(blocks)},
        }

    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:  # noqa: ARG002 - of the interface
        """Return what the model does, and what was found in each block."""
        behaviour = cells["behaviour"]
        return {
            "behaviour": {**behaviour, "all": {**behaviour["all"], **margins(behaviour)}},
            "mlps": cells["mlps"]["blocks"],
            "blocks": [record for name, record in cells.items() if name.startswith("block-")],
        }

    def figures(self, document: Record) -> Mapping[str, str]:  # noqa: ARG002 - of the interface
        """Return no drawings: a few numbers are all there is."""
        return {}

    def page(self, document: Record) -> str:
        """Return what the model does first, and then what the blocks hold."""
        return negation_page(document["result"])


def measure_behaviour(options: StudyOptions, context: CellContext) -> Record:
    """Return what a negator does to the next word, frame by frame."""
    layer = open_layer(model_of(options), 0)
    words = TruthWords.of(layer.tokenizer)
    pairs = NegationPairs.of(layer.module, layer.hook("mlp_in"), layer.tokenizer, words)
    generator = torch.Generator().manual_seed(0)
    leaning, flip, shift = pairs.leaning(), pairs.flip(), pairs.shift()
    half = len(pairs.polarity) // 2
    context.say(f"flip {float(flip.mean()):+.2f} logits, shift {float(shift.mean()):+.2f}.")

    def both(rows: torch.Tensor, moved: torch.Tensor) -> Record:
        return {
            "flip": asdict(over_words(rows, generator)),
            "shift": asdict(over_words(moved, generator)),
        }

    return {
        "model": model_of(options).name,
        "model_sha256": layer.loaded.weights_sha256,
        "num_pairs": len(pairs.tokens) // 2,
        "frames": [
            {
                "frame": name,
                "text": FRAMES[name],
                "leaning_positive": leaning[row, :half].mean(dim=0).tolist(),
                "leaning_negative": leaning[row, half:].mean(dim=0).tolist(),
                "words": leaning[row].tolist(),
                **both(flip[row], shift[row]),
            }
            for row, name in enumerate(FRAMES)
        ],
        "all": both(flip.mean(dim=0), shift.mean(dim=0)),
    }


def measure_mlps(options: StudyOptions, context: CellContext) -> Record:
    """Return how much of flip and shift each MLP makes behind the negator, in any direction."""
    first = open_layer(model_of(options), 0)
    words = TruthWords.of(first.tokenizer)
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for index in range(first.module.config.n_layer):
        hook = f"blocks.{index}.mlp_in"
        pairs = NegationPairs.of(first.module, hook, first.tokenizer, words)
        edit = pairs.unheard()
        flip = (pairs.flip() - pairs.flip(edit)).mean(dim=0)
        shift = (pairs.shift() - pairs.shift(edit)).mean(dim=0)
        context.say(f"block {index} makes {float(shift.mean()):+.2f} logits of the shift.")
        blocks.append(
            {
                "block": index,
                "flip": asdict(over_words(flip, generator)),
                "shift": asdict(over_words(shift, generator)),
            }
        )
    return {"blocks": blocks}


def margins(behaviour: Record) -> Record:
    """Return by how much a word leans to its own side, without a negator and behind one."""
    leaning = torch.tensor([row["words"] for row in behaviour["frames"]], dtype=torch.float64)
    half = leaning.shape[1] // 2
    own = torch.cat([leaning[:, :half], -leaning[:, half:]], dim=1).mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    return {
        name: asdict(over_words(own[:, side], generator))
        for side, name in enumerate(("plain", "negated"))
    }


def measure(options: StudyOptions, index: int, context: CellContext) -> Record:
    """Train the autoencoders of one block, and look for negation."""
    model = model_of(options)
    layer = open_layer(model, index)
    hooks = layer.hook("mlp_in"), layer.hook("mlp_out")
    steps = options.steps or STEPS
    recipe = SAERecipe(
        hooks=hooks,
        k=K,
        tokens=steps * BATCH,
        batch_size=BATCH,
        buffer_size=min(BUFFER_STEPS, steps) * BATCH + layer.module.config.n_ctx,  # whole texts
    )
    resume = (context.folder / "run.json").exists()
    result = train_sae(context.folder, model, recipe, resume=resume, say=context.say)
    before = open_sae(result.folders[hooks[0]], layer, "mlp_in")
    behind = open_sae(result.folders[hooks[1]], layer, "mlp_out")
    blocks, held_out = corpus_blocks(model, layer)
    text = TracedText(blocks, "", "", "")
    reader = read_text(layer, before, behind, text, TraceOptions(top=TOP))
    words = TruthWords.of(layer.tokenizer)
    choosing, judging = (
        NegationPairs.of(layer.module, hooks[0], layer.tokenizer, words, [opener])
        for opener in OPENERS
    )
    return {
        "block": index,
        "num_latents": behind.sae.num_latents,
        "k": K,
        "steps": result.history[-1].step,
        "tokens": result.history[-1].tokens,
        "recipe": recipe.to_dict(),
        "metrics": {
            place: result.metrics[hook].to_dict()
            for place, hook in zip(("in", "out"), hooks, strict=True)
        },
        **measure_block(reader, held_out, choosing, judging, words),
    }
