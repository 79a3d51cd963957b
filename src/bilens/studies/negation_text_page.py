"""The page of the study of negation in running text."""

from __future__ import annotations

from bilens.studies.negation import PUBLISHED, percent
from bilens.studies.negation_candidates import TOP
from bilens.studies.negation_circuit import MASS, MOST_DIRECTIONS
from bilens.studies.negation_pairs import FRAMES, OPENERS, SUBJECTS, WORDS
from bilens.studies.negation_text_circuit import (
    CHECKED_PAIRS,
    LEAST_ACTIVE,
    MOST_TRIED,
)
from bilens.studies.negation_words import MOSTLY, WINDOW
from bilens.studies.study import Record


def negation_page(result: Record) -> str:
    """Return what the model does first, and then what the blocks hold."""
    behaviour, blocks = result["behaviour"], result["blocks"]
    found = behaviour["all"]
    lines = [
        f"**{verdict(found)}** Over all {behaviour['num_pairs']} minimal pairs a sentiment word "
        f"leans to its own side by {logits(found['plain'])} logits, and behind a *not* by "
        f"{logits(found['negated'])}: the flip is {logits(found['flip'])}, and turning around "
        f"would take {2 * found['plain']['value']:.2f}. The shift is {logits(found['shift'])}.",
        "",
        "*Leaning*: log odds of positive against negative next words. *Flip*: how far a *not* "
        "moves a word away from its own side, averaged over words of both polarities. *Shift*: "
        "how far it moves the leaning to the negative whatever the word.",
        "",
        "| frame | happy …, plain | with *not* | sad …, plain | with *not* | flip | shift |",
        "|---|---|---|---|---|---|---|",
        *(frame_row(row) for row in behaviour["frames"]),
        "",
        "What the MLP of a block makes of a *not* at the tokens behind it, whatever the "
        "directions: it is given what it reads there without the *not*. What it does at the "
        "*not* itself is not in these numbers, nor what attention does.",
        "",
        "| block | of the flip, logits | of the shift |",
        "|---|---|---|",
        *(
            f"| {row['block']} | {logits(row['flip'])} | {logits(row['shift'])} |"
            for row in result["mlps"]
        ),
        "",
        "## What the weights hold",
        "",
        "First place in the ranking of an output latent, and of a pair, among whose "
        f"{TOP} largest interactions one is of a negation latent with a sentiment latent, "
        "or with any other; in brackets how many there are among those looked at, and "
        "the place to be expected by chance.",
        "",
        "| block | nmse in, out | negation, sentiment latents | latents ranked "
        "| negation × sentiment | negation × any | pairs looked at | negation × sentiment "
        "| negation × any |",
        "|---|---|---|---|---|---|---|---|---|",
        *(block_row(block) for block in blocks),
        "",
        "## What ablating them does",
        "",
        "Of the latents and pairs that hold negation, the first of the ranking, and the one "
        "whose directions carry most of the shift (chosen on other minimal pairs).",
        "",
        "| block | chosen | latents | place | directions | flip removed | shift removed "
        "| as many random directions | loss elsewhere |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            circuit_row(block, number, circuit)
            for block in blocks
            for number, circuit in enumerate(block["circuits"])
        ),
        "",
        "Brackets: 95 % intervals, of resampled words for what was done, of the draws for "
        "random directions. A dash: on these prompts there is no such effect, told from zero, "
        "to remove.",
        "",
        "| block | latents | promote | are strongest at | an interaction of the two kinds |",
        "|---|---|---|---|---|",
        *(reading_row(block, circuit) for block in blocks for circuit in block["circuits"]),
        "",
        "## How",
        "",
        f"* **Minimal pairs.** {', '.join(f'*{word}*' for word in WORDS[1])} and "
        f"{', '.join(f'*{word}*' for word in WORDS[-1])} in "
        + ", ".join(f"“{shown(frame)}”" for frame in FRAMES.values())
        + f", {len(SUBJECTS)} names, {len(OPENERS)} sentences before. Intervals resample the "
        "words of each polarity.",
        f"* **Autoencoders.** {blocks[0]['num_latents']:,} latents, {blocks[0]['k']} an input, "
        f"at mlp_in and mlp_out of every block, {blocks[0]['tokens']:,} tokens each.",
        "* **Ranking.** As for the grammar: `rank_latents` of all output latents that "
        f"{LEAST_ACTIVE} of the tokens read activate; `rank_contrasts` of the pairs among "
        f"the first of these, whose first {CHECKED_PAIRS} pairs are looked at. Weights and "
        "activations alone.",
        "* **Kinds of input latents.** By words, afterwards: at least "
        f"{MOSTLY:.0%} of a latent's activation lies at a negator or up to {WINDOW} tokens "
        "behind one in its sentence (negation), or at a sentiment word (sentiment).",
        f"* **Ablation.** As few eigen-directions as hold {MASS:.0%} of the squared "
        f"eigenvalues, {MOST_DIRECTIONS} at most, set to their mean where one of the latents "
        "is active. Loss elsewhere: held-out tokens that no negator stands before. "
        f"{MOST_TRIED} latents and as many pairs of a block are tried at most.",
        "",
        PUBLISHED,
    ]
    return "\n".join(lines)


