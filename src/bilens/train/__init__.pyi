# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
from .activations import activations_of as activations_of
from .corpus import (
    CorpusDescription as CorpusDescription,
    CorpusOptions as CorpusOptions,
    text_of as text_of,
    tokenizer_of as tokenizer_of,
)
from .device import CPU as CPU, autocast as autocast, find_device as find_device
from .distillation import (
    distil as distil,
    kl_on as kl_on,
    swap_in_losses as swap_in_losses,
    token_table as token_table,
)
from .layer_fit import convert_layers as convert_layers, fit_site as fit_site
from .layer_inputs import Mixture as Mixture, Passes as Passes
from .loop import (
    Line as Line,
    TrainingRun as TrainingRun,
    TrainingTask as TrainingTask,
    check_training_memory as check_training_memory,
    learning_rate as learning_rate,
    train as train,
)
from .newton import CrossEntropy as CrossEntropy
from .processes import Processes as Processes
from .randomness import (
    INITIALISATION as INITIALISATION,
    ORDER as ORDER,
    STEP as STEP,
    ActivationNoise as ActivationNoise,
    NoisePool as NoisePool,
    drawn_rows as drawn_rows,
    seeded_initialisation as seeded_initialisation,
    stream as stream,
)
from .recipes import (
    ConversionRecipe as ConversionRecipe,
    ImageRecipe as ImageRecipe,
    LanguageRecipe as LanguageRecipe,
    Optimizer as Optimizer,
    SAERecipe as SAERecipe,
    default_recipe as default_recipe,
)
from .run_folder import (
    RUN_NAME as RUN_NAME,
    TEST_NAME as TEST_NAME,
    lock_run as lock_run,
    run_in_folder as run_in_folder,
)
from .table_choice import fit_table as fit_table
from .table_fit import TableRecipe as TableRecipe
from .tasks.image import (
    ImageTask as ImageTask,
    Run as Run,
    accuracy as accuracy,
    average as average,
    new_classifier as new_classifier,
    save_classifier as save_classifier,
    train_classifier as train_classifier,
    turned as turned,
)
from .tasks.language import start_run as start_run, train_step as train_step
