# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .alignment import Alignment as Alignment, align_models as align_models
from .comparison import layer_changes as layer_changes, whole_difference as whole_difference
from .given_data import interface_of as interface_of
from .history import now as now
from .layer_decomposition import (
    WHOLE_WIDTH as WHOLE_WIDTH,
    Decomposition as Decomposition,
    LayerJob as LayerJob,
    prepare as prepare,
    run_job as run_job,
)
from .layer_reading import LayerOutputs as LayerOutputs, Request as Request, layer_map as layer_map
from .provenance import (
    describe_run as describe_run,
    reading_of as reading_of,
    tensor_files as tensor_files,
)
from .recorded_command import (
    Refused as Refused,
    RefusedError as RefusedError,
    RepeatedCommand as RepeatedCommand,
    answers_in_file as answers_in_file,
    check_place as check_place,
    options_in as options_in,
    recorded_base as recorded_base,
    repeat_command as repeat_command,
)
from .register_state import (
    AuditedFiles as AuditedFiles,
    RegisterState as RegisterState,
    compare_with_audit as compare_with_audit,
)
from .subject import is_of_columns as is_of_columns, is_one_exact_layer as is_one_exact_layer
from .trace_latents import (
    LEAST_ACTIVE as LEAST_ACTIVE,
    active as active,
    latent_findings as latent_findings,
)
from .trace_records import shorts as shorts, token_ends as token_ends
from .train import (
    LanguageTraining as LanguageTraining,
    SAETraining as SAETraining,
    read_model as read_model,
    train_language as train_language,
    train_sae as train_sae,
)
