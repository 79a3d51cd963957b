"""Records of a decomposition, of its plan and of fits, with a name that a hostile file has."""

from bilens.records.common import IN_MEMORY, UNKNOWN, NullInterval
from bilens.records.decomposition import (
    ApproximationQuality,
    DegreeScores,
    EigenPair,
    FormSpectrum,
    LayerDecomposition,
    LayerFit,
    LayerPlan,
    QuadraticFits,
    Score,
)

HOSTILE = "[red]\x1b[2Ja\x07\u202e"
QUALITY = ApproximationQuality("relu", "closed form", "a normal input", 0.5, 0.01, 0.2, 0.9)
PAIRS = (EigenPair(2.0, 0.8, 1e-9, True, 2), EigenPair(-1.0, 0.2, 1e-9, False, 1))
LAYER = LayerDecomposition(
    layer=HOSTILE,
    basis="input",
    output_kind="outputs",
    reading="raw",
    which="magnitude",
    spectrum="whole",
    method="dense",
    precision="float64",
    d_in=4,
    d_hidden=3,
    d_out=2,
    null_samples=100,
    outputs=(
        FormSpectrum(
            HOSTILE, PAIRS, 1.0, 1.8, NullInterval(2, 1, 3), 2.2, 1, 0, 0, True, "norm", "ok"
        ),
        FormSpectrum("bad", (), None, None, None, None, None, 0, 0, False, "", "did not converge"),
    ),
    approximation=QUALITY,
    about_input="x after a norm",
)
PLAN = LayerPlan(
    HOSTILE,
    "input",
    "outputs",
    "raw",
    4,
    3,
    2,
    5,
    "top",
    7,
    "lanczos",
    "float64",
    2,
    10,
    99,
    "why",
    None,
)
SCORES = [Score(0.25, 0.01), Score(None, None), Score(0.5, 0.02)]
LADDER = tuple(
    DegreeScores(fit, 9, *SCORES, (0.5, 0.4, None), (None,)) for fit in ("normal", "ceiling")
)
FITS = QuadraticFits(
    source=IN_MEMORY,
    num_rows=9,
    fits=(
        LayerFit(
            *(HOSTILE, "relu", False, 4, 3, 2, False, "closed form", "9 rows"),
            *("normal", LADDER, ("neurons: 9 rows",), 0.9, False),
        ),
    ),
    reproduce=UNKNOWN.reproduce,
)
