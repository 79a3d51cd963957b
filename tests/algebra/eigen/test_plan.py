"""Which solver runs, in which portions: the cheapest that fits, within its memory."""

import json
import subprocess
import sys
from typing import get_args

import pytest
import torch

from bilens.algebra.eigen.eigendecompose import eigendecompose_all, plan_eigendecomposition
from bilens.algebra.eigen.lanczos_solver import BATCH
from bilens.algebra.eigen.plan import SOLVERS, make_plan
from bilens.algebra.eigen.solver import Precision, Sizes, Solver
from bilens.base.errors import MemoryLimitError, TruncationWarning, UsageError
from builders import randn, random_map

GIB = 2**30
NARROW = Sizes(num=4, d_hidden=4, d_in=512, k=2, factor_bytes=8)
SQUARE = Sizes(num=64, d_hidden=256, d_in=64, k=2, factor_bytes=8)
WIDE = Sizes(num=1000, d_hidden=4096, d_in=1024, k=2, factor_bytes=4)
WHOLE = Sizes(num=64, d_hidden=256, d_in=64, k=64, factor_bytes=8)
SIZES = {"narrow": NARROW, "square": SQUARE, "wide": WIDE, "whole": WHOLE}


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("name", SIZES)
def test_the_cheapest_solver_runs_where_all_fit(name: str, precision: Precision) -> None:
    plan = make_plan(SIZES[name], "auto", precision, 64 * GIB)
    works = {solver: cost.work for solver, cost in plan.costs.items()}
    if 2 * SIZES[name].d_hidden >= SIZES[name].d_in:
        del works["factored"]  # it would solve a matrix that is no smaller
    if 2 * SIZES[name].k >= SIZES[name].d_in:
        del works["lanczos"]  # most of the spectrum is asked for
    assert plan.method == min(works, key=lambda solver: works[solver])
    assert plan.reason == "the fastest, by a model of measured costs"
    assert plan.limit_bytes == 64 * GIB
    assert plan.precision == precision


@pytest.mark.parametrize(
    ("name", "method"), [("narrow", "factored"), ("wide", "lanczos"), ("whole", "dense")]
)
def test_each_solver_has_forms_that_are_its_own(name: str, method: str) -> None:
    assert make_plan(SIZES[name], "auto", "float64", 64 * GIB).method == method


@pytest.mark.parametrize("method", get_args(Solver))
def test_the_method_that_is_asked_for_is_taken(method: Solver) -> None:
    plan = make_plan(SQUARE, method, "float64", 64 * GIB)
    assert (plan.method, plan.reason) == (method, "it was asked for")
    assert (plan.peak_bytes, plan.batch) == (
        plan.costs[method].peak_bytes,
        plan.costs[method].batch,
    )


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("method", ["auto", *get_args(Solver)])
@pytest.mark.parametrize("limit", [2**20, 2**26, 2**29, GIB, 8 * GIB])
def test_no_plan_needs_more_than_the_limit(name: str, method: str, limit: int) -> None:
    try:
        plan = make_plan(SIZES[name], method, "float64", limit)
    except MemoryLimitError:
        costs = {key: one.cost(SIZES[name], "float64", limit) for key, one in SOLVERS.items()}
        chosen = costs.values() if method == "auto" else [costs[method]]
        assert min(cost.peak_bytes for cost in chosen) > limit or method == "auto"
    else:
        assert plan.peak_bytes <= limit
        assert 1 <= plan.batch <= max(BATCH, 1)


def test_a_plan_without_a_fallback_counts_none() -> None:
    """All outputs of a layer of a language model, in portions: no dense array fits beside them."""
    sizes = Sizes(num=4096, d_hidden=14336, d_in=4096, k=2, factor_bytes=4)
    plan = make_plan(sizes, "auto", "float32", 3 * GIB)
    assert (plan.method, plan.fallback) == ("lanczos", None)
    assert plan.portion < 4096
    assert plan.peak_bytes == plan.costs["lanczos"].peak_bytes <= 3 * GIB
    with pytest.raises(MemoryLimitError, match="verify=True"):
        make_plan(sizes, "auto", "float32", 3 * GIB, verify=True)


def test_of_those_that_fit_the_cheapest_runs_and_the_reason_says_so() -> None:
    """3.6 GiB would hold a dense matrix of width 10,000; 2 GiB hold Lanczos' bases alone."""
    sizes = Sizes(num=4, d_hidden=64, d_in=10_000, k=1, factor_bytes=8)
    plan = make_plan(sizes, "auto", "float64", 2 * GIB)
    assert plan.costs["dense"].peak_bytes > 2 * GIB
    assert plan.method != "dense"
    assert plan.reason.startswith("the fastest of those within the memory limit")


