"""Documents of traces for tests, written by hand: a few latents, made-up text, known numbers."""

import json
import random
from functools import cache
from typing import Any

from bilens.records import mlp_trace as r
from bilens.records.attention_edges import AttentionEdges, ScoreEdge, WriteEdge
from bilens.records.base import json_text
from bilens.records.common import Run, Source, TextOrigin

WORDS = ("The", "cake", "was", "not", "good", ".", "Anna", "felt", "sad", "\n", "<|endoftext|>")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
LAYER = r.LayerLocation(0, "blocks.0.mlp", "blocks.0.mlp_in", "blocks.0.mlp_out")
METRICS = r.SAEMetrics(100, 0.125, 0.0625, 2.5, 0.0625, 1.25, 1.5, 3.25, 2.25, 0.25, 0.875, 0.75)


def tokens(draw: random.Random, num: int = 3) -> r.TokenEnds:
    """Tokens at both ends of a direction."""
    places = draw.sample(range(len(WORDS)), 2 * num)
    found = [r.TokenValue(place, WORDS[place], draw.uniform(0.1, 1.0)) for place in places]
    low = (r.TokenValue(one.id, one.text, -one.value) for one in found[num:])
    return r.TokenEnds(tuple(found[:num]), tuple(low))


def latent(draw: random.Random, number: int) -> r.LatentReading:
    """One latent with two contexts, the stronger first."""
    contexts = tuple(
        r.ActiveContext(
            place, 4, 3, tuple(draw.choices(WORDS, k=6)), (0.0, 0.3, 0.0, 2.0 - place, 0.5, 0.0)
        )
        for place in range(2)
    )
    return r.LatentReading(number, 0.125, 2.0, contexts, tokens(draw))


def spectrum(draw: random.Random) -> r.TracedSpectrum:
    """The eigenvalues of one form, with two eigenvectors read."""
    near = tuple(r.NearLatent(number, 0.5, 0.25) for number in (1, 4, 6))
    vectors = tuple(r.ReadEigenvector(value, near, tokens(draw)) for value in (0.75, -0.7))
    return r.TracedSpectrum((0.75, -0.7, 0.25), 8, 1.5, 0.875, 1e-15, True, vectors)


def entries(times: int, *pairs: tuple[int, int]) -> r.InteractionEntries:
    """The largest interactions of one kind."""
    listed = tuple(r.InteractionEntry(m, n, 0.5, times * 0.5) for m, n in pairs)
    return r.InteractionEntries(
        listed, 28, -0.001, 0.07, 0.625, (-1.0, 0.0, 1.0), (15, 13), below=0, above=0
    )


def interval(value: float) -> r.Interval:
    return r.Interval(value, value - 0.125, value + 0.125)


def causal(second: str = "steer", *, active: bool = True) -> r.CausalReading:
    """Two checks of one behaviour."""
    checks = tuple(
        r.CausalCheck(kind, 2, *map(interval, (3.0, 0.5, 0.75, 0.25)), 20, *losses, *null)
        for kind, losses, null in (
            ("ablate", (1.25, 1.5), ((0.125, 0.5, 0.25), 19, True)),
            (second, (None, None), ((), 19, False)),
        )
    )
    behaviour = r.Behaviour(("sad", "upset"), ("glad",)) if active else None
    return r.CausalReading(behaviour, checks)


def circuit(draw: random.Random, number: int, place: int) -> r.Circuit:
    """One circuit of three input latents."""
    fit = (0.75, 0.875, 0.5, 0.625, 1.125, 0.0625, 0.0, 0.0625, 0.125)
    truth = tuple(draw.gauss(0, 1) for _ in range(30))
    near = tuple(0.9 * value for value in truth)
    return r.Circuit(
        number,
        place,
        latent(draw, number),
        spectrum(draw),
        self_interactions=entries(1, (4, 4), (6, 6)),
        cross_interactions=entries(2, (1, 4), (1, 6)),
        features=(1, 4, 6),
        matrix=((0.0, 0.5, -0.25), (0.5, 0.1, 0.0), (-0.25, 0.0, 0.3)),
        linear=(0.25, 0.0, -0.5),
        constant=-0.125,
        projections=((0.5, 0.5, 0.1), (0.5, -0.5, 0.2), (-0.4, 0.4, 0.3)),
        share_of_norm=0.5625,
        share_of_variance=0.8125,
        correlation=0.9375,
        num_active=40,
        example=(2.0, 1.0, 0.0),
        fits=tuple(r.RankFit(rank, *fit) for rank in (1, 2)),
        points=r.Points(2, truth, near, tuple(value > 0 for value in truth)),
        causal=causal(),
    )


def ranked(number: int, place: int) -> r.RankedLatent:
    shares = (0.5 / place, 0.625, 0.875, 0.75)
    numbers = (*shares, 0.75, -0.7, 0.5, 0.875, 0.125)
    chance = {"null_score": 0.25 / place, "p_value": 0.05 if place == 1 else 1.0}
    return r.RankedLatent(number, *numbers, peak="was", cluster=0, **chance)


def correlations(rank: int) -> r.RankCorrelations:
    """Quantiles and a histogram of four bins, of each kind."""
    return r.RankCorrelations(
        rank,
        *(
            r.Distribution(
                LEVELS, tuple(centre + 0.1 * (place - 2) for place in range(5)), (0, 1, 2, 9)
            )
            for centre in (0.6, 0.7, 0.0, -0.1)
        ),
    )


