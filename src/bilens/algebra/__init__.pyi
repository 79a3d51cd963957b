# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .concentration import roughness as roughness
from .eigen.decomposition import select as select
from .eigenvector_matching import Group as Group
from .gaussian import mean_and_covariance as mean_and_covariance, symmetric_root as symmetric_root
from .gram.inner_products import squared_norms as squared_norms
from .map_comparison import map_difference as map_difference
from .random_rotations import random_frame as random_frame, solved_width as solved_width