def verdict(found: Record) -> str:
    """Return in a sentence whether the model knows the rule."""
    if found["negated"]["high"] < 0:
        return "A *not* turns the sentiment around in this model."
    if found["flip"]["low"] > 0:
        return "A *not* weakens what a sentiment word says in this model; it turns nothing around."
    return "A *not* does nothing to what a sentiment word says in this model."


def logits(interval: Record) -> str:
    """Return a number of logits with its interval."""
    return f"{interval['value']:+.2f} [{interval['low']:+.2f}, {interval['high']:+.2f}]"


def frame_row(row: Record) -> str:
    """Return what a negator does in one frame."""
    cells = [*row["leaning_positive"], *row["leaning_negative"]]
    return (
        f"| {shown(row['text'])} … "
        f"| {' | '.join(f'{cell:+.2f}' for cell in cells)} "
        f"| {logits(row['flip'])} | {logits(row['shift'])} |"
    )


def shown(frame: str) -> str:
    """Return a frame as an example."""
    return frame.format("Tim", "He", word="happy", **{"not": " (not)"})


def block_row(block: Record) -> str:
    """Return what the ranking of one block holds."""
    latents, pairs, metrics = block["latents"], block["pairs"], block["metrics"]
    return (
        f"| {block['block']} | {metrics['in']['nmse']:.3f}, {metrics['out']['nmse']:.3f} "
        f"| {block['num_negation']}, {block['num_sentiment']} | {latents['ranked']} "
        f"| {place_cell(latents, 'both')} | {place_cell(latents, 'negation')} "
        f"| {pairs['looked_at']} of {pairs['ranked']:,} "
        f"| {place_cell(pairs, 'both')} | {place_cell(pairs, 'negation')} |"
    )


def place_cell(found: Record, kind: str) -> str:
    """Return the first place, how many there are, and the place by chance."""
    if found[kind] is None:
        return "none"
    return f"{found[kind]} ({found[f'num_{kind}']}; {found[f'chance_{kind}']:.0f})"


def circuit_row(block: Record, number: int, circuit: Record) -> str:
    """Return what ablating one circuit does."""
    flip, shift = circuit["flip"], circuit["shift"]
    random = percent(shift["random_share"]) if is_told(shift) else "–"
    before, after = circuit["loss_before"], circuit["loss_after"]
    return (
        f"| {block['block']} | {'first' if number == 0 else 'most shift'} "
        f"| {', '.join(map(str, circuit['latents']))} | {circuit['place']} "
        f"| {circuit['num_directions']} | {percent(flip['share']) if is_told(flip) else '–'} "
        f"| {percent(shift['share']) if is_told(shift) else '–'} | {random} "
        f"| {before:.4f}, {after / before - 1:+.2%} |"
    )


def is_told(check: Record | None) -> bool:
    """Return whether there was an effect to remove: one that is told from zero."""
    return check is not None and bool(check["before"]["low"] > 0)


def reading_row(block: Record, circuit: Record) -> str:
    """Return what the latents of one circuit stand for."""
    promoted = " / ".join(quoted(words) for words in circuit["promoted"])
    at = " / ".join(quoted(words) for words in circuit["strongest_at"])
    entries = circuit["interactions"]
    told = "–"
    if entries:
        first, second = (quoted(entries[0][side]["strongest_at"]) for side in ("first", "second"))
        told = f"{first} × {second}: {entries[0]['value']:+.3f}"
    return (
        f"| {block['block']} | {', '.join(map(str, circuit['latents']))} "
        f"| {promoted} | {at} | {told} |"
    )


def quoted(words: list[str]) -> str:
    """Return texts that no mark of a table breaks."""
    return " ".join(f"`{' '.join(word.split())}`".replace("|", "¦") for word in words)
