# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .attack import Attack as Attack
from .audit import Audit as Audit, ReadAs as ReadAs
from .base import (
    LARGEST_WHOLE as LARGEST_WHOLE,
    LOST as LOST,
    UNPRINTABLE as UNPRINTABLE,
    Count as Count,
    Document as Document,
    Numbers as Numbers,
    Record as Record,
    displayable as displayable,
    json_text as json_text,
    kind_of as kind_of,
    to_json as to_json,
)
from .bilinear_conversion import Conversion as Conversion
from .class_readings import (
    TruncationPoint as TruncationPoint,
)
from .column_readings import TableColumn as TableColumn
from .common import (
    Finding as Finding,
    Identity as Identity,
    JudgedCondition as JudgedCondition,
    NullInterval as NullInterval,
    Source as Source,
)
from .decomposition import (
    ApproximationQuality as ApproximationQuality,
    FormSpectrum as FormSpectrum,
)
from .guarantees import Certificate as Certificate
from .history import (
    EARLIER_KINDS as EARLIER_KINDS,
    UNKNOWN as UNKNOWN,
    Action as Action,
    Change as Change,
    Direction as Direction,
    Entry as Entry,
    FileDifference as FileDifference,
    Measured as Measured,
    ModelState as ModelState,
    PastAudit as PastAudit,
    People as People,
)
from .layer_readings import (
    Difference as Difference,
    FitQuality as FitQuality,
    LayerDifference as LayerDifference,
    LayerReading as LayerReading,
)
from .mlp_trace import (
    ActiveContext as ActiveContext,
    TokenEnds as TokenEnds,
    Trace as Trace,
)
from .performance import Performance as Performance
from .tensor_changes import WholeDifference as WholeDifference
from .view import (
    records_in as records_in,
    schemas_of as schemas_of,
    value_at as value_at,
    views as views,
)
