"""Recipes, which decide the weights of a training; their fields are options of the commands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from bilens.base.errors import UsageError
from bilens.base.option_rules import (
    MODEL_PANEL as MODEL,
    TRAINING_PANEL,
    Gate,
    MLPType,
    Precision,
    Schedule,
    Sign,
    TokenizerKind,
    check_count,
    is_written,
    option,
    refuse_idle,
)

if TYPE_CHECKING:
    import torch

    from bilens.data.augment import Augmentation


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of a training, and nothing else."""

    PANEL: ClassVar = TRAINING_PANEL  # of the help, where a field names no other

    def resolved(self, device: torch.device | None = None) -> Self:
        """Return the recipe with the precision that "auto" means on a device, or else the CPU."""
        if getattr(self, "precision", None) != "auto":
            return self
        changes: dict[str, Any] = {"precision": best_precision(device)}  # not every recipe has one
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        found = asdict(self).items()
        return {name: list(x) if isinstance(x, tuple) else x for name, x in found}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        found = content.items()
        return cls(**{name: tuple(x) if isinstance(x, list) else x for name, x in found})


def best_precision(device: torch.device | None = None) -> Precision:
    """Return bfloat16 where a device, or the CPU, multiplies it natively, else float32."""
    import torch

    if device is not None and device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"


def check_fields(
    recipe: Any,
    *,
    least: Mapping[str, int],
    positive: Sequence[str] = (),
    below_one: Sequence[str] = (),
) -> None:
    """Refuse a recipe with a field out of range; counts become int and numbers float.

    What a field may be is its type. `least` are the smallest counts other than 1, and those of
    counts that may be None.
    """
    kinds = get_type_hints(type(recipe))
    for name, kind in ((each.name, kinds[each.name]) for each in fields(recipe)):
        value, known = getattr(recipe, name), choices_of(kind)
        if kind is int or (name in least and value is not None):
            object.__setattr__(recipe, name, check_count(name, value, least.get(name, 1)))
        elif kind is float or (float in get_args(kind) and value is not None):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
            object.__setattr__(recipe, name, float(value))
        elif kind is bool and not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, got {value!r}.")
        elif known and value not in known:
            named = ", ".join(map(str, known))
            raise UsageError(f"{name}={value!r} is not known: use one of {named}.")
    for name in positive:
        if getattr(recipe, name) == 0:
            raise UsageError(f"{name} must be above 0.")
    for name in below_one:
        if getattr(recipe, name) >= 1:
            raise UsageError(f"{name} must be below 1, got {getattr(recipe, name)!r}.")


def choices_of(kind: Any) -> tuple[object, ...]:
    """Return the values that a field of this type is one of; nothing where it is no choice."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    parts = get_args(kind) if get_origin(kind) is Union else ()
    values = [value for part in parts for value in choices_of(part)]
    return (None, *values) if values else ()


@dataclass(frozen=True, kw_only=True)
class ImageRecipe(Recipe):
    """How to train an image classifier. The defaults are the paper's (App. C of 2410.08417)."""

    d_hidden: int = option(256, "Width of embedding and layers.", "--hidden", min=1, panel=MODEL)
    n_layers: int = option(1, "Number of bilinear layers.", "--layers", min=1, panel=MODEL)
    bias: bool = option(False, "Biases in both branches of a layer.", panel=MODEL)
    residual: bool = option(False, "Layers add their input.", panel=MODEL)
    gate: Gate | None = option(None, "Activation on the left branch.", panel=MODEL)
    epochs: int = option(100, "Passes; the learning rate falls by a cosine over them.", min=1)
    batch_size: int = option(2048, "Images a step; a smaller rest is dropped.", min=1)
    learning_rate: float = option(1e-3, "Of AdamW, at the start.")
    weight_decay: float = option(1.0, "Of AdamW, decoupled.")
    noise: float = option(0.5, "Std of Gaussian noise on each pixel, which is from 0 to 1.")
    model_noise: float = option(0.0, "Std of noise on embedding and layer outputs.")
    dropout: float = option(0.0, "Dropout of embedding and layer outputs.")
    augmentations: tuple[str, ...] = option(
        (),
        "May be repeated: translation:0.1, rotation:15, blur:0.5, salt-and-pepper:0.1, "
        "correlated-noise:0.3:4.",
        "--augment",
    )
    seed: int = option(0, "Seed of everything random.", min=0)
    # weights, gradients and updates are float32
    precision: Precision = option("auto", "auto: bfloat16 where the processor has it.")

    def __post_init__(self) -> None:
        check_fields(self, least={"seed": 0}, positive=("learning_rate",), below_one=("dropout",))
        self.parsed_augmentations()

    def parsed_augmentations(self) -> tuple[Augmentation, ...]:
        from bilens.data.augment import parse_augmentation

        return tuple(parse_augmentation(text) for text in self.augmentations)


