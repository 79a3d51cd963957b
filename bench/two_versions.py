"""The work behind docs/measured.md on two checkouts in turns: what became slower?

`python -m bench.two_versions BEFORE AFTER`, each the root of a checkout. Every workload runs in a
process of its own, with `src` of one checkout; only the work itself is timed, by the seconds of all
its threads, which other programs on the machine disturb least. Printed are the medians and their
ratio. The workloads take names that both checkouts have.
"""

import argparse
import functools
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bilens.data.images import ImageDataset, load_images
from bilens.nn import BilinearClassifier, TopKSAE

Work = Callable[[], object]


def eigenpairs(kind: str) -> Work:
    from bench.eigen import layer, ours

    weights = layer(1024, 4096, 16, kind)
    return lambda: ours(weights, "float32")


@functools.cache
def digits() -> ImageDataset:

    return load_images("mnist", data_dir=os.environ.get("BILENS_TEST_DATA"))


def classifier(epochs: int = 3) -> BilinearClassifier:
    from bilens.train.tasks.image import ImageRecipe, train_classifier

    recipe = ImageRecipe(d_hidden=256, epochs=epochs, noise=0.5, precision="float32")
    return train_classifier(digits(), recipe).eval()


def radii() -> Work:
    from bilens import certify

    f, data = classifier().quadratic_map().detach(), digits()
    x, labels = data.test_images[:1000], data.test_labels[:1000]
    return lambda: certify.l2_radius(f, x, labels, certify.prepare(f))


def attributions() -> Work:
    from bilens.algebra.attribution import attribute

    f, data = classifier().quadratic_map().detach(), digits()
    x, labels = data.test_images[:256], data.test_labels[:256]
    return lambda: [attribute(f, x, target=labels) for _ in range(50)]


def interactions() -> Work:
    from bench.eigen import layer
    from bilens import BilinearTensor, QuadraticMap, direct_interactions

    weights = layer(512, 2048, 8, "planted")
    f = QuadraticMap(BilinearTensor(weights.down, weights.left, weights.right))
    dictionary = torch.randn(512, 2048, generator=torch.Generator().manual_seed(0))
    return lambda: direct_interactions(f, dictionary)


def image_training() -> Work:
    digits()
    return lambda: classifier(epochs=2)


def language_training() -> Work:
    from bench.language_throughput import our_rounds, prepare

    data, recipe, vocabulary, _ = prepare("grammar")
    found = our_rounds(data, recipe, vocabulary)
    next(found)
    return lambda: [next(found) for _ in range(10)]


def autoencoder_training() -> Work:
    from bench.sae_steps import ROWS, step
    from bilens.train.tasks.sae import losses

    torch.manual_seed(0)
    sae, x = TopKSAE(512, 2048, 30), torch.randn(ROWS, 512)
    adam = torch.optim.Adam(sae.parameters(), lr=1e-4, fused=True)
    unused, variance = torch.zeros(2048, dtype=torch.bool), float(x.var(dim=0).sum())

    def steps() -> None:
        for _ in range(8):
            step(sae, adam, losses(sae, x, variance, unused, 0.0)[0])

    return steps


def perceptron(depth: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = [784, *[256] * depth, 10]
    layers = (torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
    return torch.nn.Sequential(*[part for one in layers for part in (one, torch.nn.ReLU())][:-1])


def quadratic_approximation() -> Work:
    import bilens as bl

    model, x = perceptron().eval(), digits().train_images[:2000]
    fit = bl.quadratic_fit  # found here, so that the imports are not timed
    return lambda: fit(model, data=x)


class GatedMLP(torch.nn.Module):
    """The MLP of a language model, with SiLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(width, hidden) for _ in range(2))
        self.down_proj = torch.nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down_proj(
            torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)
        )
        return y


def language_model_audit() -> Work:
    import bilens as bl

    torch.manual_seed(0)
    model, audit = GatedMLP(576, 1536).eval(), bl.audit
    return lambda: audit(model)


def file_audit() -> Work:
    """The audit of the file in BILENS_BENCH_MODEL, such as that of `make study-pretrained`."""
    import bilens as bl

    path, audit = os.environ["BILENS_BENCH_MODEL"], bl.audit
    return lambda: audit(bl.load(path))


def module_audit() -> Work:
    import bilens as bl

    model, audit = perceptron().eval(), bl.audit
    return lambda: audit(model)


def classifier_audit() -> Work:
    import bilens as bl

    model, data, audit = classifier(), digits(), bl.audit
    return lambda: audit(model, data=data)


def table_fit() -> Work:
    from sklearn.datasets import load_breast_cancer

    from bilens.sklearn import BilinearClassifier

    x, y = load_breast_cancer(return_X_y=True)
    return lambda: BilinearClassifier().fit(x, y)


def sweep() -> Work:
    from bench.sweep.deepseek import write_model

    folder = Path(tempfile.mkdtemp(prefix="two-versions-"))
    write_model(folder / "model", 4, 256, 0)
    command = [sys.executable, "-m", "bilens", "sweep", str(folder / "model"), "--do", "fit"]
    command += ["--out", str(folder / "out"), "--workers", "2"]
    return lambda: subprocess.run(command, check=True, capture_output=True)  # noqa: S603


WORKLOADS: dict[str, Callable[[], Work]] = {
    "eigenpairs, random": lambda: eigenpairs("random"),
    "eigenpairs, planted": lambda: eigenpairs("planted"),
    "radii": radii,
    "attributions": attributions,
    "interactions": interactions,
    "image training": image_training,
    "language training": language_training,
    "autoencoder training": autoencoder_training,
    "quadratic approximation": quadratic_approximation,
    "audit of a gated MLP": language_model_audit,
    "audit of a model file": file_audit,
    "audit of a perceptron": module_audit,
    "audit of a classifier": classifier_audit,
    "table": table_fit,
    "sweep": sweep,
}


def used() -> float:
    """Return the seconds of processors that this process and its children took."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run_once(checkout: Path, name: str) -> float:
    """Return the seconds of one workload with the source of a checkout."""
    paths = os.pathsep.join([str(checkout / "src"), str(checkout)])  # with its own `bench`
    command = [sys.executable, __file__, "--workload", name]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - this file
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"{name} with {checkout}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="before, after")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--workload", help="run this one here, and print its seconds")
    chosen = parser.parse_args()
    if chosen.workload:
        work, began = WORKLOADS[chosen.workload](), used()
        start = time.perf_counter()
        work()
        print(time.perf_counter() - start, used() - began)
        return
    print("| workload | before, s | after, s | after over before |\n|---|---|---|---|")
    for name in (name for name in WORKLOADS if chosen.only in name):
        took: dict[Path, list[float]] = {one.resolve(): [] for one in chosen.checkouts}
        if name == "audit of a model file" and "BILENS_BENCH_MODEL" not in os.environ:
            print(f"| {name} | not run: BILENS_BENCH_MODEL names no file | | |", flush=True)
            continue
        for number in range(chosen.rounds):
            for checkout in [*took][:: 1 if number % 2 else -1]:
                took[checkout].append(run_once(checkout, name))
        before, after = map(statistics.median, took.values())
        print(f"| {name} | {before:.3g} | {after:.3g} | {after / before:.3f} |", flush=True)


if __name__ == "__main__":
    main()
