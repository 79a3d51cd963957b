"""Mutants of `algebra/` and `certify/`: drawn by a seed, and how their code is put in place."""

from __future__ import annotations

import gc
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).parent.parent
SOURCES = ("src/bilens/algebra", "src/bilens/certify")


def negated(node: cst.If) -> Iterator[cst.If]:
    """`if a` becomes `if not a`."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    space = cst.SimpleWhitespace(" ")
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test), whitespace_before_test=space)


def empty(node: cst.Return) -> Iterator[cst.Return]:
    """`return a` becomes `return None`."""
    if node.value is not None:
        space = cst.SimpleWhitespace(" ")
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=space)


OPERATORS: list[tuple[type, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *mutation_operators,
    (cst.If, negated),
    (cst.Return, empty),
]


class Mutants(MutationVisitor):
    """mutmut's mutants, also in decorated functions; no wording of messages: text with a space."""

    def __init__(self) -> None:
        super().__init__(OPERATORS, IgnoredCode(set(), set(), set()))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleString):
            return " " in node.value
        if isinstance(node, cst.FunctionDef):
            return False
        return bool(super()._skip_node_and_children(node))


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int
    last_line: int
    change: str  # the lines of the diff
    code: str

    @property
    def label(self) -> str:
        return f"{self.path}\n{self.change}"


def drawn(count: int, seed: int) -> tuple[int, list[Mutant]]:
    """Return how many mutants there are, and a sample without those that change no text."""
    made: list[tuple[Path, MetadataWrapper, Mutation]] = []
    for path in sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        wrapper, visitor = MetadataWrapper(cst.parse_module(path.read_text())), Mutants()
        wrapper.visit(visitor)
        made += [(path, wrapper, mutation) for mutation in visitor.mutations]
    sample = random.Random(seed).sample(made, count)  # noqa: S311
    return len(made), [found for chosen in sample if (found := mutant(*chosen)).change]


def mutant(path: Path, wrapper: MetadataWrapper, mutation: Mutation) -> Mutant:
    replaced = wrapper.module.deep_replace(mutation.original_node, mutation.mutated_node)
    assert isinstance(replaced, cst.Module)
    before, after = wrapper.module.code, replaced.code
    lines = unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    change = "\n".join(line for line in lines if line[:3] not in ("---", "+++", "@@ "))
    where = wrapper.resolve(PositionProvider)[mutation.original_node]
    last = where.start.line if isinstance(mutation.original_node, cst.If) else where.end.line
    name = str(path.relative_to(ROOT))
    return Mutant(name, where.start.line, last, change, after)


class Changes:
    """The functions of the imported modules, and how to change their code where they are."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        gc.unfreeze()  # what the tests have frozen is not among the objects
        for found in gc.get_objects():
            if isinstance(found, FunctionType):
                code = found.__code__
                self.live[code.co_filename, code.co_qualname, code.co_firstlineno].append(found)

    def of(self, file: Path, changed: str) -> list[tuple[FunctionType, CodeType]] | None:
        """Return which functions get which code; None where more than functions changes."""
        before = compile(file.read_text(), str(file), "exec", dont_inherit=True)
        after = compile(changed, str(file), "exec", dont_inherit=True)
        found: list[tuple[FunctionType, CodeType]] = []
        return found if self._collect(before, after, found) else None

    def _collect(
        self, before: CodeType, after: CodeType, found: list[tuple[FunctionType, CodeType]]
    ) -> bool:
        if before == after:
            return True
        live = self.live[before.co_filename, before.co_qualname, before.co_firstlineno]
        found += [(function, after) for function in live]
        old, new = inner(before), inner(after)
        if live:
            return before.co_freevars == after.co_freevars and len(live) == 1
        same = skeleton(before) == skeleton(after)
        pairs = zip(old, new, strict=False)
        return same and len(old) == len(new) and all(self._collect(*pair, found) for pair in pairs)


def inner(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def skeleton(code: CodeType) -> CodeType:
    """Return the code without the code inside it, and without its lines."""
    consts = (const.co_name if isinstance(const, CodeType) else const for const in code.co_consts)
    return code.replace(co_consts=tuple(consts), co_linetable=b"")