EDGES = AttentionEdges(
    hook="blocks.0.resid_pre",
    path="runs/blocks.0.resid_pre",
    weights_sha256="3" * 64,
    num_features=12,
    num_heads=2,
    distance=1,
    scores=(ScoreEdge(1, 3, "not", 8, None, -1.25, 0.05),),
    writes=(WriteEdge(0, 8, None, 4, 0.562, 3, "not", 2.25, 1.0),),
    num_null=19,
    level=0.05,
    checked_against="the module itself, as it runs",
)


@cache
def _made() -> str:
    draw = random.Random(0)
    circuits = (circuit(draw, 7, 1), circuit(draw, 2, 2))
    order = (7, 2, *(number for number in range(12) if number not in (2, 7)))
    checks = ((2, causal("sign_flip")), (5, None), (6, causal(active=False)))
    pairs = tuple(
        r.LatentContrast(7, other, 0.3125, 0.4375, 0.71875, checked, 0.05)
        for other, checked in checks
    )
    edges = (-1.0, -0.5, 0.0, 0.5, 1.0)
    return json_text(
        r.Trace(
            model=r.LanguageModel("BilinearTransformer", 90, 8, 16, 1, 2, 16, 1234, "float32"),
            layer=LAYER,
            exactness=r.MapError(1e-7, 0.5, 256),
            tokens_carry_spaces=False,
            saes=tuple(
                r.TracedSAE(hook, f"runs/{hook}", "1" * 64, 12, 3, "relu", METRICS)
                for hook in (LAYER.input, LAYER.output)
            ),
            ranking=tuple(ranked(number, place) for place, number in enumerate(order, start=1)),
            num_outputs=12,
            clusters=((0, 3), (4, 5, 6)),
            cluster_threshold=0.5,
            contrasts=r.Contrasts(11, pairs),
            correlations=r.Correlations(12, 11, 20, edges, tuple(map(correlations, (1, 2, 4)))),
            circuits=circuits,
            input_latents=tuple(latent(draw, number) for number in (1, 4, 6)),
            readings=(),
            seed=0,
            data=TextOrigin("grammar", "the story grammar", 320, "2" * 64),
            source=Source("runs/grammar", "0" * 64, {"seed": "1"}),
            reproduce=Run(
                "bilens trace runs/grammar --layer 0",
                0,
                {"bilens": "0.0"},
                "a machine",
                "2026-01-01",
            ),
            null=r.RandomDictionaries(19, 0.05, (0.25,) * 18 + (0.375,), (0.25,) * 19),
            attention_edges=EDGES,
        )
    )


def make_trace() -> dict[str, Any]:
    """Return a document of a trace with autoencoders, that a test may change."""
    document: dict[str, Any] = json.loads(_made())
    return document


def make_weights_only() -> dict[str, Any]:
    """Return a document of a trace without autoencoders."""
    draw = random.Random(1)
    readings = [
        r.DirectionReading(kind, name, value, value, tokens(draw), spectrum(draw))
        for kind, name, value in (("hosvd", "", 0.5), ("token", " sad", None))
    ]
    nothing = dict.fromkeys(("saes", "ranking", "clusters", "circuits", "input_latents"), ())
    contrasts = {"num_compared": 0, "pairs": ()}
    changed = {
        **nothing,
        **dict.fromkeys(("correlations", "data", "null", "attention_edges")),
        "contrasts": contrasts,
    }
    document: dict[str, Any] = json.loads(
        json_text({**make_trace(), **changed, "readings": readings})
    )
    return document


def causal_checks(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every causal check of a document."""
    found = [*document["circuits"], *document["contrasts"]["pairs"]]
    return [check for one in found if one["causal"] for check in one["causal"]["checks"]]


def variants() -> dict[str, dict[str, Any]]:
    """Return documents that together need every sentence."""
    bare, silent = make_trace(), make_trace()
    bare["contrasts"]["pairs"] = []
    bare["data"]["name"] = ""
    bare["tokens_carry_spaces"] = True
    bare["null"] = None
    bare["attention_edges"]["checked_against"] = ""
    for row in bare["ranking"]:
        row["null_score"] = row["p_value"] = None
    for item in bare["circuits"]:
        item["causal"] = {"behaviour": None, "checks": []}
        item["spectrum"]["complete"] = False
        item["share_of_variance"] = item["correlation"] = None
        item["spectrum"]["eigenvalues"] = [0.75, 0.5, 0.25]
    bare["saes"][0]["sign"] = "raw"
    bare["saes"][0]["metrics"]["recovered_from_zero"] = None
    bare["clusters"] = [list(range(25))]
    silent["clusters"] = []
    silent["ranking"][0]["p_value"] = 0.5
    for check in causal_checks(silent):
        check["before"]["low"] = -0.5
    for item in silent["circuits"]:
        item["output"].update(contexts=[], density=0.0, largest=0.0)
        item["example"] = []
        for fit in item["fits"]:
            fit["correlation_active"] = fit["null_correlation_active"] = None
    for rank in silent["correlations"]["ranks"]:
        rank["active"] = {"levels": [], "values": [], "counts": [0, 0, 0, 0]}
    silent["ranking"][0].update(correlation_active=None, peak=None)
    silent["ranking"][5]["peak"] = None
    return {"plain": make_trace(), "bare": bare, "silent": silent, "weights": make_weights_only()}
