"""Quadratic maps and their decompositions: tensors in, frozen records out.

The names that other packages may use stand in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
