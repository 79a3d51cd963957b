"""What stands in the place of a function that fails."""

from collections.abc import Callable
from typing import NoReturn


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """A function that takes anything and raises one error."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail
