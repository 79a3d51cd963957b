"""The reading of a whole polynomial network: its rules of one, two and three tokens."""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Integer, Record, require
from bilens.records.common import DataOrigin, Run, Source
from bilens.records.view import View

Chosen = Literal["all", "given", "strongest"]


class NetworkSummary(Record, frozen=True):
    """The network that was read."""

    kind: Annotated[str, "of the object"]
    parts: Annotated[tuple[str, ...], "attentions and layers in the order in which they run"]
    degree: Annotated[Count, "of the logits as a polynomial of the embeddings"]
    num_tokens: Annotated[Count, "in the vocabulary"]
    d_model: Annotated[Count, "width of the residual stream"]
    n_ctx: Annotated[Count | None, "tokens of the longest text; null where it is not known"]
    checked_against: Annotated[str, "what it was compared with; empty for nothing"]


class PathShare(Record, frozen=True):
    """A path through the network, and its share of an interaction."""

    path: Annotated[tuple[str, ...], "the parts that it passes; empty for the direct path"]
    share: Annotated[float, "of the logit of the rule; all shares of a rule add up to 1"]


class TokenRule(Record, frozen=True):
    """An interaction of tokens on one output."""

    tokens: Annotated[tuple[str, ...], "in the order of the text, the last one last"]
    output: Annotated[str, "the token that follows"]
    ids: Annotated[tuple[Count, ...], "of the tokens, and of the output behind them"]
    distance: Annotated[
        tuple[Count, ...], "of each but the last before it, where the rule is strongest"
    ]
    probability: Annotated[
        float, View("change of the output's probability; of one token the probability", "percent")
    ]
    logit: Annotated[float, View("interaction, against the mean of all outputs", "signed")]
    lowest: Annotated[
        float | None,
        View("least change of the probability at any distance that was looked at", "percent"),
    ]
    chance: Annotated[
        float | None,
        View(
            "share of interactions of turned networks, at this network's size, that are as large",
            "percent",
        ),
    ]
    paths: Annotated[tuple[PathShare, ...], "the largest; none where there are too many parts"]
    others: Annotated[float, View("share of all other paths", "percent")]


class DistanceReading(Record, frozen=True):
    """All interactions of two tokens at one distance."""

    distance: Annotated[Count, View("positions from the first token to the second", "whole")]
    largest: Annotated[float, View("the largest rise of a probability", "percent")]
    beyond: Annotated[
        Count | None, View("largest interactions of which at most 5% are chance", "whole")
    ]
    explained: Annotated[
        float, View("share of the squared changes of probability that the rules hold", "percent")
    ]
    explained_logits: Annotated[
        float, View("share of the squared interactions in logits that the rules hold", "percent")
    ]


class InductionReading(Record, frozen=True):
    """Whether what followed a token follows it again: X Y X → Y."""

    found: Annotated[Count, "pairs (X, Y), X not Y, whose largest three-token interaction is Y's"]
    tried: Annotated[Count, "pairs that were tried"]
    chance: Annotated[float | None, "share of pairs in networks with a turned embedding"]
    after: Annotated[tuple[str, ...], "tokens X after which it is found for half of all Y or more"]
    tokens: Annotated[Count, "tokens that were tried as X and as Y"]
    explained: Annotated[
        float,
        "share of the squared changes of probability of three tokens: of all X Y X that raise Y",
    ]


class LookedAt(Record, frozen=True):
    """The tokens and distances that were looked at; of others nothing is said."""

    chosen: Annotated[Chosen, "which tokens: all, those given, or in pairs those that do most"]
    single_tokens: Annotated[Count, "tried as one token"]
    tokens: Annotated[Count, "tried in each place of two; 0 where none were"]
    distances: Annotated[tuple[Count, ...], "of two tokens"]
    triple_tokens: Annotated[Count, "tried in each place of three; 0 where none were"]
    triple_distance: Annotated[tuple[Count, ...], "of the first and second before the third"]
    samples: Annotated[Count, "networks with a turned embedding beside each table"]
    seed: Annotated[Integer, "of what is drawn"]
    from_start: Annotated[
        bool, "whether rules are of texts that begin at position 0: vectors of positions are added"
    ] = False


class NetworkReading(Document, frozen=True, kw_only=True):
    """The rules that a polynomial network holds, where they are computed, and what is left."""

    kind: Annotated[Literal["network reading"], "of the document"] = "network reading"
    model: Annotated[NetworkSummary, "what was read"]
    looked: Annotated[LookedAt, "what of it was looked at"]
    single: Annotated[tuple[TokenRule, ...], "one token, by falling probability"]
    single_beyond: Annotated[
        Count | None, "interactions of one token beyond chance; null where chance was not looked at"
    ]
    pairs: Annotated[tuple[TokenRule, ...], "two tokens, by falling change of the probability"]
    distances: Annotated[tuple[DistanceReading, ...], "of two tokens; none without attention"]
    triples: Annotated[tuple[TokenRule, ...], "three tokens, by falling change of the probability"]
    triples_explained: Annotated[
        float | None, "share of the squared changes of three tokens that the listed ones hold"
    ]
    induction: Annotated[InductionReading | None, "null where three tokens were not looked at"]
    source: Annotated[Source, "where the weights come from"]
    reproduce: Annotated[Run, "what it takes to run the same again"]
    data: Annotated[DataOrigin | None, "null: weights are read without data"] = None

    def __post_init__(self) -> None:
        require(
            tuple(one.distance for one in self.distances) == self.looked.distances,
            "each distance that was looked at has a reading, and no other",
        )
        for rule in (*self.single, *self.pairs, *self.triples):
            require(
                len(rule.ids) == len(rule.tokens) + 1 == len(rule.distance) + 2,
                "a rule has an id for each token and its output, and a distance for all but one",
            )
