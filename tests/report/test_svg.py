"""SVG: escaping, and charts that say what the document says.

Damage seen to fail: texts put in unescaped; the eigenvalues at the lower end left out.
"""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st

from bilens.report.catalogue import load_catalogue
from bilens.report.charts import spectrum
from bilens.report.charts.accuracy import accuracy_bar
from bilens.report.charts.ranks import rank_strip
from bilens.report.charts.running_sum import running_axis, running_strip
from bilens.report.charts.scores import MOST, score_chart
from bilens.report.charts.truncation import truncation_chart
from bilens.report.document import displayable
from bilens.report.svg import Axis, element, fitted, label, shortened, text_width
from report_documents import make_document

EN = load_catalogue("en")
DOCUMENT = make_document()


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own text


def numbers_of(root: ElementTree.Element, *names: str) -> list[float]:
    return [float(node.get(name)) for node in root.iter() for name in names if node.get(name)]


@given(st.text(), st.text())
def test_any_text_is_escaped(text: str, attribute: str) -> None:
    text, attribute = displayable(text), displayable(attribute)
    root = parse(element("text", text, fill=attribute))
    assert (root.text or "") == text
    assert root.get("fill") == attribute
    assert len(root) == 0


def test_markup_of_ours_is_kept_and_names_become_attributes() -> None:
    svg = element("g", label(1, 2.349, "a", "big", "end"), stroke_width=1.5, class_="x", id=None)
    assert svg == (
        '<g stroke-width="1.5" class="x"><text x="1" y="2.35" class="big" text-anchor="end">a'
        "</text></g>"
    )


def test_an_axis_is_linear() -> None:
    axis = Axis(-1.0, 3.0, 100.0, 20.0)
    assert [axis(value) for value in (-1.0, 1.0, 3.0)] == [100.0, 60.0, 20.0]
    assert Axis(2.0, 2.0, 0.0, 10.0)(2.0) == 5.0


def test_texts_are_cut_to_fit() -> None:
    assert shortened("abcdef", 4) == "abc…"
    assert fitted("犬" * 30, 12, 60) == "犬" * 4 + "…"
    assert text_width(fitted("x" * 99, 12, 60), 12) <= 60
    assert fitted("ok", 12, 60) == "ok"


CHARTS = {
    "spectrum": spectrum.spectrum_chart(EN, DOCUMENT["classes"][0], "<&>"),
    "ranks": rank_strip(EN, DOCUMENT["classes"][0], 9.5),
    "accuracy": accuracy_bar(EN, DOCUMENT["accuracy"]),
    "truncation": truncation_chart(EN, DOCUMENT["truncation"], DOCUMENT["verdict"][3]["values"]),
    "scores": score_chart(EN, [3.0, -4.0, 1.0], ["<&>", "犬" * 40, "c"], 0, 1),
    "running sum": running_strip(EN, Axis(0, 3, 6, 214), 1.0, -0.5, "neg", 2),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_has_a_name_a_description_and_stays_within_its_frame(name: str) -> None:
    root = parse(CHARTS[name])
    assert root.get("role") == "img"
    assert root[0].tag == "title"
    assert root[0].text
    assert root[1].tag == "desc"
    assert root[1].text
    _, _, width, height = (float(number) for number in root.get("viewBox").split())
    assert all(0 <= x <= width for x in numbers_of(root, "x", "x1", "x2", "cx"))
    assert all(0 <= y <= height for y in numbers_of(root, "y", "y1", "y2", "cy"))


def test_a_spectrum_shows_every_eigenvalue_and_marks_those_beyond_chance() -> None:
    reading = DOCUMENT["classes"][0]
    circles = [node for node in parse(CHARTS["spectrum"]).iter() if node.tag == "circle"]
    assert len(circles) == len(reading["eigenvalues"]) == 36
    marked = [node.get("class") for node in circles if "strong" in node.get("class")]
    assert marked == ["pos strong", "pos strong", "neg strong"]
    heights = [float(node.get("cy")) for node in circles]
    assert heights == sorted(heights), "by falling value, and up is more"


def test_of_a_long_spectrum_both_ends_are_drawn() -> None:
    values = [1.0 - index / 100 for index in range(200)]
    places = spectrum.places_of(values)
    assert len(places) == 2 * spectrum.END
    assert [places[0], places[-1]] == [(0, 1.0), (43, values[-1])]
    reading = DOCUMENT["classes"][0] | {"eigenvalues": values}
    assert "160 between" in spectrum.spectrum_chart(EN, reading, "0")


@given(st.floats(-1e6, -1e-9), st.floats(1e-9, 1e6))
def test_ticks_are_round_and_not_too_many(low: float, high: float) -> None:
    ticks = spectrum.round_values(low, high)
    assert 2 <= len(ticks) <= 12
    assert all(low * (1 + 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert 0 in ticks


def test_a_spectrum_of_one_value_can_be_drawn() -> None:
    reading = DOCUMENT["classes"][0] | {
        "eigenvalues": [0.0],
        "upper_edge": 0.0,
        "lower_edge": 0.0,
    }
    assert parse(spectrum.spectrum_chart(EN, reading, "0")) is not None


def test_bars_of_a_running_sum_follow_each_other_to_the_score() -> None:
    steps = [3.0, -1.0, 0.5]
    x = running_axis([steps, [1.0]])
    ends = list(itertools.accumulate(steps, initial=0.0))
    bars = []
    for start, step in zip(ends, steps, strict=False):
        strip = parse(running_strip(EN, x, start, step, "pos", 2))
        (bar,) = (node for node in strip.iter() if node.tag == "rect")
        left = float(bar.get("x"))
        bars.append((left, left + float(bar.get("width"))))
    assert bars[0] == pytest.approx((x(0), x(3)), abs=0.02)
    assert bars[1] == pytest.approx((x(2), x(3)), abs=0.02)
    assert bars[2] == pytest.approx((x(2), x(2.5)), abs=0.02)


def test_bars_of_scores_begin_at_zero_and_have_the_right_length() -> None:
    root = parse(CHARTS["scores"])
    bars = [node for node in root.iter() if node.tag == "rect"]
    assert [node.get("class") for node in bars] == ["pos strong", "neg strong", "pos"]
    lengths = [float(node.get("width")) for node in bars]
    assert lengths[0] / lengths[2] == pytest.approx(3.0, rel=0.01)
    assert lengths[1] / lengths[2] == pytest.approx(4.0, rel=0.01)


def test_of_many_scores_the_highest_and_the_label_are_drawn() -> None:
    scores = [-float(index) for index in range(30)]
    svg = score_chart(EN, scores, [f"c{index}" for index in range(30)], 0, 29)
    assert svg.count("<rect") == MOST
    assert ">c29<" in svg
    assert "18 other classes, all at most −11.00" in svg


def test_the_rank_is_where_the_axis_says() -> None:
    reading = DOCUMENT["classes"][0]
    dot = next(node for node in parse(CHARTS["ranks"]).iter() if node.tag == "circle")
    expected = 4 + (180 - 8 - 4) * reading["effective_rank"] / 9.5
    assert float(dot.get("cx")) == pytest.approx(expected, abs=0.01)


def test_keeping_nothing_has_a_place_on_the_logarithmic_axis() -> None:
    root = parse(CHARTS["truncation"])
    dots = [n for n in root.iter() if n.tag == "circle" and n.get("class") == "dot"]
    places = [float(node.get("cx")) for node in dots]
    assert places[0] == 52.0
    assert places == sorted(places)
    assert len(dots) == len(DOCUMENT["truncation"])
