"""Gates on all pairs of some bits: what is trained, read from the weights, beside the truth.

A layer with an output for each pair of bits is trained to compute a gate on it. On bits x² = x, so
of the quadratic form of an output three parts are identified: the constant, the diagonal with the
linear term added, and the interactions. Their truth follows from the truth table; without a bias
there is no constant, and the truth is the form nearest to the gate over the bits that were drawn.

Axes in this file: S models side by side, B bits of a batch, H products, C outputs, N bits.
"""

import math
from collections.abc import Mapping
from functools import partial
from itertools import product
from statistics import mean

import torch
from torch import Tensor

from bilens import BilinearTensor, QuadraticMap
from bilens.train import INITIALISATION, STEP, learning_rate, stream
from bilens_studies.page_writer import spread
from bilens_studies.published import Reproduced
from bilens_studies.study import CellContext, Measure, Record, Study, StudyOptions

GATES = {  # truth at (x, y) = 00, 10, 01, 11
    "AND": (0, 0, 0, 1),
    "OR": (0, 1, 1, 1),
    "XOR": (0, 1, 1, 0),
    "NAND": (1, 1, 1, 0),
    "NOR": (1, 0, 0, 0),
    "XNOR": (1, 0, 0, 1),
}
MIXTURE = "mixture"  # each output a weighted sum of one gate over all pairs
OPERATIONS = (*GATES, MIXTURE)
NUM_BITS, SHARE_OF_ONES, BATCH = 4, 0.3, 512
RATE, DECAY, STEPS = 0.01, 0.1, 1000
OURS, TUTORIAL = "12 products", "6 products, Adam without decay"
NARROW, DEFAULT = "4 products", "4 products, Adam with decay"
SETTINGS: dict[str, tuple[int, type[torch.optim.Adam], float, int]] = {
    # products, optimiser, weight decay, steps
    OURS: (12, torch.optim.AdamW, DECAY, STEPS),
    TUTORIAL: (6, torch.optim.Adam, 0.0, 10 * STEPS),  # as it is called there
    NARROW: (4, torch.optim.AdamW, DECAY, STEPS),
    DEFAULT: (4, torch.optim.Adam, DECAY, STEPS),  # of the published code; the decay is in the loss
}
FIRST, SECOND = torch.combinations(torch.arange(NUM_BITS)).T  # bits of each pair
BIASES = {"no bias": False, "bias": True}
QUANTITIES = ("recovery", "explained", "attainable", "at_the_pair")
RECOVERED = 0.99  # share of the truth, from which a matrix is clean
ZERO_AT_ZERO = tuple(gate for gate, truth in GATES.items() if truth[0] == 0)  # need no constant


