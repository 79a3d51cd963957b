"""Whole jobs, from a model or a data set to a report: what commands and notebooks call.

The names that other packages may use stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