@dataclass(frozen=True)
class LanguageRecipe(Recipe):
    """How to train a language model. The defaults suit a megabyte of simple stories."""

    d_model: int = option(192, "Residual stream.", "--model-width", min=2, panel=MODEL)
    d_hidden: int = option(512, "Products in each MLP.", "--hidden", min=1, panel=MODEL)
    n_layer: int = option(4, "Blocks.", "--layers", min=1, panel=MODEL)
    n_head: int = option(3, "Attention heads.", "--heads", min=1, panel=MODEL)
    n_ctx: int = option(256, "Tokens in sight.", "--context-length", min=2, panel=MODEL)
    gate: Gate | None = option(None, "Activation on the left branch.", panel=MODEL)
    mlp_type: MLPType = option(
        "gated", "ordinary: GELU, one branch, equally many weights.", "--mlp", panel=MODEL
    )
    polynomial: bool = option(
        False, "Bilinear attention, scales for norms: read with bl.polynomial_network.", panel=MODEL
    )
    pairs: int = option(
        1, "Query-key pairs of a polynomial model's heads, 1 or 2.", min=1, max=2, panel=MODEL
    )
    order_penalty: float | None = option(  # None is 0
        None,
        "Penalty on what takes three tokens; left out: 0.2, and 0 of the grammar.",
        min=0,
        panel=MODEL,
    )
    tied: bool = option(False, "Unembed with the embedding.", panel=MODEL)
    tokenizer: TokenizerKind = option("byte-bpe", "Kind of tokenizer.", panel=MODEL)
    # None, for "word" alone, is every word
    vocab_size: int | None = option(2048, "Tokens in it.", "--vocabulary", min=3, panel=MODEL)
    epochs: float = option(10.0, "Passes over the corpus.")
    steps: int | None = option(None, "Updates, in place of epochs.", min=1)
    batch_size: int = option(8, "Texts a step.", min=1)
    learning_rate: float = option(3e-3, "Of AdamW, at its top.")
    schedule: Schedule = option("linear", "How it falls to zero.")
    warmup: float = option(0.05, "Share of steps it rises in.")
    weight_decay: float = option(0.1, "Of AdamW, decoupled, on every weight.")
    clip: float = option(1.0, "Greatest norm of a gradient.")
    dropout: float = option(0.1, "On the embedding and what the blocks add.")
    evaluations: int = option(10, "How often the held-out loss is measured.", min=1)
    seed: int = option(0, "Seed of weights, order and dropout.", min=0)
    # weights, gradients and updates are float32
    precision: Precision = option("auto", "auto: bfloat16 where the processor has it.")

    def __post_init__(self) -> None:
        check_fields(
            self,
            least={"n_ctx": 2, "seed": 0, "steps": 1},
            positive=("epochs", "learning_rate", "clip"),
            below_one=("dropout", "warmup"),
        )
        if self.pairs > 2:
            raise UsageError(f"pairs is {self.pairs}; expected 1 or 2 pairs of query and key.")
        other = {"gate": self.gate, "tied": self.tied, "mlp_type": self.mlp_type == "ordinary"}
        if self.polynomial and (given := [name for name, value in other.items() if value]):
            raise UsageError(
                f"{given[0]}={getattr(self, given[0])!r} is not of a polynomial model, whose MLPs "
                "are bilinear and whose unembedding is its own: leave it out, or polynomial."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values; what only a polynomial model has, of one alone."""
        found = super().to_dict()
        alone = () if self.polynomial else ("polynomial", "pairs", "order_penalty")
        return {name: value for name, value in found.items() if name not in alone}


ORDER_PENALTY = 0.2  # of polynomial models of a text
TEXT_RECIPE = LanguageRecipe()
GRAMMAR_RECIPE = LanguageRecipe(  # one layer: what it computes can be read off one MLP
    d_model=64,
    d_hidden=128,
    n_layer=1,
    n_head=4,
    n_ctx=64,
    tokenizer="word",
    vocab_size=None,
    epochs=6.0,
    dropout=0.0,
    evaluations=20,
    learning_rate=5e-3,  # slower or in larger batches, some seeds learn the rule late or never
)


def default_recipe(corpus: str | tuple[str, ...], polynomial: bool = False) -> LanguageRecipe:
    """Return the recipe for a corpus: generated stories, or texts.

    Products multiply the noise of dropout: polynomial models have none. The penalty lets pairs of
    tokens explain more of such a model; the rule of the stories is of more than two tokens.
    """
    usual = GRAMMAR_RECIPE if corpus == "grammar" else TEXT_RECIPE
    penalty = 0.0 if corpus == "grammar" else ORDER_PENALTY
    return replace(usual, dropout=0.0, order_penalty=penalty) if polynomial else usual


@dataclass(frozen=True)
class SAERecipe(Recipe):
    """How to train sparse autoencoders. The defaults suit a layer of a few hundred neurons."""

    hooks: tuple[str, ...]  # such as "blocks.0.mlp_out"; one autoencoder each
    _: KW_ONLY
    num_latents: int | None = option(  # None is `expansion` times the layer's width
        None, "Size of the dictionary; left out: 4 × the width.", min=2, panel=""
    )
    expansion: int = 4
    k: int = option(30, "Latents that an input keeps.", min=1, panel="")
    sign: Sign = option(  # see `TopKSAE`
        "relu", "raw: negative activations too, as the paper's code does.", panel=""
    )
    tokens: int = option(
        2_000_000, "Activations to train on, rounded up to whole buffers.", min=1, panel=""
    )
    batch_size: int = option(1024, "Activations a step.", min=1)
    buffer_size: int = option(131_072, "Activations that are shuffled together.", min=1)
    learning_rate: float = option(5e-3, "Of Adam, at its top.")
    schedule: Schedule = option("cosine", "How it falls to zero.")
    warmup: float = option(0.05, "Share of steps it rises in.")
    auxiliary: float = option(1 / 32, "Weight of the loss of dead latents.")
    dead_after: int = option(131_072, "Tokens without being kept that make a latent dead.", min=1)
    seed: int = option(0, "Seed of weights and order.", min=0)

    def __post_init__(self) -> None:
        hooks: Any = self.hooks
        if isinstance(hooks, str) or not hooks:
            raise UsageError(f"hooks is {hooks!r}; expected one or more hook points in a tuple.")
        object.__setattr__(self, "hooks", tuple(hooks))
        if len(set(self.hooks)) < len(self.hooks):
            raise UsageError(f"hooks {', '.join(self.hooks)}: one of them is given twice.")
        least = {"seed": 0, "num_latents": 2}
        check_fields(self, least=least, positive=("learning_rate",), below_one=("warmup",))

    def latents_for(self, d_in: int) -> int:
        """Return the size of the dictionary for activations of a width."""
        return self.num_latents if self.num_latents is not None else self.expansion * d_in


ColumnScale = Literal["standard", "rank"]


@dataclass(frozen=True)
class TableRecipe(Recipe):
    """The convex problem of a table, and how it is solved."""

    # what is None is chosen: each candidate is fitted to four fifths of the rows and judged on the
    # last one, five times, and the best is taken if it is clearly better than the linear model
    alpha: float | None = option(
        None, "Penalty of all coefficients, above 0; left out: chosen in folds of the rows."
    )
    column_scale: ColumnScale | None = option(
        None, "How columns of numbers are read, as they come or by rank; left out: chosen."
    )
    # how large the quadratic part of a typical row is expected to be, as a variance beside that of
    # the linear part; 0 leaves logistic or ridge regression
    quadratic_scale: float | None = option(
        None,
        "Squares and pairs beside the linear part, a ratio of variances; 0: none; left out: "
        "chosen, 0 or 0.1.",
    )
    # None is all columns, as long as these are at most UNKNOWNS unknowns an output
    n_components: int | None = option(
        None, "Pairs of so many principal directions, not of all columns.", "--components", min=1
    )
    max_iter: int = 100  # of Newton's method
    tol: float = 1e-8  # of the gradient, in the metric of the curvature, for each unit of weight
    seed: int = option(0, "Seed of the splits.", min=0)

    def __post_init__(self) -> None:
        check_fields(self, least={"seed": 0, "n_components": 1})
        if self.alpha == 0:
            raise UsageError("alpha must be above 0: without a penalty there is no one solution.")
        facts = [] if self.quadratic_scale == 0 else ["with a quadratic_scale above 0"]
        refuse_idle("train table", vars(self), *facts)


Optimizer = Literal["adamw", "muon"]
Stage = Literal["fit", "training", "distillation"]


@dataclass(frozen=True)
class ConversionRecipe(Recipe):
    """How a language model is converted. The defaults suit SmolLM2-135M."""

    PANEL: ClassVar = f"{TRAINING_PANEL} (--to bilinear)"

    n_ctx: int = option(128, "Tokens of a text.", "--context-length", min=2)
    tokens: int = option(200_000, "Budget of all stages, in tokens or rows of --data.", min=1)
    minutes: float = option(0.0, "Budget of the distillation, in place of tokens.")
    layer_tokens: int = option(16_384, "Tokens or rows that each layer is fitted to.", min=1)
    layer_steps: int = option(80, "Steps of training for each layer, of Adam.", min=0)
    batch_size: int = 4  # texts of a step of distillation
    passes: int = option(
        1, "Passes of the distillation through its text, which --tokens counts once.", min=1
    )
    learning_rate: float = option(2e-4, "Of the distillation, at its top.")
    optimizer: Optimizer = option("adamw", "Of the distillation.")
    precision: Precision = "auto"  # of products in training; weights and updates are float32
    hidden_multiplier: int = option(1, "Products for each neuron.", min=1)
    linear_skip: bool = option(False, "A linear path past the products.")
    layers: tuple[int, ...] = option((), "Blocks to convert, as 0-9,12; left out: all.")
    keep: tuple[int, ...] = option((), "Blocks to leave as they are, as 28,29.")
    keep_worst: int = option(
        0, "As many blocks more, those that cost most where they alone are swapped in.", min=0
    )
    parallel: int = option(
        0, "Blocks fitted together, in threads, to what the teacher sees; 0: in turn.", min=0
    )
    texts_at_once: int = option(
        0, "Texts of a step that run together; 0 for all. Fewer take less memory.", min=0
    )
    recompute: bool = option(False, "Gradient checkpointing: less memory, a third more time.")
    unfreeze: bool = option(False, "Let all weights learn in the last quarter of the steps.")
    skip: tuple[Stage, ...] = option(
        (), "A stage to leave out: fit, training or distillation; may be repeated."
    )
    measured_tokens: int = option(16_384, "Held-out tokens a domain, or rows.", min=1)
    seed: int = option(0, "Which text is learnt from, and in which order.", min=0)

    def __post_init__(self) -> None:
        zeros = ("layer_steps", "keep_worst", "seed", "parallel", "texts_at_once")
        check_fields(self, least=dict.fromkeys(zeros, 0), positive=("learning_rate",))
        for stage in self.skip:
            if stage not in get_args(Stage):
                known = ", ".join(get_args(Stage))
                raise UsageError(f"skip={stage!r} is not known: use one of {known}.")

    def check_stages(self, usual: ConversionRecipe) -> None:
        """Refuse what is unlike the usual recipe and counts in a stage alone that is left out."""
        there = [f"with the stage {one}" for one in get_args(Stage) if one not in self.skip]
        there += [] if self.minutes else ["without minutes"]
        said = {n: v for n, v in vars(self).items() if v != getattr(usual, n) or is_written(n, v)}
        refuse_idle("convert", said, *there)


ROWS_RECIPE = ConversionRecipe(n_ctx=1, tokens=400_000, layer_steps=300, batch_size=128)
