"""bilens reads what an MLP computes straight from its weights.

The public names stand in `__init__.pyi`. They are imported when they are first used, so that
`import bilens` stays light and the command line can print its help without torch.
"""

import lazy_loader

from bilens.version import VERSION

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [name for name in _names if name != "sklearn"]  # a star import must not need an extra
__version__ = VERSION
