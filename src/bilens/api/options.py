"""The options of `bl.audit`, `bl.certify_model`, `bl.attack_model` and `bl.read_network`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bilens.base.errors import UsageError
from bilens.base.keyword_options import JobOptions, described
from bilens.base.option_rules import METHOD_PANEL, check_count, check_seed, option, refuse_idle
from bilens.findings.rules.registry import condition_help

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from bilens.api.given_data import Data
    from bilens.api.polynomial_network import TransformerRoles
    from bilens.data.tokenizer import Tokenizer
    from bilens.io.load import LoadedModel
    from bilens.train.recorded_inputs import LayerInputs
else:  # the command line reads the types of the fields, and knows nothing of torch
    Data = LoadedModel = LayerInputs = Module = Tensor = Tokenizer = TransformerRoles = Any

LEAST_TURNED = 19  # networks, of which the largest of all is exceeded by chance in one of twenty


@dataclass(frozen=True)
class AuditOptions(JobOptions):
    """The data and the baseline of an audit, and which findings fail it."""

    data: Data | None = described(
        None,
        "What the predictions are judged on: a path (a table, an .npy, .npz or .safetensors file, "
        "a folder of images; docs/own_data.md), a pair of arrays or tensors (inputs, right "
        "answers), or an `ImageDataset`; without them nothing is said about accuracy.",
    )
    _: KW_ONLY
    null_samples: int | None = option(
        None,
        "Draws of the null distribution: 99 of a classifier (at least 39), 19 of each layer (3).",
        panel=METHOD_PANEL,
    )
    seed: int = option(
        0, "Seed of the null distribution and of random inputs.", min=0, panel=METHOD_PANEL
    )
    baseline: LoadedModel | Module | None = option(
        None, "The model that this one was made from: report what changed.", kind=Path | None
    )
    fail_on: Sequence[str] = option((), condition_help(), kind=list[str] | None)
    threshold: float = option(
        0.9,
        "R² from which a layer that is not quadratic is read at all; below, claims are refused.",
        min=0,
        max=1,
        panel=METHOD_PANEL,
    )
    labels: str | None = described(
        None, "Where the right answers are, if the data leave it open: a column, a key, a file."
    )
    inputs: LayerInputs | None = described(
        None,
        "What layers see (`bl.layer_inputs`), to fit those that are not quadratic to; data of 500 "
        "rows or more do it too. Without, R² is under N(0, I), which is no real input.",
    )
    train_data: Data | None = option(
        None,
        "What a classifier was trained on, as for --data: compared with --data, and ranked by how "
        "much it looks learnt by heart. Of the IDX files it is the training images.",
        metavar="PATH",
        kind=Path | None,
    )
    train_labels: str | None = option(None, "As --labels, of --train-data.", metavar="NAME")
    try_words: int = option(
        0,
        "Words of the vocabulary to try as triggers in a language model with --baseline; both run.",
        min=0,
        panel=METHOD_PANEL,
    )

    def __post_init__(self) -> None:
        if self.train_data is None:
            refuse_idle("audit", {"train_labels": self.train_labels})


@dataclass(frozen=True)
class CertifyOptions(JobOptions):
    """The inputs, eigenpairs and radius of a certificate."""

    data: Data | None = described(
        None,
        "Test inputs with their classes, as for `bl.audit`; without them nothing is said about "
        "radii and predictions.",
    )
    _: KW_ONLY
    samples: int = option(1000, "So many test images, drawn at random, get a certified radius.")
    truncate: int | None = option(
        None,
        "Eigenpairs kept of each class; without it, as many as provably keep 99 % of the "
        "predictions.",
        metavar="K",
    )
    radius: float | None = option(
        None,
        "Truncation is bounded over inputs of at most this length; without it, that of the "
        "longest image, without data the farthest corner of the box [0, 1]ⁿ of a model of pixels, "
        "and 1 where nothing is known of inputs.",
        metavar="R",
    )
    seed: int = option(0, "Seed of the attack that bounds ℓ∞ distances.", min=0)
    labels: str | None = described(None, "Where the classes are, as for `bl.audit`.")


@dataclass(frozen=True, kw_only=True)
class AttackOptions(JobOptions):
    """Which perturbations are made."""

    target: int | str | None = option(
        None, "Class that should win, by index or name; each in turn without.", kind=str | None
    )
    source: int | str | None = option(
        None, "Class that should lose; all but the target without.", kind=str | None
    )
    pairs: bool = option(False, "A perturbation of its own for each source class.")
    epsilons: Sequence[float] | None = option(
        None,
        "Length ‖δ‖₂ of the perturbations in units of a pixel's range; may be repeated. Without: 0 "
        "to 8.4; 4.2 is the paper's std of 0.15 at 784 pixels.",
        "--epsilon",
        kind=list[float] | None,
    )
    random_perturbations: int = described(3, "Random ones for each target.")
    restarts: int = described(3, "Descents of the projected gradient for each length.")
    seed: int = option(
        0, "Seed of random perturbations, of gradient descents, and of the rows for testing.", min=0
    )
    labels: str | None = described(None, "Where the classes are, as for `bl.audit`.")


@dataclass(frozen=True, kw_only=True)
class ReadNetworkOptions(JobOptions):
    """How a network is opened, how its tokens are called, and how much of it is looked at."""

    UNCHECKED: ClassVar = ("roles",)  # a file, and not texts ROLE=TENSOR

    roles: TransformerRoles | str | Path | None = option(
        None,
        "Which tensor of a .safetensors file is what: JSON of the fields of bl.TransformerRoles.",
        "--roles",
        kind=Path | None,
    )
    probe: tuple[Tensor, Tensor] | str | Path | None = option(
        None,
        "Of such a file: a .safetensors with tokens and the logits of its owner, to compare with.",
        kind=Path | None,
    )
    tokenizer: Tokenizer | Sequence[str] | str | Path | None = option(
        None,
        "Names of tokens: a tokenizer.json, or a JSON list by id; else those beside a saved model.",
        "--tokens",
        kind=Path | None,
    )
    tokens: Sequence[int] | str | Path | None = option(
        None,
        "Look only at the most frequent tokens of this text; needs --tokens with a tokenizer.",
        "--tokens-of",
        kind=Path | None,
    )
    farthest: int = option(12, "Distances of two tokens to look at: 1 to this one.", min=1)
    k: int = option(30, "Rules to list of each kind.", "--rules", min=1)
    samples: int = option(
        20,
        "Networks with a turned embedding beside each table, for chance: 19 or more; 0 for none.",
        min=0,
    )
    seed: int = option(0, "Of the turned embeddings.", min=0)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least in (("farthest", 1), ("k", 1), ("samples", 0)):
            check_count(name, getattr(self, name), minimum=least)
        if 0 < self.samples < LEAST_TURNED:
            raise UsageError(
                f"samples is {self.samples}: of fewer than {LEAST_TURNED} turned "
                "networks one in twenty has larger interactions by chance; 0 for none."
            )
