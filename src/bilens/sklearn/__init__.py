"""Estimators of scikit-learn whose fitted map can be read exactly."""

from importlib.util import find_spec

from bilens.base.errors import MissingExtraError

for package, module in (("scikit-learn", "sklearn"), ("pandas", "pandas")):
    if find_spec(module) is None:
        raise MissingExtraError(package, "sklearn", "bilens.sklearn")

from bilens.sklearn.estimators import (  # noqa: E402 - both need the packages
    BilinearClassifier,
    BilinearRegressor,
)

__all__ = ["BilinearClassifier", "BilinearRegressor"]


def __dir__() -> list[str]:
    return __all__
