"""The contract that every eigensolver keeps: what it needs, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, stack
from bilens.algebra.eigen.forms import BalancedForms, Problem
from bilens.algebra.eigen.ranking import Which
from bilens.base.memory import MemoryEstimate

Method = Literal["auto", "dense", "lanczos", "factored"]
Solver = Literal["dense", "lanczos", "factored"]
Precision = Literal["float32", "float64"]
OneForm = Callable[[int, int, Which], EigenDecomposition]  # of form, k, which

OBJECT_BYTES = 10_000  # the tensors of one record beside their entries
CONVERSION_BYTES = 2**27  # blocks of the factors in float64, and the products with them, at most
# Operations are those of a large float64 product; 1e8 take a millisecond on two cores.
EIGH = 20.0  # · n³, a dense eigensolver with vectors


@dataclass(frozen=True)
class Sizes:
    """What the cost of a decomposition depends on."""

    num: int
    d_hidden: int
    d_in: int
    k: int
    factor_bytes: int  # of an entry of the factors as they came

    @property
    def result_bytes(self) -> int:
        """The memory of what comes out: in parts and, while it is put together, as a whole."""
        return self.num * (8 * 2 * (self.k + 1) * (self.d_in + 8) + OBJECT_BYTES)

    @property
    def problem_bytes(self) -> int:
        """The memory of one form as it goes in: weights, seven times over, and linear term."""
        return 8 * (self.d_in + 7 * self.d_hidden)

    @property
    def conversion_bytes(self) -> int:
        """The memory of a block of the factors in float64, and the products with it."""
        return min(CONVERSION_BYTES, 48 * self.d_hidden * (self.d_in + max(self.k, 8)))

    def portion(self, room: int) -> int:
        """Return how many forms may be taken in at a time."""
        return int(max(min(room // self.problem_bytes, self.num), 1))


@dataclass(frozen=True)
class Cost:
    """What one solver would need."""

    work: float  # multiplications and additions in float64, or what takes as long
    memory: MemoryEstimate  # beside the map: in any case, and for each form taken in
    batch: int  # forms worked on at a time
    portion: int  # forms taken in at a time, a multiple of which goes through all

    @property
    def peak_bytes(self) -> int:
        """The memory beside the map, at most."""
        return self.memory.fixed + self.portion * self.memory.each


@dataclass(frozen=True, eq=False)
class Task:
    """What a solver is to do for all forms of a problem."""

    problem: Problem
    forms: BalancedForms
    k: int
    which: Which
    precision: Precision
    batch: int
    seed: int


class EigenSolver(Protocol):
    """One way to find eigenpairs; `plan.SOLVERS` lists them."""

    name: ClassVar[Solver]

    def suits(self, sizes: Sizes, /) -> bool:
        """Tell whether there may be something to gain."""
        ...

    def cost(self, sizes: Sizes, precision: Precision, allowed: int, /) -> Cost:
        """Return what it would need where `allowed` bytes may be taken."""
        ...

    def solve(self, task: Task, rows: Tensor) -> Iterator[tuple[Tensor, EigenDecomposition]]:
        """Yield positions among all forms and their decompositions, until `rows` are done."""
        ...


class WholeSpectrumSolver(EigenSolver, Protocol):
    """A solver that finds all eigenvalues of one form after the other."""

    def workspace(self, sizes: Sizes) -> int:
        """Return the bytes that one form takes beside what goes in and comes out."""
        ...

    def prepared(self, problem: Problem, forms: BalancedForms) -> OneForm:
        """Return what decomposes one form, after the work that all share."""
        ...

    def solve(self, task: Task, rows: Tensor) -> Iterator[tuple[Tensor, EigenDecomposition]]:
        """Yield one decomposition after the other."""
        one = self.prepared(task.problem, task.forms)
        for index in rows.tolist():
            yield torch.tensor([index]), stack([one(index, task.k, task.which)])
