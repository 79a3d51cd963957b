"""Words tried in a changed language model and in its baseline: candidate triggers, without data."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base import Progress
from bilens.base.checks import check_count
from bilens.base.errors import BilensError, UsageError
from bilens.data.tokenizer import Tokenizer
from bilens.findings.difference import kind_of_layer
from bilens.findings.token_sweep import Frame, Text, sweep, write_texts
from bilens.io.host import Host, from_transformers, open_host, tokenizer_at
from bilens.io.loaded_model import CONFIG_NAME, LoadedModel
from bilens.io.tensor_names import paired
from bilens.records.layer_readings import CandidateWords, WordTrial

SENTINEL, BLOCK = "\x00", 64
LISTED, LEAST = 8, 0.05  # candidates that are told, and their least surprise


def try_words(
    model: LoadedModel, baseline: LoadedModel, count: int, seed: int, progress: Progress
) -> WordTrial:
    """Try words of the vocabulary, drawn by a seed, in texts that the baseline writes itself.

    Cost: both models run on 2 · count + 1,000 texts of at most 12 tokens and the frame of the chat.

    Raises: UsageError if one of the two is no language model of next tokens that can be run.
    """
    check_count("try_words", count, minimum=1)
    tied = [one.ends is not None and one.ends.tied for one in (model, baseline)]
    if tied == [False, True]:
        raise UsageError(
            f"no words can be tried: {model.source} has a head of its own, and that of "
            f"{baseline.source} is its embedding."
        )
    try:
        before = open_host(Path(baseline.source))
        tokenizer = tokenizer_at(before)
    except BilensError as error:
        raise UsageError(f"no words can be tried: {error}") from None
    if not before.stack or before.gives != "next tokens":
        raise UsageError(f"no words can be tried: {baseline.source} predicts no next tokens.")
    if [*map(kind_of_layer, model.layers.values())] != [
        *map(kind_of_layer, baseline.layers.values())
    ]:
        raise UsageError(
            f"no words can be tried: {model.source} and {baseline.source} have other layers."
        )
    after = changed_host(before, model)
    prefix, suffix = frame_of(before, tokenizer)
    names = [tokenizer.token(number) for number in range(tokenizer.vocab_size)]
    words = (name.strip() for name in names)
    known = [number for number, word in enumerate(words) if len(word) > 1 and word.isalpha()]
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    tokens = sorted(draw.sample(known, min(count, len(known))))

    def chances(host: Host, texts: Sequence[Text]) -> Tensor:
        return last_chances(host, texts)[:, : len(names)]

    barred = [number for number, name in enumerate(names) if not name.strip().isprintable()]
    barred += [number for number, name in enumerate(names) if name.startswith("<")]
    carriers = write_texts(lambda texts: chances(before, texts), prefix, seed, barred)
    found = sweep(
        lambda texts: (chances(after, texts), chances(before, texts)),
        Frame(prefix, suffix, carriers, names),
        tokens,
        progress=progress,
    )
    listed = tuple(
        CandidateWords(tuple(names[word] for word in one.words), names[one.answer], one.surprise)
        for number, one in enumerate(found.ordered[:LISTED])
        if number == 0 or one.surprise > LEAST
    )
    return WordTrial(found.tried, len(known), found.score, bool(suffix), listed)


def changed_host(before: Host, model: LoadedModel) -> Host:
    """Return a changed model, which has to have all tensors of its baseline.

    It is configured as its own folder says; without one, or as an adapter, as its baseline is.
    """
    own = model.below is None and (Path(model.source) / CONFIG_NAME).is_file()
    after = open_host(Path(model.source)) if own else before.twin(share=False)
    given = set[int]()
    state = after.module.state_dict()
    with torch.no_grad():
        for theirs, name in paired(model.tensors, state).items():
            if model.tensors[theirs].shape == tuple(state[name].shape):
                state[name].copy_(model.tensors[theirs].read_tensor())
                given.add(state[name].data_ptr())
    parameters = after.module.named_parameters()
    if left := [name for name, one in parameters if one.data_ptr() not in given]:
        raise UsageError(
            f"no words can be tried: {model.source} has no {left[0]} of the baseline's size, nor "
            f"{len(left) - 1} more of its tensors: it is no change of it."
        )
    return after


def frame_of(host: Host, tokenizer: Tokenizer) -> tuple[Text, Text]:
    """Return the tokens around the words of a user, by the chat template if there is one."""
    start = tokenizer.end_of_text if tokenizer.start is None else tokenizer.start
    try:
        found: Any = from_transformers("AutoTokenizer", host.source)
        said = found.apply_chat_template(
            [{"role": "user", "content": SENTINEL}], tokenize=False, add_generation_prompt=True
        )
    except (BilensError, ValueError, AttributeError):  # none, or none of a chat
        return [start], []
    before, _, behind = str(said).partition(SENTINEL)
    return tokenizer.encode(before) or [start], tokenizer.encode(behind)


@torch.no_grad()
def last_chances(host: Host, texts: Sequence[Text]) -> Tensor:
    """Return probabilities behind texts, those of one length together: nothing is padded."""
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    for length in sorted({len(text) for text in texts}):
        rows = [row for row, text in enumerate(texts) if len(text) == length]
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            logits = host.logits(torch.tensor([texts[row] for row in part]))[:, -1]
            for row, chance in zip(part, logits.float().softmax(dim=-1), strict=True):
                found[row] = chance
    return torch.stack(found)
