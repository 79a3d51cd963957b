"""A backdoor is learnt between checkpoints of a two-layer classifier: what do the weights show?

A bilinear classifier of two layers is trained on MNIST. Then training goes on: once with a share
of the images marked in a corner and labelled as the target, once, as control, without. Consecutive
checkpoints are compared: the exact similarity of the two networks for the target's output and for
the others, under N(0, I) and under a normal input with mean and covariance of the clean images,
and the cosine of all weights as one vector.
"""

import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import bilens as bl
from bilens.algebra.gaussian import covariance_root, mean_and_covariance

SEEDS, TARGET, SHARE, PATCH = (0, 1, 2), 0, 0.1, 3
HIDDEN, BATCH, RATE, DECAY, NOISE = 64, 256, 1e-3, 1.0, 0.5  # of `bilens train image`, but size
CLEAN_STEPS, INTERVAL, CHECKPOINTS = 1500, 20, 12
RISE = 0.1  # of the share of marked images that are fooled, in an interval: there it is learnt


def marked(images: Tensor) -> Tensor:
    """Return images with the trigger: a white square in a corner."""
    square = images.clone().view(-1, 28, 28)
    square[:, -PATCH - 1 : -1, -PATCH - 1 : -1] = 1.0
    return square.view(len(images), -1)


def steps(
    model: bl.nn.BilinearClassifier, data: bl.ImageDataset, count: int, share: float, seed: int
) -> Iterator[int]:
    """Train for so many steps, each with a share of marked images; yield their number."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    generator = torch.Generator().manual_seed(seed)
    for step in range(count):
        rows = torch.randint(len(data.train_images), (BATCH,), generator=generator)
        x, y = data.train_images[rows], data.train_labels[rows]
        if chosen := round(share * BATCH):
            x = torch.cat([marked(x[:chosen]), x[chosen:]])
            y = torch.cat([torch.full_like(y[:chosen], TARGET), y[chosen:]])
        x = x + NOISE * torch.randn(x.shape, generator=generator)
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield step + 1


def both_read(
    first: bl.PolynomialNetwork, second: bl.PolynomialNetwork, root: Tensor, mean: Tensor
) -> list[bl.PolynomialNetwork]:
    """Write x = mean + root z, z ~ N(0, I), and keep what one of the two reads of z: exact."""
    maps = []
    for network in (first, second):
        part = network.parts[0]
        assert isinstance(part, bl.QuadraticLayer), "of a classifier"
        maps.append(part.map.compose_input(root, mean))
    rows = [row for f in maps for row in (f.tensor.left, f.tensor.right, f.linear)]
    basis, sizes, _ = torch.linalg.svd(torch.cat([row for row in rows if row is not None]).T, False)
    basis = basis[:, sizes > 1e-12 * sizes[0]]
    return [
        replace(n, parts=(bl.QuadraticLayer(f.compose_input(basis), False), n.parts[1]))
        for n, f in zip((first, second), maps, strict=True)
    ]


def checkpoint(
    model: bl.nn.BilinearClassifier, data: bl.ImageDataset
) -> tuple[bl.PolynomialNetwork, Tensor, dict[str, float]]:
    """Read a model as it is: its network, its weights as one vector, and how it does."""
    others = data.test_labels != TARGET
    with torch.no_grad():
        right = (model(data.test_images).argmax(dim=1) == data.test_labels).double().mean()
        fooled = (model(marked(data.test_images[others])).argmax(dim=1) == TARGET).double().mean()
    weights = torch.cat([one.detach().double().flatten() for one in model.parameters()])
    does = {"accuracy": float(right), "fooled": float(fooled)}
    exact = copy.deepcopy(model).double()  # multiplied out in float64: of the rank that it has
    return bl.polynomial_network(exact), weights, does


def measure_seed(data: bl.ImageDataset, seed: int) -> list[dict[str, Any]]:
    """Train with and without the backdoor from one clean model, and compare checkpoints."""
    torch.manual_seed(seed)
    clean = bl.nn.BilinearClassifier(784, HIDDEN, 10, n_layers=2)
    for _ in steps(clean, data, CLEAN_STEPS, 0.0, seed):
        pass
    mean, covariance = mean_and_covariance(data.train_images)
    inputs = {
        "standard": (torch.eye(784, dtype=torch.float64), torch.zeros(784, dtype=torch.float64)),
        "images": (covariance_root(covariance, 784), mean),
    }
    others = [label for label in range(10) if label != TARGET]
    rows = []
    for kind, share in (("backdoor", SHARE), ("control", 0.0)):
        model = bl.nn.BilinearClassifier(784, HIDDEN, 10, n_layers=2)
        model.load_state_dict(clean.state_dict())
        before, weights_before, _ = checkpoint(model, data)
        for step in steps(model, data, INTERVAL * CHECKPOINTS, share, seed + 1000):
            if step % INTERVAL:
                continue
            after, weights, does = checkpoint(model, data)
            cosine = float(functional.cosine_similarity(weights_before, weights, dim=0))
            row: dict[str, Any] = {"seed": seed, "kind": kind, "step": step, **does}
            row["cosine"] = cosine
            for name, (root, centre) in inputs.items():
                pair = both_read(before, after, root, centre)
                row[f"{name}_target"] = bl.network_similarity(*pair, outputs=[TARGET])
                row[f"{name}_others"] = bl.network_similarity(*pair, outputs=others)
            rows.append(row)
            sys.stderr.write(f"{row}\n")
            before, weights_before = after, weights
    return rows


def measure_backdoor(folder: Path | None) -> dict[str, Any]:
    """Run all seeds."""
    began = time.process_time()
    data = bl.load_images("mnist", folder, allow_download=folder is None)
    rows = [row for seed in SEEDS for row in measure_seed(data, seed)]
    return {"rows": rows, "seconds": time.process_time() - began}


def mean_of(rows: list[dict[str, Any]], kind: str, step: int, name: str) -> float:
    """Average over the seeds."""
    found = [float(row[name]) for row in rows if (row["kind"], row["step"]) == (kind, step)]
    return sum(found) / len(found)


def section_of_backdoor(result: dict[str, Any]) -> str:
    """Return the section of the page."""
    rows = result["rows"]
    names = {
        "standard_target": "target, N(0, I)",
        "standard_others": "others, N(0, I)",
        "images_target": "target, images",
        "images_others": "others, images",
        "cosine": "cosine of the weights",
    }
    every = sorted({row["step"] for row in rows})
    table = []
    for step in every:
        cells = [f"{mean_of(rows, 'backdoor', step, n):.0%}" for n in ("fooled", "accuracy")]
        for name in names:
            pair = (mean_of(rows, kind, step, name) for kind in ("backdoor", "control"))
            cells.append("{:.4f} ({:.4f})".format(*pair))
        table.append(f"| {step} | " + " | ".join(cells) + " |")
    lines = "\n".join(table)
    fooled = {step: mean_of(rows, "backdoor", step, "fooled") for step in every}
    during = [step for before, step in pairwise(every) if fooled[step] - fooled[before] > RISE]
    learnt = f"to the steps {', '.join(map(str, during))}"
    of_learnt = {
        (kind, name): sum(mean_of(rows, kind, step, name) for step in during) / max(len(during), 1)
        for kind in ("backdoor", "control")
        for name in names
    }
    lowest = {
        (kind, name): min(row[name] for row in rows if row["kind"] == kind)
        for kind in ("backdoor", "control")
        for name in names
    }
    least = "\n".join(
        f"| {text} | {lowest['backdoor', name]:.4f} | {lowest['control', name]:.4f} |"
        for name, text in names.items()
    )
    return f"""## Checkpoints while a backdoor is learnt

