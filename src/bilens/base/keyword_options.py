"""Functions that take a frozen record of options, or the fields of the record as keywords.

What an option means, its type and its default stand once, at the field of the record: Python reads
them in the signature and in the help of the function, and the command line spells them out.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from bilens.base import Progress, silent
from bilens.base.errors import UnknownOptionError, UsageError

A = TypeVar("A", contravariant=True)  # what stands in front of the options
B = TypeVar("B", contravariant=True)
C = TypeVar("C", contravariant=True)
Options = TypeVar("Options", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
Default = TypeVar("Default")
P = ParamSpec("P")  # the fields of the record
WIDTH = 96  # of a line of help


def described(default: Default, help: str) -> Default:
    """Return a field of a record of options that Python alone can give."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """How a result says that it was made, and who is told how far it is."""

    command: str | None = described(
        None, "How to reproduce this, for the report; None takes the process's command line."
    )
    progress: Progress = described(silent, "Called with (stage, done, total).")


class OneAndOptions(Protocol[A, Options, P, Answer]):
    """A function of one argument and of options."""

    @overload
    def __call__(self, one: A, options: Options, /, **changes: Any) -> Answer: ...
    @overload
    def __call__(self, one: A, /, *args: P.args, **options: P.kwargs) -> Answer: ...


class TwoAndOptions(Protocol[A, B, Options, P, Answer]):
    """A function of two arguments and of options."""

    @overload
    def __call__(self, one: A, two: B, options: Options, /, **changes: Any) -> Answer: ...
    @overload
    def __call__(self, one: A, two: B, /, *args: P.args, **options: P.kwargs) -> Answer: ...


class ThreeAndOptions(Protocol[A, B, C, Options, P, Answer]):
    """A function of three arguments and of options."""

    @overload
    def __call__(self, one: A, two: B, three: C, options: Options, /, **more: Any) -> Answer: ...
    @overload
    def __call__(self, one: A, two: B, three: C, /, *a: P.args, **k: P.kwargs) -> Answer: ...


class takes_options(Generic[Options, P]):  # noqa: N801
    """Let the last parameter of a function be a record, or the fields of it as keywords.

    The function itself always receives the record. Keywords beside a record are changes of it. A
    function that also takes `**changes` is given those keywords that are fields `changes_of`.
    """

    @overload
    def __init__(self, record: Callable[P, Options]) -> None: ...
    @overload
    def __init__(
        self: takes_options[Options, ...], record: Callable[..., Options], changes_of: Any
    ) -> None: ...
    def __init__(self, record: Any, changes_of: Any = None) -> None:
        self.record, self.changes_of = record, changes_of

    @overload
    def __call__(
        self, function: Callable[[A, Options], Answer]
    ) -> OneAndOptions[A, Options, P, Answer]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, Options], Answer]
    ) -> TwoAndOptions[A, B, Options, P, Answer]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, C, Options], Answer]
    ) -> ThreeAndOptions[A, B, C, Options, P, Answer]: ...
    def __call__(self, function: Callable[..., Answer]) -> Any:
        record, own = self.record, [*own_first(self.record)]
        taken = [*inspect.signature(function).parameters.values()]
        more = [each for each in taken if each.kind is each.VAR_KEYWORD]
        *leading, last = [each for each in taken if each not in more]
        options = [*inspect.signature(record).parameters.values()]
        options.sort(key=lambda each: (each.kind, own.index(each.name)))
        whole = f"{record.__name__} | None"
        given = last.replace(kind=last.KEYWORD_ONLY, default=None, annotation=whole)
        signature = inspect.Signature([*leading, *options, given, *more])
        changed = [] if self.changes_of is None else [x.name for x in fields(self.changes_of)]
        known = [*(each.name for each in (*leading, *options, given)), *changed]

        @wraps(function)
        def call(*args: Any, **keywords: Any) -> Answer:
            for name in (one for one in keywords if one not in known):
                named = ", ".join(dict.fromkeys([*get_close_matches(name, known), *known]))
                raise UnknownOptionError(f"there is no option {name!r}: use one of {named}.")
            places = [at for at, value in enumerate(args) if isinstance(value, record)]
            given = [*(args[at] for at in places), keywords.pop(last.name, None)]
            records = [one for one in given if one is not None]
            if len(records) > 1 or not all(isinstance(one, record) for one in records):
                kinds = ", ".join(type(one).__name__ for one in records)
                raise UsageError(
                    f"the options are {kinds}; expected one {record.__name__}, or its fields as "
                    "keywords, which change those of the record."
                )
            base = records[0] if records else None
            rest = [value for at, value in enumerate(args) if at not in places]
            bound = signature.bind(*rest, **keywords).arguments
            changes = bound.pop(more[0].name, {}) if more else {}
            first = [bound.pop(each.name) for each in leading]
            made = record(**bound) if base is None else replace(base, **bound)
            return function(*first, made, **changes)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__doc__ = with_options(inspect.getdoc(function) or "", record)
        return call


def own_first(record: type) -> Iterator[str]:
    """Yield the fields of a record in the order of a signature: its own, then inherited ones."""
    kinds = [kind for kind in record.__mro__ if kind is not object]
    yield from dict.fromkeys(name for kind in kinds for name in inspect.get_annotations(kind))


def help_of(each: Field[Any]) -> str:
    """Return the meaning of a field of a record of options."""
    _, how = each.metadata.get("option", ((), each.metadata))
    return str(how.get("help", ""))


def with_options(text: str, record: Any) -> str:
    """Return the docstring of a function, with the fields of a record behind its arguments."""
    known = {each.name: help_of(each) for each in fields(record)}
    before, arguments, behind = text.partition("Args:\n")
    own, gap, behind = behind.partition("\n\n")
    how = {"width": WIDTH, "initial_indent": "    ", "subsequent_indent": " " * 8}
    named = [name for name in own_first(record) if known.get(name)]
    lines = [textwrap.fill(f"{name}: {known[name]}", **how) for name in named]  # type: ignore[arg-type]
    return before + arguments + "\n".join([own, *lines]) + gap + behind