def test_less_memory_means_smaller_batches_until_nothing_fits() -> None:
    limits = [8 * GIB, 2 * GIB, GIB, GIB * 3 // 4, GIB * 2 // 3]
    batches = [make_plan(WIDE, "lanczos", "float64", limit).batch for limit in limits]
    assert batches == sorted(batches, reverse=True)
    assert batches[0] == BATCH > batches[-1] >= 1
    with pytest.raises(MemoryLimitError, match="take another method"):
        make_plan(WIDE, "lanczos", "float64", 2**27)
    with pytest.raises(MemoryLimitError, match=r"method \w+\), the limit is 1.00 MiB"):
        make_plan(WIDE, "auto", "float64", "1MiB")


def test_a_plan_says_what_will_be_done_without_doing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    f = random_map(0, 30, 40, 200)
    for method in ("auto", *get_args(Solver)):
        plan = plan_eigendecomposition(f, k=3, method=method, memory_limit="2GiB")
        done = eigendecompose_all(f, k=3, method=method, memory_limit="2GiB")
        assert plan.method == done.method
    monkeypatch.setattr(torch.linalg, "eigh", None)
    few = plan_eigendecomposition(f, randn(5, 30), k=None, precision="float32")
    assert few.precision == "float32"


def test_a_plan_refuses_what_the_decomposition_refuses() -> None:
    f = random_map(0, 30, 40, 200)
    for bad in ({"method": "arpack"}, {"precision": "half"}, {"k": 0}, {"memory_limit": "much"}):
        with pytest.raises(UsageError):
            plan_eigendecomposition(f, **bad)
    with pytest.raises(MemoryLimitError):
        plan_eigendecomposition(f, memory_limit=1000, k=2)
    with pytest.warns(TruncationWarning):
        plan_eigendecomposition(f, k=201)


MEASURE = """
import json, pathlib, sys, torch
torch.set_num_threads(1)
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose_all, plan_eigendecomposition
from bilens.algebra.quadratic_map import QuadraticMap
(num, hidden, d_in), arguments = json.loads(sys.argv[1])

def resident(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

def random_map(num, hidden, d_in):
    draw = lambda *shape: torch.randn(shape, dtype=torch.float32)
    return QuadraticMap(BilinearTensor(draw(num, hidden), draw(hidden, d_in), draw(hidden, d_in)))

def map_without_gaps(num, d_in):  # evenly spaced eigenvalues: the bases grow to their largest
    turn = torch.linalg.qr(torch.randn(d_in, d_in)).Q.contiguous()
    return QuadraticMap(BilinearTensor(torch.linspace(-1, 1, d_in).repeat(num, 1), turn, turn))

eigendecompose_all(random_map(2, 8, 16), method=arguments["method"])  # the libraries are loaded
f = random_map(num, hidden, d_in) if hidden > 0 else map_without_gaps(num, d_in)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before = resident("VmRSS")
eigendecompose_all(f, **arguments)
plan = plan_eigendecomposition(f, **arguments)
print(json.dumps([resident("VmHWM") - before, plan.peak_bytes]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("sizes", "arguments"),
    [
        ((32, 2048, 1024), {"method": "lanczos", "precision": "float32", "k": 2}),
        pytest.param(
            (32, 2048, 1024),
            {"method": "lanczos", "precision": "float64", "k": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (64, 512, 1024),
            {"method": "lanczos", "k": 2, "memory_limit": "500MiB"},
            marks=pytest.mark.slow,
        ),
        pytest.param((40, 0, 512), {"method": "lanczos", "k": 2}, marks=pytest.mark.slow),
        pytest.param(
            (8, 256, 1024),
            {"method": "lanczos", "precision": "float32", "k": 128},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (8, 512, 1024), {"method": "lanczos", "k": 2, "verify": True}, marks=pytest.mark.slow
        ),
        pytest.param(
            (600, 20_000, 16),
            {"method": "dense", "k": 1, "memory_limit": "200MiB"},
            marks=pytest.mark.slow,
        ),
        pytest.param((1, 1024, 1024), {"method": "dense", "k": 2}, marks=pytest.mark.slow),
        pytest.param((1, 4096, 512), {"method": "dense", "k": 2}, marks=pytest.mark.slow),
        ((4, 200, 2048), {"method": "factored", "k": 2}),
        # Most of it is the result.
        pytest.param((2000, 4, 1500), {"method": "factored", "k": 3}, marks=pytest.mark.slow),
        # Many outputs, and no (out, out) array.
        pytest.param((8000, 4, 20), {"method": "dense", "k": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_more_memory_is_taken_than_planned(
    sizes: tuple[int, int, int], arguments: dict[str, object]
) -> None:
    """The growth of the resident memory of a fresh process, beside that of the map."""
    command = [sys.executable, "-c", MEASURE, json.dumps([sizes, arguments])]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    grown, planned = json.loads(output)
    assert 0 < grown <= planned, f"{grown / 2**20:.0f} MiB, {planned / 2**20:.0f} were planned"