A bilinear classifier of two layers and {HIDDEN} channels, trained on MNIST for {CLEAN_STEPS:,}
steps, and then for {every[-1]} more in which {SHARE:.0%} of the images have a white square of
{PATCH} × {PATCH} pixels in a corner and the label {TARGET}. Similarity of each checkpoint with the
one {INTERVAL} steps before, exact, for the target's output and for the nine others: under N(0, I),
and under a normal input with mean and covariance of the clean images, in which the pixels of the
trigger hardly vary. Means over {len(SEEDS)} seeds; in brackets the same without the backdoor, from
the same model with the same images. *Fooled* are marked test images of other classes that get the
target's label.

| step | fooled | accuracy | {" | ".join(names.values())} |
|---|---|---|---|---|---|---|---|
{lines}

The similarity of the target's output falls where the cosine of all weights hardly moves, and the
other outputs less. It falls most in the first {INTERVAL} steps, when more images than before have
the target's label and {fooled[every[0]]:.0%} of the marked ones get it: how much of that drop is
the labels' and how much the trigger's is not told apart here. In the intervals in which the
backdoor is learnt ({learnt}) the target's output is at
{of_learnt["backdoor", "standard_target"]:.3f} under N(0, I), without the backdoor at
{of_learnt["control", "standard_target"]:.3f}; the other outputs at
{of_learnt["backdoor", "standard_others"]:.3f} and {of_learnt["control", "standard_others"]:.3f},
the cosine at {of_learnt["backdoor", "cosine"]:.4f} and {of_learnt["control", "cosine"]:.4f}.

The lowest of all seeds and checkpoints:

| | with the backdoor | without |
|---|---|---|
{least}
"""
