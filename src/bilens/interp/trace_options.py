"""The options of `bl.trace` and `bilens trace`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilens.base import silent
from bilens.base.errors import UsageError
from bilens.base.keyword_options import JobOptions, described
from bilens.base.option_rules import check_count, option

if TYPE_CHECKING:
    from torch import Tensor

    from bilens.data.tokenizer import Tokenizer
    from bilens.io.load import LoadedModel
    from bilens.train.corpus import CorpusOptions
else:  # the command line reads the types of the fields, and knows nothing of torch
    Tensor = Tokenizer = LoadedModel = CorpusOptions = Any

NUM_DICTIONARIES = 19  # the fewest whose best is exceeded by chance in one of twenty cases


@dataclass(frozen=True, kw_only=True)
class TraceOptions(JobOptions):
    """The autoencoders and the text of a trace, and how much is listed and drawn."""

    input_sae: str | Path | LoadedModel | None = option(
        None, "Folder of the autoencoder at mlp_in of that block.", kind=Path | None
    )
    output_sae: str | Path | LoadedModel | None = option(
        None,
        "Folder of the autoencoder at mlp_out. Without both, output directions are read straight "
        "as tokens.",
        kind=Path | None,
    )
    corpus: str | Path | CorpusOptions | Tensor | None = described(
        None,
        "Text to measure on: what `load_text` reads, tokens (num, length), or None for the "
        "held-out part of what the model was trained on.",
    )
    tokenizer: Tokenizer | str | Path | None = described(
        None, "Of the model, or the path of one; None reads the tokenizer.json beside it."
    )
    latents: Sequence[int] | None = option(
        None,
        "An output latent to draw; may be repeated. Left out: the first ones.",
        "--latent",
        kind=list[int] | None,
    )
    toward: Sequence[str] = option(
        (),
        "Without autoencoders: read the direction that raises this token; may be repeated. Left "
        "out: the leading singular directions.",
        metavar="TOKEN",
        kind=list[str] | None,
    )
    outputs: int = option(5, "How many outputs to draw.", min=1)
    pairs: int = option(8, "Eigenpairs of each output.", min=1)
    features: int = option(8, "Input latents of a circuit.", min=1)
    top: int = option(20, "Interactions listed of each kind.", min=1)
    tokens: int = option(16_384, "Held-out tokens to read.", min=1)
    seed: int = option(0, "Seed of the text drawn, of random directions and dictionaries.", min=0)
    dictionaries: int = option(
        NUM_DICTIONARIES,
        "Random dictionaries to rank and check likewise; fewer than 19 tell nothing.",
        min=1,
    )
    attention_sae: str | Path | LoadedModel | None = option(
        None,
        "Folder of an autoencoder of what the attention of that block reads (resid_pre, or what an "
        "earlier block writes): which of its latents attend to which, and what that writes.",
        kind=Path | None,
    )
    distance: int = option(
        1, "Tokens from the key back to the query of these edges, in rotary positions.", min=0
    )
    say: Callable[[str], None] = described(silent, "Told what a person should know.")

    def __post_init__(self) -> None:
        for name in ("outputs", "pairs", "features", "top", "dictionaries"):
            check_count(name, getattr(self, name), minimum=1)
        for name in ("seed", "distance"):
            check_count(name, getattr(self, name), minimum=0)

    def check_latents(self, hook: str, known: int) -> None:
        """Refuse output latents that do not exist, and a list of none."""
        if self.latents is not None and not len(self.latents):
            raise UsageError(
                "latents is empty: name one, or leave it out for the first of the ranking."
            )
        for latent in self.latents or ():
            if not 0 <= latent < known:
                raise UsageError(
                    f"latent {latent} does not exist: the autoencoder at {hook} has {known}, "
                    "counted from 0."
                )
