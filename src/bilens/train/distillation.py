"""The last stage of a conversion: the student learns what the teacher gives."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.base import silent
from bilens.base.errors import NumericalError
from bilens.io.host import Host
from bilens.train.device import autocast, device_of
from bilens.train.layer_fit import ConversionRecipe
from bilens.train.layer_inputs import Passes
from bilens.train.loop import (
    TrainingRun,
    clip_gradient,
    in_parts,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
)
from bilens.train.processes import ALONE, Processes, places_of, whole_tensor

BETAS, CLIP, WARMUP, STEPS_A_LINE = (0.9, 0.98), 1.0, 12, 40
WORSE, HALVINGS = 2.0, 6  # than a guess, a loss that is lost; of the rate, at most
LOGITS_AT_ONCE, ROWS = 1 << 24, 16
HIDDEN = 16  # numbers that a network holds for each that it reads, about


def distil(
    teacher: Host,
    student: Host,
    trained: Sequence[nn.Parameter],
    texts: tuple[Passes, int, Tensor],
    recipe: ConversionRecipe,
    steps: int,
    folder: Path,
    loss: Callable[[Tensor, float], Tensor] | None = None,
    group: Processes = ALONE,
) -> Iterator[dict[str, Any]]:
    """Minimise KL(teacher, student) on logits; yields a line of numbers now and then.

    `texts` are those to learn from, the number of the first, and held-out ones; `loss`, if given,
    is minimised instead, of a batch and the share of the steps that is done. A run that is repeated
    goes on behind its last line, to the same bits. Where the gradient explodes, it goes back to the
    last line and on with steps half as long.
    """
    given, first, held_out = texts
    if group.shard:
        student = student.twin()  # for what is divided stays divided
    minimised = loss or (lambda texts, _done: kl_on(teacher, student, texts, recipe))
    run = shared_run(student, trained, minimised, recipe, group)
    (take,) = run.losses
    if not load_checkpoint(folder, run, silent):
        save_checkpoint(folder, run)
    limit, began = math.inf, time.monotonic()
    if student.gives == "next tokens":
        limit = WORSE * math.log(student.config.vocab_size)
    warmup = min(WARMUP / steps, 0.25)
    while run.step < steps:
        batch = group.share(given.texts(first + run.step * recipe.batch_size, recipe.batch_size))
        done = run.step / steps
        losses = in_parts(batch, recipe.texts_at_once, lambda x, done=done: take(x, done))  # type: ignore[misc]
        rate = learning_rate(recipe.learning_rate, "linear", warmup, run.step, steps)
        if not take_step(run, losses, rate, limit):
            halvings = run.extra["halvings"] + 1
            if halvings > HALVINGS:
                lower = f"choose a --learning-rate below {recipe.learning_rate:g}."
                raise NumericalError(f"the gradient explodes at step {run.step + 1}: {lower}")
            load_checkpoint(folder, run, silent)
            run.extra["halvings"] = halvings
            continue
        run.step += 1
        if run.step % STEPS_A_LINE and run.step < steps:
            continue
        run.seconds += time.monotonic() - began
        with group.joined(take):
            means = token_table(teacher, student, held_out).mean(dim=(0, 1))
        line = line_of(run, means, recipe)
        run.sums = torch.zeros_like(run.sums)
        save_checkpoint(folder, run)
        yield line
        began = time.monotonic()
    for one, now in zip(trained, run.model, strict=True) if group.shard else ():
        one.data = whole_tensor(now.detach())
    for one in trained:
        one.requires_grad_(False)


def has_experts(host: Host) -> bool:
    return any(site.expert is not None for site in host.sites)


def shared_run(
    student: Host,
    trained: Sequence[nn.Parameter],
    minimised: Callable[[Tensor, float], Tensor],
    recipe: ConversionRecipe,
    group: Processes,
) -> TrainingRun[nn.ParameterList]:
    """Return a training of some weights of a student at its start, whole or a part of each."""
    run, every = new_run(trained, recipe), map(student.at, student.sites)
    blocks = [block for block in every if any(one.requires_grad for one in block.parameters())]
    places = places_of(student.module, trained) if group.shard else []
    take = group.learner(student.module, minimised, blocks, unused=has_experts(student))
    if group.shard:
        run = new_run([getattr(*place) for place in places], recipe)
        for one in trained:
            one.data = one.new_empty(0)  # until the parts are put together
    run.group, run.losses = group, (take,)
    return run


def line_of(
    run: TrainingRun[nn.ParameterList], means: Tensor, recipe: ConversionRecipe
) -> dict[str, Any]:
    """Return a line of the history; `means` are those of a `token_table` of held-out texts."""
    theirs, ours, held_out_kl, *_ = means.tolist()
    return {
        "step": run.step,
        "kl": float(run.sums[0] / run.sums[1].clamp(min=1)),
        "held_out_kl": ours - theirs if math.isnan(held_out_kl) else held_out_kl,  # of numbers
        "loss_added": ours - theirs,
        "tokens_per_second": run.step * recipe.batch_size * recipe.n_ctx / run.seconds,
    }


def new_run(
    trained: Sequence[nn.Parameter], recipe: ConversionRecipe
) -> TrainingRun[nn.ParameterList]:
    """Return a training of some weights at its start."""
    if recipe.optimizer == "muon":  # for matrices alone, with steps as large as AdamW's
        trained = [one for one in trained if one.ndim == 2]
        make: Any = partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    else:
        make = partial(torch.optim.AdamW, betas=BETAS, fused=True)
    model = nn.ParameterList(trained).requires_grad_(True)
    optimizer = make(model.parameters(), recipe.learning_rate, weight_decay=0.0)
    sums, halvings = torch.zeros(2).double(), torch.zeros(()).double()
    return TrainingRun(model, optimizer, sums, extra={"halvings": halvings})


def seconds_of_a_step(
    teacher: Host,
    student: Host,
    trained: Sequence[nn.Parameter],
    texts: Tensor,
    recipe: ConversionRecipe,
) -> float:
    """Return how long a step takes; what it changes is put back."""
    run, ends = new_run(trained, recipe), list[float]()
    before = [one.detach().clone() for one in run.model]
    for _ in range(3):  # the first one warms up
        ends.append(time.monotonic())
        kl = partial(kl_on, teacher, student, recipe=recipe)
        losses = in_parts(texts, recipe.texts_at_once, kl)
        take_step(run, losses, recipe.learning_rate, math.inf)
    with torch.no_grad():
        for one, was in zip(run.model, before, strict=True):
            one.copy_(was)
    return ends[2] - ends[1]


def take_step(
    run: TrainingRun[nn.ParameterList], losses: Iterable[Tensor], rate: float, limit: float
) -> bool:
    """Update the weights once; False where the gradient is not finite, or the loss too large."""
    run.optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for part in losses:  # of one step, their gradients added
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
    loss, norm = run.group.mean(loss), clip_gradient(run.model, CLIP)
    if not (math.isfinite(norm) and loss < limit):
        return False
    for group in run.optimizer.param_groups:
        group["lr"] = rate * 0.5 ** float(run.extra["halvings"])
    run.optimizer.step()
    run.sums += torch.tensor([loss, 1.0], dtype=torch.float64)
    return True


def kl_on(teacher: Host, student: Host, texts: Tensor, recipe: ConversionRecipe) -> Tensor:
    """Return the mean KL(teacher, student) over all positions of texts; of numbers the error."""
    texts = texts.to(device_of(student.module))
    with autocast(texts.device, recipe.precision):
        with torch.no_grad():
            wanted = teacher.logits(texts)
        with student.recomputed() if recipe.recompute else nullcontext():
            found = student.logits(texts)
    if teacher.gives == "numbers":
        return (found - wanted).square().mean()
    divergence: Tensor = Divergence.apply(found.flatten(0, -2), wanted.flatten(0, -2))  # type: ignore[no-untyped-call]
    return divergence


class Divergence(torch.autograd.Function):
    """Mean KL of two rows of logits, in float32 a few rows at a time; the gradient is made along.

    Math: ∂KL/∂student = softmax(student) − softmax(teacher).
    """

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> Tensor:
        gradient, total = torch.empty_like(found), found.new_zeros((), dtype=torch.float32)
        for ours, theirs, slope in zip(
            *(torch.split(x, ROWS) for x in (found, wanted, gradient)), strict=True
        ):
            log_q, log_p = (functional.log_softmax(x.float(), dim=-1) for x in (ours, theirs))
            p = log_p.exp()
            total += (p * (log_p - log_q)).sum()
            slope.copy_((log_q.exp() - p) / len(found))
        ctx.save_for_backward(gradient)
        return total / len(found)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * slope, None


@torch.no_grad()
def token_table(
    teacher: Host, student: Host, texts: Tensor, targets: Tensor | None = None
) -> Tensor:
    """Return six numbers of each prediction, of next tokens (texts, length − 1, 6) float64.

    The teacher's loss, the student's, KL(teacher, student), all in nats; and as 0 or 1 whether both
    find the same token most probable, whether the teacher's is right, and whether the student's is.
    Where nothing says what is right (`targets`, one of each text), losses are against what the
    teacher gives; what is not measured is NaN.
    """
    rows, width = [], student.config.vocab_size if student.unit == "tokens" else HIDDEN
    at_once = max(1, LOGITS_AT_ONCE // (texts[0].numel() * width))
    texts = texts.to(device_of(student.module))
    for first in range(0, len(texts), at_once):
        part, at = texts[first : first + at_once], slice(first, first + at_once)
        logits = [host.logits(part).float() for host in (teacher, student)]
        answers = None if targets is None else targets[at][: len(part)].to(part.device)[:, None]
        if teacher.gives == "next tokens":
            logits, answers = [one[:, :-1] for one in logits], part[:, 1:]
        theirs, ours = (one.reshape(len(part), -1, one.shape[-1]) for one in logits)
        judge = errors if teacher.gives == "numbers" else log_losses
        found = judge(theirs, ours, answers)
        rows.append(torch.stack([one.double() for one in found], dim=-1))
    return torch.cat(rows).cpu()


def log_losses(theirs: Tensor, ours: Tensor, answers: Tensor | None) -> list[Tensor]:
    """Return the numbers of `token_table` for logits, (texts, positions) each."""
    theirs, ours = (functional.log_softmax(one, dim=-1) for one in (theirs, ours))
    kl = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
    top, our_top = (one.argmax(dim=-1) for one in (theirs, ours))
    if answers is None:
        losses = [-(theirs.exp() * one).sum(dim=-1) for one in (theirs, ours)]
        return [*losses, kl, top == our_top, kl * math.nan, kl * math.nan]
    losses = [-one.gather(-1, answers[..., None])[..., 0] for one in (theirs, ours)]
    return [*losses, kl, top == our_top, top == answers, our_top == answers]


def errors(theirs: Tensor, ours: Tensor, answers: Tensor | None) -> list[Tensor]:
    """Return the numbers of `token_table` for other outputs: squared errors."""
    right = theirs if answers is None else answers[..., None]
    losses = [(one - right).square().mean(dim=-1) for one in (theirs, ours)]
    return [*losses, *4 * [losses[0] * math.nan]]


@torch.no_grad()
def text_losses(host: Host, texts: Tensor, teacher: Host | None = None) -> Tensor:
    """Return the mean loss of each text, (texts,) float64."""
    if host.gives != "next tokens":
        return token_table(teacher or host, host, texts)[..., 1].mean(dim=1)
    rows = texts.to(device_of(host.module))
    found = [functional.cross_entropy(host.logits(x[None])[0, :-1].float(), x[1:]) for x in rows]
    return torch.stack(found).double().cpu()


def swap_in_losses(
    teacher: Host, student: Host, blocks: Sequence[int], texts: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Yield each block and the loss of each text, with the student's MLPs in it alone, (texts,)."""
    for block in blocks:
        alone = teacher.twin()
        sites = [site for site in alone.sites if site.block == block]
        alone.replace({site.name: student.at(site) for site in sites})
        yield block, text_losses(alone, texts, teacher)
