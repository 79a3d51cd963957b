"""What stands in the place of a function that fails, and how what fails has to say so."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """A function that takes anything and raises one error."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def refusal(error: type[Exception], words: str, call: Callable[..., Any], *given: Any) -> str:
    """The one sentence by which a call refuses what it is given."""
    with pytest.raises(error, match=words) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)
