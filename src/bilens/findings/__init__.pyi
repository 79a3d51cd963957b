# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .attack import TOLERANCE as TOLERANCE
from .difference import (
    OTHER_STREAM as OTHER_STREAM,
    compare_layers as compare_layers,
    other_kind as other_kind,
    weight_changes as weight_changes,
)
from .exact_classifier import class_centred as class_centred
from .explanation import TYPICAL as TYPICAL, WRONG as WRONG, choose_examples as choose_examples
from .guarantees import finite as finite
from .image_warnings import classifier_map as classifier_map, layer_map as layer_map
from .layer_reading import FittedLayer as FittedLayer, fit_layer as fit_layer
from .overfitting import readings as readings
from .reference import OFFSET as OFFSET, REFERENCE as REFERENCE
from .residual_stream import CLOSE as CLOSE
from .rules.decision import ACCEPTED_BY as ACCEPTED_BY
from .rules.judgements import (
    JUDGED as JUDGED,
    RULE as RULE,
    WHOLE as WHOLE,
    AuditedModel as AuditedModel,
    judgements as judgements,
    labels as labels,
    words_on as words_on,
)
from .rules.progress import changes as changes, outcome as outcome
from .rules.registry import rules_asked_for as rules_asked_for
from .spectrum_summaries import (
    LEVEL as LEVEL,
    MINIMUM_SAMPLES as MINIMUM_SAMPLES,
    null_interval as null_interval,
)
from .subject import (
    IMAGES_AT_ONCE as IMAGES_AT_ONCE,
    drawn as drawn,
    gauge_free as gauge_free,
    image_shape as image_shape,
    in_float64 as in_float64,
    predictions as predictions,
    share_of as share_of,
)
from .triggers import evidence_of as evidence_of, obstacle as obstacle, suspect as suspect
from .watching import watch_of as watch_of
