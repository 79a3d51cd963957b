"""The exceptions: their exit codes and the built-in kinds they can be caught as."""

import inspect

import pytest

from bilens.base import errors
from bilens.base.errors import BilensError, BilensWarning, MissingExtraError, TruncationWarning

# 2 usage, 3 bad or unsafe file, 4 numerical failure, 5 resource limit, 130 interrupted.
EXIT_CODES = {
    "BilensError": 2,
    "CheckpointError": 3,
    "NoLayersError": 3,
    "DataError": 3,
    "DiskError": 5,
    "FileError": 3,
    "InterruptedRunError": 130,
    "MemoryLimitError": 5,
    "MissingExtraError": 2,
    "NonFiniteError": 4,
    "NotQuadraticError": 3,
    "NumericalError": 4,
    "OutputExistsError": 2,
    "ShapeError": 2,
    "UnknownOptionError": 2,
    "UsageError": 2,
}
BUILT_IN = {
    "DiskError": OSError,
    "MemoryLimitError": MemoryError,
    "NonFiniteError": ValueError,
    "NumericalError": ArithmeticError,
    "UsageError": ValueError,
}


def test_every_error_has_the_exit_code_that_the_command_line_promises() -> None:
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    found = {n: c.exit_code for n, c in classes.items() if issubclass(c, BilensError)}
    assert found == EXIT_CODES


@pytest.mark.parametrize(("name", "kind"), BUILT_IN.items())
def test_an_error_is_caught_as_its_built_in_kind(name: str, kind: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), kind)


def test_a_missing_package_says_what_to_type() -> None:
    error = MissingExtraError("torchvision", "images", "downloading MNIST")
    assert str(error) == (
        "downloading MNIST needs the package 'torchvision', which is not installed: "
        "run `pip install 'bilens[images]'`."
    )


def test_warnings_of_ours_can_be_told_from_others() -> None:
    assert issubclass(TruncationWarning, BilensWarning)
    assert issubclass(BilensWarning, UserWarning)
