"""The wires of the MLPs of a small polynomial transformer, trained on stories."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bilens as bl
from bench.wire_truncation import SEED, Projection, try_controls, try_wires
from bilens.algebra.gaussian import mean_and_covariance
from bilens.data.text import load_text
from bilens.data.tokenizer import train_tokenizer
from bilens.nn.polynomial_transformer import PolynomialBlock, mlp_of
from bilens.train.corpus import Batches, measured_texts, tokens_of
from bilens.train.loop import learning_rate

VOCABULARY, WIDTH, HIDDEN, BLOCKS, HEADS, CONTEXT = 1024, 64, 128, 3, 4, 64
STEPS, BATCH, RATE, DECAY, CLIP = 1500, 16, 3e-3, 0.1, 1.0
MEASURED_TEXTS, TRIED_TEXTS, HELD = 250, 150, 4000


def train_model(batches: Batches) -> bl.nn.PolynomialTransformer:
    """Train a transformer: AdamW, a linear schedule with a warm-up, as `bilens train language`."""
    torch.manual_seed(SEED)
    model = bl.nn.PolynomialTransformer(VOCABULARY, WIDTH, HIDDEN, BLOCKS, HEADS, CONTEXT)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=DECAY
    )
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(RATE, "linear", 0.05, step, STEPS)
        loss = model.next_token_loss(batches.batch(step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        if step % 250 == 0:
            sys.stderr.write(f"step {step}: {float(loss.detach()):.3f}\n")
    return model.eval()


def run(
    model: bl.nn.PolynomialTransformer, texts: Tensor, chosen: Sequence[Projection] | None = None
) -> tuple[list[Tensor], Tensor]:
    """Run a model, its stream projected behind each MLP; return what the MLPs read, and the last.

    The list is the stream before the first MLP and behind each.
    """
    x, carried = model.embed(texts), []
    for at, block in enumerate(model.blocks):
        assert isinstance(block, PolynomialBlock), "built by the model"
        x = x + block.attention(block.attention_scale(x))
        if at == 0:
            carried.append(x)
        x = x + block.mlp(block.mlp_scale(x))
        if chosen is not None:
            x = x @ chosen[at][0].T.to(x) + chosen[at][1].to(x)
        carried.append(x)
    return carried, model.final_scale(x)


@torch.no_grad()
def loss_of(
    model: bl.nn.PolynomialTransformer, texts: Tensor, chosen: Sequence[Projection] | None = None
) -> float:
    """Compute the held-out loss, nats per token."""
    logits = model.unembed(run(model, texts[:, :-1], chosen)[1])
    targets = texts[:, 1:].flatten().long()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets))


def chain_of(model: bl.nn.PolynomialTransformer) -> bl.PolynomialNetwork:
    """Read the MLPs with their residual paths, one behind the other, and the head."""
    parts = [mlp_of(block) for block in model.blocks if isinstance(block, PolynomialBlock)]
    head = model.unembed.weight.detach().double() * model.final_scale.scale.detach().double()
    return bl.PolynomialNetwork(tuple(parts), head=head - head.mean(dim=0))


def projections(wires: bl.WireDecomposition, widths: Sequence[int]) -> list[Projection]:
    """Return a truncation as projections of the channels; the 1 behind them stays what it is."""
    chosen = []
    for read, write, width in zip(wires.read, wires.write, widths, strict=True):
        matrix = (write[:, :width] @ read[:width])[:-1]
        chosen.append((matrix[:, :-1], matrix[:, -1]))
    return chosen


def measure_language(corpus: Path) -> dict[str, Any]:
    """Train a transformer, project its wires, and measure the loss on held-out stories."""
    began = time.process_time()
    text = load_text(corpus)
    tokens = tokens_of(text, train_tokenizer(text.documents, VOCABULARY), CONTEXT)
    batches = Batches(tokens.train, CONTEXT, BATCH, SEED)
    model = train_model(batches)
    trained = time.process_time() - began
    held_out = measured_texts(tokens.held_out, CONTEXT)[:MEASURED_TEXTS]
    known = torch.cat([batches.batch(number) for number in range(TRIED_TEXTS // BATCH + 1)])
    with torch.no_grad():
        carried = [one.flatten(0, 1).double() for one in run(model, known[:, :-1])[0]]
        held = run(model, held_out[:, :-1])[0][0].flatten(0, 1).double()
    network, whole = chain_of(model), loss_of(model, held_out)
    x = held[torch.randperm(len(held), generator=torch.Generator().manual_seed(SEED))[:HELD]]

    def good(value: float, tolerance: float) -> bool:
        return value <= (1 + tolerance) * whole

    def measure(wires: bl.WireDecomposition, less: bl.TruncatedNetwork) -> float:
        return loss_of(model, held_out, projections(wires, less.widths))

    methods: dict[str, Any] = {
        "wires, N(0, I)": try_wires(network, None, measure, good, x),
        "wires, stream": try_wires(network, mean_and_covariance(carried[0]), measure, good, x),
    }
    methods |= try_controls(
        [mean_and_covariance(one) for one in carried[1:]],
        lambda chosen: loss_of(model, held_out, chosen),
        good,
    )
    found = {"name": "TinyStories", "residual": True, "whole": whole, "unit": "loss"}
    sys.stderr.write(f"{found} {time.process_time() - began:.0f} s\n")
    sizes = {"blocks": BLOCKS, "width": WIDTH, "tokens": STEPS * BATCH * CONTEXT}
    return {**found, **sizes, "methods": methods, "training_seconds": trained}
