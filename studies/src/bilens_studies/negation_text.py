"""Negation in a model of running text: §5.1 of the paper, where nobody knows the rule.

The study of the grammar asks whether the ranking finds a rule that is there. Here it is asked
first whether the model knows one: what a *not* does to the next word, on minimal pairs. Then every
block is read through autoencoders, ranked as the grammar's is, and looked through for
negation by words that took no part in the ranking.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from bilens import TraceOptions
from bilens.interp import TracedText, open_layer, open_sae, read_text
from bilens_studies import negation_candidates as candidates, negation_prompts as prompts
from bilens_studies.negation_grammar import corpus_blocks
from bilens_studies.published import Reproduced
from bilens_studies.study import (
    CellContext,
    Measure,
    OneModelStudy,
    Record,
    StudyOptions,
    metrics_around,
    model_of,
    sae_recipe,
)

STEPS, K = 384, 16
BUFFER_STEPS = 32  # at most


class NegationTextStudy(OneModelStudy):
    """Measures a negator in a model of running text, and looks for it in the weights."""

    name = "language/negation-text"
    title = "Negation in a model of running text"

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        blocks = range(open_layer(model_of(options), 0).module.config.n_layer)
        return {
            "behaviour": partial(measure_behaviour, options),
            "mlps": partial(measure_mlps, options),
            **{f"block-{index}": partial(measure, options, index) for index in reversed(blocks)},
        }

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        behaviour = cells["behaviour"]
        return {
            "behaviour": {**behaviour, "all": {**behaviour["all"], **margins(behaviour)}},
            "mlps": cells["mlps"]["blocks"],
            "blocks": [record for name, record in cells.items() if name.startswith("block-")],
        }

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        blocks, found = result["blocks"], result["behaviour"]["all"]
        held = sum(block[of]["num_both"] for block in blocks for of in ("latents", "pairs"))
        ranked = sum(block[of]["ranked"] for block in blocks for of in ("latents", "pairs"))
        told = f"{held} of {ranked:,} latents and pairs of {len(blocks)} blocks"
        knows = "turns" if found["negated"]["high"] < 0 else "does not turn"
        return {
            "found": Reproduced(
                holds=held > 0, note=f"{told}; a *not* {knows} feelings around here", runs=1
            )
        }


def measure_behaviour(options: StudyOptions, context: CellContext) -> Record:
    """Measure the effect of a negator on the next word, frame by frame."""
    layer = open_layer(model_of(options), 0)
    words = prompts.TruthWords.for_tokenizer(layer.tokenizer)
    pairs = prompts.NegationPairs.for_model(
        layer.module, layer.hook("mlp_in"), layer.tokenizer, words
    )
    generator = torch.Generator().manual_seed(0)
    leaning, flip, shift = pairs.leaning(), pairs.flip(), pairs.shift()
    half = len(pairs.polarity) // 2
    context.say(f"flip {float(flip.mean()):+.2f} logits, shift {float(shift.mean()):+.2f}.")
    return {
        "model": model_of(options).name,
        "model_sha256": layer.loaded.weights_sha256,
        "num_pairs": len(pairs.tokens) // 2,
        "frames": [
            {
                "frame": name,
                "text": prompts.FRAMES[name],
                "leaning_positive": leaning[row, :half].mean(dim=0).tolist(),
                "leaning_negative": leaning[row, half:].mean(dim=0).tolist(),
                "words": leaning[row].tolist(),
                **flip_and_shift(flip[row], shift[row], generator),
            }
            for row, name in enumerate(prompts.FRAMES)
        ],
        "all": flip_and_shift(flip.mean(dim=0), shift.mean(dim=0), generator),
    }


def measure_mlps(options: StudyOptions, context: CellContext) -> Record:
    """Return how much of flip and shift each MLP makes behind the negator, in any direction."""
    first = open_layer(model_of(options), 0)
    words = prompts.TruthWords.for_tokenizer(first.tokenizer)
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for index in range(first.module.config.n_layer):
        hook = f"blocks.{index}.mlp_in"
        pairs = prompts.NegationPairs.for_model(first.module, hook, first.tokenizer, words)
        edit = pairs.negator_ablated()
        flip = (pairs.flip() - pairs.flip(edit)).mean(dim=0)
        shift = (pairs.shift() - pairs.shift(edit)).mean(dim=0)
        context.say(f"block {index} makes {float(shift.mean()):+.2f} logits of the shift.")
        blocks.append({"block": index, **flip_and_shift(flip, shift, generator)})
    return {"blocks": blocks}


def flip_and_shift(flip: Tensor, shift: Tensor, generator: torch.Generator) -> Record:
    return {
        "flip": prompts.over_words(flip, generator),
        "shift": prompts.over_words(shift, generator),
    }


def margins(behaviour: Record) -> Record:
    """Return by how much a word leans to its own side, without a negator and behind one."""
    leaning = torch.tensor([row["words"] for row in behaviour["frames"]], dtype=torch.float64)
    half = leaning.shape[1] // 2
    own = torch.cat([leaning[:, :half], -leaning[:, half:]], dim=1).mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    return {
        name: prompts.over_words(own[:, side], generator)
        for side, name in enumerate(("plain", "negated"))
    }


def measure(options: StudyOptions, index: int, context: CellContext) -> Record:
    """Train the autoencoders of one block, and look for negation."""
    model = model_of(options)
    layer = open_layer(model, index)
    hooks = layer.hook("mlp_in"), layer.hook("mlp_out")
    steps = options.steps or STEPS
    recipe = sae_recipe(hooks, steps, min(BUFFER_STEPS, steps), layer.module.config.n_ctx, K)
    result = context.train_sae(model, recipe)
    before = open_sae(result.folders[hooks[0]], layer, "mlp_in")
    behind = open_sae(result.folders[hooks[1]], layer, "mlp_out")
    blocks, held_out = corpus_blocks(model, layer)
    text = TracedText(blocks, "", "", "")
    reader = read_text(layer, before, behind, text, TraceOptions(top=candidates.TOP))
    words = prompts.TruthWords.for_tokenizer(layer.tokenizer)
    choosing, judging = (
        prompts.NegationPairs.for_model(layer.module, hooks[0], layer.tokenizer, words, [opener])
        for opener in prompts.OPENERS
    )
    return {
        "block": index,
        "num_latents": behind.sae.num_latents,
        "k": K,
        "steps": result.history[-1].step,
        "tokens": result.history[-1].tokens,
        "recipe": recipe.to_dict(),
        "metrics": metrics_around(result, hooks),
        **candidates.measure_block(reader, held_out, choosing, judging, words),
    }


def verdict(found: Record) -> str:
    """Return in a sentence whether the model knows the rule."""
    if found["negated"]["high"] < 0:
        return "A *not* turns the sentiment around in this model."
    if found["flip"]["low"] > 0:
        return "A *not* weakens what a sentiment word says in this model; it turns nothing around."
    return "A *not* does nothing to what a sentiment word says in this model."


def frame_shown(frame: str) -> str:
    return frame.format("Tim", "He", word="happy", **{"not": " (not)"})


def removed(check: Record | None, name: str) -> Record | None:
    """Return a share of an effect; none where the effect is not told from zero."""
    return check[name] if check is not None and check["before"]["low"] > 0 else None


def quoted(words: list[str]) -> str:
    """Return texts that no mark of a table breaks."""
    return " ".join(f"`{' '.join(word.split())}`".replace("|", "¦") for word in words)
