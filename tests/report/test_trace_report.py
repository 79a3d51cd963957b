"""The report of a trace: a checked document, and a page that shows all of it and nothing else."""

import math
import re
from typing import Any

import pytest

from bilens.base.errors import NonFiniteError, UsageError
from bilens.report.reports import TraceReport
from bilens.report.sections.trace_circuits import SHADES, leading_pair, shade
from bilens.report.text import latent_name, token_name, visible
from report_documents import changed
from trace_documents import causal_checks, make_trace, make_weights_only, variants


@pytest.mark.parametrize("name", variants())
def test_every_circuit_and_direction_has_its_drawings(name: str) -> None:
    document = variants()[name]
    drawings = 4 * len(document["circuits"]) + 2 if document["circuits"] else 2
    assert TraceReport(document).to_html().count('role="img"') == drawings


def test_numbers_of_the_page_are_those_of_the_document() -> None:
    page = TraceReport(make_trace()).to_html()
    assert "differ by at most 1.0 × 10⁻⁷ on 256 inputs" in page.replace("\u00a0", " ")
    for words in ("56.2%", "81.2%", "0.94", "position 1 in the ranking", "1.2500 → 1.5000"):
        assert words in page
    assert "75.0% (62.5% – 87.5%)" in page  # the share removed, with its interval
    assert "mean logit of sad, upset less the mean logit of glad" in page
    assert "−1.25" in page  # a score of two features, and what a head writes
    assert "+0.562" in page
    assert "43.8%" in page  # of the difference between two latents, not linear
    assert 'class="s8 peak" title="2.0">' in page  # the strongest token of the strongest context
    assert 'class="s1" title="0.30">' in page


def test_no_share_is_told_of_a_behaviour_that_may_be_zero() -> None:
    document = make_trace()
    assert "The behaviour may be zero" not in TraceReport(document).to_html()
    for check in causal_checks(document):
        check["before"]["low"] = -0.1
    page = TraceReport(document).to_html()
    assert "75.0% (62.5% – 87.5%)" not in page
    assert "The behaviour may be zero: no share of it is told" in page


def test_the_latent_a_row_names_is_linked_to_its_circuit() -> None:
    document = make_trace()
    page = TraceReport(document).to_html()
    name = latent_name(TraceReport(document).record.circuits[0].output)
    assert (
        f'<a href="#circuit-7">{visible(name)}'.replace("<|", "&lt;|").replace("|>", "|&gt;")
        in page
    )
    assert page.count('href="#input-4"') >= 2


def hostile(document: dict[str, Any], text: str) -> dict[str, Any]:
    """The same document with every token replaced by a text."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            changed = {key: replaced(item) for key, item in value.items()}
            peaks = ("text", "peak", "query_peak", "key_peak")
            changed |= {key: text for key in peaks if isinstance(changed.get(key), str)}
            if isinstance(changed.get("tokens"), list):
                changed["tokens"] = [text] * len(changed["tokens"])
            return changed
        return [replaced(item) for item in value] if isinstance(value, list) else value

    result: dict[str, Any] = replaced(document)
    for item in (
        *result["circuits"],
        result["contrasts"]["pairs"][0] if result["circuits"] else {},
    ):
        if item:
            item["causal"]["behaviour"] = {"high": [text], "low": [text]}
    return result


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "</text></svg><script>alert(1)</script>",
        '" onmouseover="alert(1)',
        "</title><img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}",
        "\u202e\u0000\ud800\u2028",
    ],
)
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_tokens_never_become_markup(text: str, lang: str) -> None:
    document = hostile(make_trace(), text)
    document["source"]["path"] = text
    document["circuits"][0]["latent"] = 7
    page = TraceReport(document).to_html(lang=lang)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert not re.search(r'<[^>"]*("[^"]*"[^>"]*)* onmouseover', page)
    assert "\u202e" not in page
    assert "\u0000" not in page
    page.encode("utf-8")
    assert page.count("<script") == 1
    readings = TraceReport(hostile(make_weights_only(), text)).to_html(lang=lang)
    assert readings.count("<script") == 1


def test_white_space_of_tokens_can_be_seen() -> None:
    assert visible("a\n\tb") == "a↵⇥b"
    assert token_name(" good") == "good"
    assert token_name("  ") == "␣"
    assert token_name("") == "␣"
    assert len(token_name("x" * 100)) == 18
    page = TraceReport(hostile(make_trace(), "\n")).to_html()
    assert ">↵</span>" in page


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("kind", "audit", "a trace document was expected"),
        ("schema_version", 2, "this release reads 1"),
        ("circuits", [], "nothing, or both, to draw"),
        ("saes", [], "two autoencoders"),
        ("correlations", None, "correlations are those of latents"),
        ("circuits.0.matrix.1", [0.0], "a square matrix"),
        ("circuits.0.features", [1, 4, 5], "not described"),
        ("circuits.0.linear", [0.0], "one number for each feature"),
        ("circuits.0.example", [], "lacks activations"),
        ("circuits.0.projections.0", [0.0], "rows of projections"),
        ("circuits.0.points.truth", [0.0], "points that lack"),
        ("circuits.0.spectrum.eigenvalues", [], "no eigenvalues"),
        ("circuits.0.self_interactions.counts", [1], "bad histogram"),
        ("circuits.0.fits", [], "no fits"),
        ("circuits.0.output.contexts.0.peak", 9, "one activation for each token"),
        ("input_latents.0.contexts.0.tokens", ["a"], "one activation for each token"),
        ("correlations.ranks.0.all.counts", [1], "lack a count"),
        ("correlations.ranks", [], "correlations has no ranks"),
        ("contrasts.pairs.0.first", 99, "not ranked"),
        ("layer.index", -1, "at least 0"),
    ],
)
def test_documents_that_do_not_fit_are_refused(place: str, value: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TraceReport(changed(make_trace(), place, value))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError):
        TraceReport(changed(make_trace(), "circuits.0.constant", math.nan))


@pytest.mark.parametrize(
    ("values", "places"),
    [([3.0, -2.0, 1.0], [0, 1]), ([3.0, 2.0, -1.0], [0, 2]), ([3.0, 2.0], [0, 1]), ([-1.0], [0])],
)
def test_the_axes_are_the_leading_eigenvectors_of_both_signs(
    values: list[float], places: list[int]
) -> None:
    assert leading_pair(values) == places


def test_shades_reach_their_ends() -> None:
    assert (shade(0.0, 1.0), shade(-1.0, 1.0), shade(1e-9, 1.0)) == (0, 0, 1)
    assert (shade(1.0, 1.0), shade(2.0, 1.0)) == (SHADES, SHADES)