class LogicStudy(Study):
    """Recovery of gates from interaction matrices, by gate, width and bias."""

    name = "toy/logic"
    title = "Gates on pairs of bits, read from the weights"
    uses = frozenset({"seeds", "steps", "full", "quick"})

    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        found: dict[str, Measure] = {}
        for (setting, (*_, usual)), seed in product(SETTINGS.items(), self.seeds(options)):
            steps = options.steps or options.choose(200, usual, usual)
            name = f"{setting} seed {seed}".replace(",", "").replace(" ", "-")
            found[name] = partial(measure, setting, seed, steps)
        return found

    def document(self, _options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        rows = []
        for setting, operation, bias in product(SETTINGS, OPERATIONS, BIASES):
            found = [
                cell["models"][f"{operation}, {bias}"]
                for cell in cells.values()
                if cell["setting"] == setting
            ]
            about = {"operation": operation, "setting": setting, "bias": bias}
            rows.append(about | {name: [one[name] for one in found] for name in QUANTITIES})
        return {"rows": rows}

    def reproduced(self, result: Record) -> Mapping[str, Reproduced]:
        found = {}
        for row in result["rows"]:
            gate, setting, shares = row["operation"], row["setting"], tuple(row["recovery"])
            if (gate, row["bias"]) == ("AND", "no bias"):
                found[f"{setting}, entry"] = Reproduced(tuple(row["at_the_pair"]))
            if setting != DEFAULT and BIASES[row["bias"]] != (gate in ZERO_AT_ZERO):
                found[f"{setting}, {gate}"] = Reproduced(shares, mean(shares) >= RECOVERED)
            elif setting == OURS and gate not in ZERO_AT_ZERO:
                note = f"of the gate it has R² {spread(row['attainable'], 2)}"
                found[f"{gate}, no bias"] = Reproduced(shares, note=note)
        return found


def measure(setting: str, seed: int, steps: int, _context: CellContext) -> Record:
    """Train every gate, with and without a bias, side by side; compare with the truth."""
    kinds = list(product(OPERATIONS, BIASES))
    tables = {operation: truth_tables(operation, seed) for operation in OPERATIONS}
    has_bias = torch.tensor([BIASES[bias] for _, bias in kinds])
    targets = torch.stack([tables[operation] for operation, _ in kinds])
    maps = train_side_by_side(targets, has_bias, setting, seed, steps)
    found = {
        f"{operation}, {bias}": compare_with_truth(f, tables[operation], BIASES[bias], operation)
        for f, (operation, bias) in zip(maps, kinds, strict=True)
    }
    return {"setting": setting, "seed": seed, "steps": steps, "models": found}


def all_bits() -> Tensor:
    """Return every word of bits, (2^N, N)."""
    return torch.tensor(list(product((0.0, 1.0), repeat=NUM_BITS)))


def truth_tables(operation: str, seed: int) -> Tensor:
    """Return the targets (C, 2^N): a gate on each pair, or a mixture of each gate over pairs."""
    x = all_bits().long()
    case = (x[:, FIRST] + 2 * x[:, SECOND]).T
    if operation != MIXTURE:
        return torch.tensor(GATES[operation])[case].float()
    weights = 2 * torch.rand(len(GATES), len(FIRST), generator=stream(seed, STEP)) - 1
    gates = (torch.tensor(truth)[case].float() for truth in GATES.values())
    return torch.stack([w @ values for w, values in zip(weights, gates, strict=True)])


def train_side_by_side(
    targets: Tensor, has_bias: Tensor, setting: str, seed: int, steps: int
) -> list[QuadraticMap]:
    """Return P[(Lx + b) ∘ (Rx + c)] + p of each model, trained on the same draws of bits."""
    H, optimizer_kind, decay, _ = SETTINGS[setting]
    (S, C, _), N = targets.shape, NUM_BITS
    generator, weights = stream(seed, INITIALISATION), []
    shapes = ((H, N), (H, N), (C, H), (H, 1), (H, 1), (C, 1))
    for shape, fan in zip(shapes, (N, N, H, N, N, H), strict=True):
        part = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan)
        weights.append(part.expand(S, *shape).clone().requires_grad_())
    mask = has_bias.float()[:, None, None]
    optimizer = optimizer_kind(weights, weight_decay=decay, fused=True)
    words, powers = all_bits(), 2 ** torch.arange(N - 1, -1, -1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(RATE, "cosine", 0.0, step, steps)
        ones = torch.rand(BATCH, N, generator=stream(seed, STEP, step)) < SHARE_OF_ONES
        chosen = ones.long() @ powers
        left, right, down, b, c, p = weights
        x = words[chosen].T
        y = down @ ((left @ x + mask * b) * (right @ x + mask * c)) + mask * p  # (S, C, B)
        loss = (y - targets[:, :, chosen]).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = []
    for biased, *parts in zip(has_bias, *weights, strict=True):
        left, right, down, b, c, p = (part.detach().double() for part in parts)
        f = QuadraticMap(BilinearTensor(down, left, right))
        if biased:
            f = f.with_biases(b[:, 0], c[:, 0]).plus_affine(constant=p[:, 0])
        found.append(f)
    return found


def identified_coefficients(f: QuadraticMap) -> Tensor:
    """Return constant, diagonal and interactions q_ij of each output, (C, 1 + N + N(N−1)/2)."""
    rows = []
    for form in map(f.form, range(f.sizes.d_out)):
        q = form.dense()
        rows.append([form.constant[None], q.diagonal() + form.linear, q[FIRST, SECOND]])
    return torch.stack([*map(torch.cat, rows)])


def coefficient_features() -> Tensor:
    """Return the features that these coefficients multiply, (2^N, 1 + N + N(N−1)/2)."""
    x = all_bits().double()
    return torch.cat([torch.ones_like(x[:, :1]), x, 2 * x[:, FIRST] * x[:, SECOND]], dim=1)


def compare_with_truth(f: QuadraticMap, targets: Tensor, has_bias: bool, operation: str) -> Record:
    """Return how much of the truth is in the weights, and how much of the targets it explains."""
    x, ours = coefficient_features(), identified_coefficients(f)
    ones = all_bits().double().sum(dim=1)
    chance = SHARE_OF_ONES**ones * (1 - SHARE_OF_ONES) ** (NUM_BITS - ones)
    used = slice(None) if has_bias else slice(1, None)  # without a bias no constant
    root = chance.sqrt()[:, None]
    truth, targets = torch.zeros_like(ours), targets.double()
    truth[:, used] = torch.linalg.lstsq(root * x[:, used], root * targets.T).solution.T
    start = 1 + NUM_BITS
    error = (ours - truth)[:, start:].square().sum() / truth[:, start:].square().sum()
    spread = (chance * (targets - (targets @ chance)[:, None]).square()).sum()

    def explained(coefficients: Tensor) -> float:
        return float(1 - (chance * (coefficients @ x.T - targets).square()).sum() / spread)

    at_pair = None if operation == MIXTURE else float(ours[:, start:].diagonal().mean())
    found = float(1 - error), explained(ours), explained(truth), at_pair
    return dict(zip(QUANTITIES, found, strict=True))
