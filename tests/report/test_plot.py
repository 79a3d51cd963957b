"""Pictures: escaping, ticks, and charts on which every mark is where its value says."""

import itertools
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st

from bilens.base.errors import UsageError
from bilens.records.base import displayable
from bilens.report.charts import curves, scores, spectrum_charts, traces
from bilens.report.markup import Figure, element, joined, label
from bilens.report.plot import SHARES, Axis, Plot, Range, Scale, padded, rounded, within
from bilens.report.text import fitted, load_catalogue, shortened, text_width, tick_text

EN = load_catalogue("en")
EIGENVALUES = [0.9, 0.7, *(0.33 - 0.02 * index for index in range(33)), -0.8]
KEPT = [(0, 0.1), (1, 0.3), (2, 0.5), (5, 0.9), (36, 0.9)]
CURVE = [(0.0, 1.0), (1.0, 0.5), (2.0, 0.0)]
AXES = ("across", "upwards")
FIVE = {kind: [[0.0, 0.1, 0.2, 0.3, 0.4], []] for kind in traces.KINDS}
COUNTS = {kind: [0, 1, 2, 9] for kind in traces.KINDS}
EDGES = [-1.0, -0.5, 0.0, 0.5, 1.0]
COLUMNS = [
    spectrum_charts.LayerColumn(1.0, 0.5, marked=True),
    spectrum_charts.LayerColumn(None),
    spectrum_charts.LayerColumn(2.0, null=(0.5, 1.5)),
]
numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


def spectrum(values: list[float], low: float = -0.5, high: float = 0.5) -> Figure:
    return spectrum_charts.spectrum_chart(EN, "<&>", values, (low, high), (2, 1))


CHARTS: dict[str, Figure] = {
    "spectrum": spectrum(EIGENVALUES),
    "eigenvalues": spectrum_charts.eigenvalue_chart(("<&>", "text"), AXES, [2.0, -1.0, 0.5]),
    "ranks": spectrum_charts.rank_strip(EN, 6.5, (8.5, 9.5), 9.5),
    "layers": spectrum_charts.layer_columns(EN, ("<&>", "text"), COLUMNS, level=1.2),
    "truncation": curves.truncation_chart(EN, KEPT, KEPT, (2, 0.5)),
    "radii": curves.radii_chart(EN, CURVE, 1.0),
    "effect": curves.effect_chart(
        ("<&>", "text"), "ε", [0, 0.01, 1, 4], [("kind-random", [1, 1, 0.5, 0])], SHARES
    ),
    "trigger": spectrum_charts.trigger_picture(
        [0.0, 1.0] * 24, (8, 6), (1, 2, 3, 3), ("<&>", "text")
    ),
    "scores": scores.score_chart(EN, [3.0, -4.0, 1.0], ["<&>", "犬" * 40, "c"], 0, 1),
    "bars": scores.bar_chart("<&>", "text", [("a", -1.0), ("b" * 99, 0.0)]),
    "running sum": scores.running_strip(EN, Scale(0, 3, 6, 214), 1.0, -0.5, "neg", 2),
    "by rank": traces.by_rank(("<&>", "text"), AXES, [1, 8], FIVE),
    "histogram": traces.histogram(("<&>", "text"), AXES, EDGES, COUNTS),
    "named points": traces.named_points(("<&>", "text"), AXES, [(1, 2), (-1, 0)], ["<&>", "b"]),
    "agreement": traces.agreement_points(("<&>", "text"), AXES, [1, 2], [1, 3], [True, False]),
    "heat map": traces.heat_map(("<&>", "text"), [[1, -2], [-2, 0]], [7, 1234567], ["<&>", "b"]),
}


def parse(svg: Figure | str) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))  # noqa: S314 - our own text


def nodes(svg: Figure | str, tag: str, class_: str | None = None) -> list[ElementTree.Element]:
    found = [node for node in parse(svg).iter() if node.tag.split("}")[-1] == tag]
    return [node for node in found if class_ is None or node.get("class") == class_]


def values(found: list[ElementTree.Element], *names: str) -> list[float]:
    return [float(node.get(name, "")) for node in found for name in names if node.get(name)]


def texts(svg: Figure | str) -> list[str]:
    return ["".join(node.itertext()) for node in nodes(svg, "text")]


@given(st.text(), st.text())
def test_any_text_is_escaped(text: str, attribute: str) -> None:
    text, attribute = displayable(text), displayable(attribute)
    root = parse(element("text", text, fill=attribute))
    assert (root.text or "", root.get("fill"), len(root)) == (text, attribute, 0)
    figure = parse(Figure(text, attribute, 1, 1, joined(text), "chart"))
    assert (figure[0].text or "", figure[1].text or "") == (text, attribute)


def test_markup_of_ours_is_kept_and_names_become_attributes() -> None:
    svg = element("g", label(1, 2.349, "a", "big", "end"), stroke_width=1.5, class_="x", id=None)
    assert svg == (
        '<g stroke-width="1.5" class="x"><text x="1" y="2.35" class="big" text-anchor="end">a'
        "</text></g>"
    )


def test_texts_are_cut_to_fit() -> None:
    assert shortened("abcdef", 4) == "ab…f"
    assert fitted("犬" * 30 + "猫", 12, 60) == "犬犬…犬猫"
    assert text_width(fitted("x" * 99, 12, 60), 12) <= 60
    assert fitted("ok", 12, 60) == "ok"


def test_a_scale_is_linear_after_its_warp() -> None:
    scale = Scale(-1.0, 3.0, 100.0, 20.0)
    assert [scale(value) for value in (-1.0, 1.0, 3.0)] == [100.0, 60.0, 20.0]
    assert Scale(2.0, 2.0, 0.0, 10.0)(2.0) == 5.0
    assert Scale(1, 100, 0, 10, lambda value: value**0.5)(25) == pytest.approx(10 * 4 / 9)


@given(st.floats(-1e6, -1e-9), st.floats(1e-9, 1e6))
def test_ticks_within_a_range_are_few_and_hold_zero(low: float, high: float) -> None:
    ticks = within(low, high).ticks
    assert 2 <= len(ticks) <= 9
    assert all(low * (1 + 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert 0 in ticks


@given(st.lists(numbers, min_size=1, max_size=20))
def test_round_ends_hold_all_values_and_ticks_are_even(known: list[float]) -> None:
    low, high, ticks = rounded(known)
    span = high - low
    assert (low, high) == (ticks[0], ticks[-1])
    assert low <= min(known) + 1e-9 * span
    assert high >= max(known) - 1e-9 * span
    assert 2 <= len(ticks) <= 8
    steps = [second - first for first, second in pairwise(ticks)]
    assert max(steps) - min(steps) <= 1e-9 * max(map(abs, ticks))


@given(st.lists(st.floats(-1e9, 1e9), max_size=20))
def test_a_padded_range_holds_zero_and_is_never_empty(known: list[float]) -> None:
    low, high, _ = padded(known)
    assert low < min([0.0, *known])
    assert high > max([0.0, *known])


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_has_a_name_a_description_and_stays_within_its_frame(name: str) -> None:
    root = parse(CHARTS[name])
    assert (root.get("role"), root[0].tag, root[1].tag) == ("img", "title", "desc")
    assert root[0].text
    assert root[1].text
    assert "nan" not in str(CHARTS[name])
    assert "chart" in root.get("class", "").split()
    _, _, width, height = (float(number) for number in root.get("viewBox", "").split())
    every = list(root.iter())
    assert all(0 <= x <= width for x in values(every, "x", "x1", "x2", "cx"))
    assert all(0 <= y <= height for y in values(every, "y", "y1", "y2", "cy"))


def test_axes_have_names_numbers_and_one_zero_line() -> None:
    plot = Plot(Axis(Range(0, 4, (0, 2, 4)), name="x <"), Axis(padded([-1, 1]), name="y"), 300, 200)
    figure = plot.figure("t", "d", plot.dots([(2, 1)]))
    assert {"x <", "y", "0", "2", "4", "−1"} <= set(texts(figure))
    assert len(nodes(figure, "line", "zero")) == 2
    (dot,) = nodes(figure, "circle", "dot")
    assert values([dot], "cx") == pytest.approx([(plot.start + plot.end) / 2], abs=0.01)


def test_a_spectrum_shows_every_eigenvalue_and_marks_those_beyond_the_null_interval() -> None:
    circles = nodes(CHARTS["spectrum"], "circle")
    assert len(circles) == len(EIGENVALUES)
    marked = [node.get("class") for node in circles if "strong" in node.get("class", "")]
    assert marked == ["pos strong", "pos strong", "neg strong"]
    assert values(circles, "cy") == sorted(values(circles, "cy")), "by falling value, up is more"


def test_of_a_long_spectrum_both_ends_are_drawn() -> None:
    long = [1.0 - index / 100 for index in range(200)]
    slots = spectrum_charts.spectrum_slots(long)
    assert len(slots) == 2 * spectrum_charts.END
    assert [slots[0], slots[-1]] == [(0, 1.0), (43, long[-1])]
    assert "160 between" in str(spectrum(long))


def test_a_spectrum_of_one_value_can_be_drawn() -> None:
    assert nodes(spectrum([0.0], 0.0, 0.0), "circle")


def test_the_rank_is_where_the_scale_says() -> None:
    (dot,) = nodes(CHARTS["ranks"], "circle")
    assert values([dot], "cx") == pytest.approx([4 + (180 - 8 - 4) * 6.5 / 9.5], abs=0.01)


@pytest.mark.parametrize("count", [1, 30, 200])
def test_any_number_of_layers_is_drawn_with_few_numbers(count: int) -> None:
    columns = [spectrum_charts.LayerColumn(1.0, null=(0.5, 0.6))] * count
    figure = spectrum_charts.layer_columns(EN, ("t", "d"), columns)
    assert len(nodes(figure, "rect", "pos strong")) == count
    assert len(nodes(figure, "rect", "null")) == count
    below = [node for node in nodes(figure, "text") if node.get("text-anchor") == "middle"]
    assert len(below) <= spectrum_charts.MOST_NAMES + 1  # and the name of the axis


def test_layers_that_say_nothing_are_a_dash() -> None:
    columns = [spectrum_charts.LayerColumn(0.0), spectrum_charts.LayerColumn(None)]
    figure = spectrum_charts.layer_columns(EN, ("t", "d"), columns)
    assert len(nodes(figure, "rect")) == 1
    assert len(nodes(figure, "line", "axis")) == 1
    assert not any("⁻" in text for text in texts(figure)), "no powers of ten on an empty scale"


def test_keeping_nothing_has_a_place_on_the_logarithmic_axis() -> None:
    dots = nodes(CHARTS["truncation"], "circle", "dot")
    places = values(dots, "cx")
    assert places == sorted(places)
    assert len(dots) == len(KEPT)
    assert places[0] == values(nodes(CHARTS["truncation"], "line", "zero"), "x1")[0]


ENDS = {"start": 0.0, "middle": 0.5, "end": 1.0}


def boxes(svg: Figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return each text of a chart with its place: left, top, right, bottom."""
    found = []
    for node in nodes(svg, "text"):
        said, (x, y) = "".join(node.itertext()), values([node], "x", "y")
        width = text_width(said, 12)
        left = x - width * ENDS[node.get("text-anchor", "start")]
        found.append((said, (left, y - 10, left + width, y + 2)))
    return found


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("mark", [(2, 0.5), (6, 0.95), (9, 0.99), (8, 0.12)])
def test_words_in_the_chart_of_few_directions_lie_on_no_curve_and_on_no_other_words(
    mark: tuple[int, float], lang: str
) -> None:
    (place, value), end = mark, max(mark[1], 0.2)
    curve = [(0, 0.02), (1, value / 2), (place, value), (place + 2, end), (12, end)]
    chart = curves.truncation_chart(load_catalogue(lang), curve, curve, mark)
    words = boxes(chart)
    for index, (said, box) in enumerate(words):
        for other, there in words[index + 1 :]:
            assert not traces.overlap(box, there), (said, other)
    dots = nodes(chart, "circle")
    for dot in dots:
        x, y = values([dot], "cx", "cy")
        for said, box in words:
            assert not traces.overlap(box, (x - 2, y - 2, x + 2, y + 2)), said
    line = nodes(chart, "polyline")[0].get("points", "").split()
    ends = [tuple(map(float, point.split(","))) for point in line]
    for (x, y), (far, height) in pairwise(ends):
        for step in range(41):
            at = x + (far - x) * step / 40, y + (height - y) * step / 40
            for said, box in words:
                assert not traces.overlap(box, (*at, at[0] + 0.1, at[1] + 0.1)), said


def test_the_curve_of_radii_is_nowhere_above_what_is_proven() -> None:
    (curve,) = nodes(CHARTS["radii"], "polyline")
    heights = [float(point.split(",")[1]) for point in curve.get("points", "").split()]
    top, base = heights[0], heights[-1]
    assert heights == [top, *2 * [pytest.approx((top + base) / 2)], base, base]
    assert any("median" in text for text in texts(CHARTS["radii"]))
    assert "median" not in str(curves.radii_chart(EN, CURVE, None))


@pytest.mark.parametrize(
    ("margins", "ticks"),
    [
        ([14.5, -186.9], [-200, -150, -100, -50, 0, 50]),
        ([11.9, 5.9], [0, 2, 4, 6, 8, 10, 12]),
        ([-0.03], [-0.03, -0.025, -0.02, -0.015, -0.01, -0.005, 0]),
        ([0.0], [0, 0.2]),
        ([1e-300, 2e-300], [0, 5e-301, 1e-300, 1.5e-300, 2e-300]),
    ],
)
def test_the_axis_of_margins_has_round_ticks_and_zero(
    margins: list[float], ticks: list[float]
) -> None:
    assert rounded([0.0, *margins])[2] == pytest.approx(ticks, abs=0)


def test_numbers_of_lengths_do_not_cover_each_other() -> None:
    assert {"0", "1", "4"} <= set(texts(CHARTS["effect"]))
    assert "0.01" not in texts(CHARTS["effect"])
    assert len(nodes(CHARTS["effect"], "circle", "dot kind-random")) == 4


def test_bars_of_a_running_sum_follow_each_other_to_the_score() -> None:
    steps = [3.0, -1.0, 0.5]
    x = scores.running_scale([steps, [1.0]])
    ends = list(itertools.accumulate(steps, initial=0.0))
    for (start, end), step in zip(pairwise(ends), steps, strict=True):
        (bar,) = nodes(scores.running_strip(EN, x, start, step, "pos", 2), "rect")
        left, width = values([bar], "x", "width")
        assert (left, left + width) == pytest.approx(sorted((x(start), x(end))), abs=0.02)


def test_bars_of_scores_begin_at_zero_and_have_the_right_length() -> None:
    bars = nodes(CHARTS["scores"], "rect")
    assert [node.get("class") for node in bars] == ["pos strong", "neg strong", "pos"]
    first, second, third = values(bars, "width")
    assert first / third == pytest.approx(3.0, rel=0.01)
    assert second / third == pytest.approx(4.0, rel=0.01)
    assert "犬" * 40 in str(CHARTS["scores"]), "a cut name has the whole one as its tooltip"


def test_of_many_scores_the_highest_and_the_label_are_drawn() -> None:
    many = [-float(index) for index in range(30)]
    svg = str(scores.score_chart(EN, many, [f"c{index}" for index in range(30)], 0, 29))
    assert svg.count("<rect") == scores.MOST
    assert ">c29<" in svg
    assert "18 other classes, all at most −11.00" in svg


def test_bars_beside_each_other_share_a_scale() -> None:
    alone = scores.bar_chart("t", "d", [("a", 1.0)])
    beside = scores.bar_chart("t", "d", [("a", 1.0)], beside=[("b", 2.0)])
    one, half = (values(nodes(figure, "rect"), "width")[0] for figure in (alone, beside))
    assert half == pytest.approx(one / 2, rel=0.01)


def test_a_name_that_would_cover_another_one_is_left_out() -> None:
    points = [(1.0, 1.0)] * 9
    figure = traces.named_points(("t", "d"), AXES, points, [f"name {i}" for i in range(9)])
    assert len(nodes(figure, "circle")) == 9
    assert 1 <= len(nodes(figure, "text", "point-name")) <= 4
    assert not traces.overlap((0, 0, 1, 1), (1, 0, 2, 1))
    assert traces.overlap((0, 0, 1, 1), (0.5, 0.5, 2, 2))


def test_a_square_says_its_value_and_has_its_colour() -> None:
    cells = nodes(CHARTS["heat map"], "rect", "cell")
    assert len(cells) == 4
    assert cells[1][0].text == "<&> × b: −2.00"
    assert [cell.get("fill") for cell in cells[1::2]] == ["#9e0a26", "#ffffff"]


LINES = [(100, 4.0, 4.5), (200, 2.0, 3.25), (300, 1.0, 3.5)]
Curve = curves.Curve


def curves_of(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each curve in the drawing, those of the legend left out."""
    found = [
        [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in text.split())]
        for text in re.findall(r'<polyline points="([^"]*)"', svg)
    ]
    return [line for line in found if line[0][1] != curves.LEGEND]


def test_curves_of_a_study_lie_on_linear_scales() -> None:
    two = [Curve("one", ((0.0, 1.0), (5.0, 2.0), (10.0, 5.0))), Curve("two", ((2.0, 3.0),))]
    svg = curves.line_figure("title", "x", "y", two)
    ((start, middle, end),) = curves_of(svg)
    assert middle[0] == pytest.approx((start[0] + end[0]) / 2)
    assert (start[1] - end[1]) / (start[1] - middle[1]) == pytest.approx(4, abs=0.01)
    assert svg.count("<circle") == 1


def test_a_long_legend_does_not_begin_before_the_title() -> None:
    names = ["1 eigenvector", "2 eigenvectors", "8 eigenvectors", "published, other model"]
    two = [Curve(name, ((0.0, 1.0), (1.0, 2.0))) for name in names]
    svg = curves.line_figure("title", "x", "y", two)
    keys = [float(x) for x in re.findall(r'<polyline points="([^",]*),52', svg)]
    assert len(keys) == len(names)
    assert min(keys) >= curves.START


def test_a_figure_file_needs_nothing_else() -> None:
    svg = curves.line_figure("a < b & c", "x", "y", [Curve('"', ((0.0, 0.0), (1.0, 1.0)))])
    assert parse(svg)[0].text == "a < b & c"
    assert "href" not in svg


def test_the_loss_of_a_run_shows_both_curves_and_says_the_best() -> None:
    svg = curves.loss_figure(LINES)
    held_out, train = curves_of(svg)
    assert [x for x, _ in held_out] == [x for x, _ in train]
    assert held_out[1][1] > held_out[2][1] > held_out[0][1]  # lower is further down
    assert svg.count("stroke-dasharray") == 2  # the curve and its key
    assert "within 300 steps is 3.2500 nats" in svg
    assert "学習中の損失" in curves.loss_figure(LINES, "ja")
    with pytest.raises(UsageError, match="choose one of en, ja"):
        curves.loss_figure(LINES, "de")


@pytest.mark.parametrize("span", [(2013.8, 2016.2), (139.6, 139.8), (0.9991, 0.9997), (0.0, 1.0)])
def test_ticks_that_differ_read_differently(span: tuple[float, float]) -> None:
    ticks = within(*span, 5)[2]
    assert len({tick_text(tick) for tick in ticks}) == len(ticks)


def test_the_text_of_a_tick_is_the_tick() -> None:
    texts = [tick_text(value) for value in (2014.5, 0.9996, -0.5, 0.0, 1200.0)]
    assert texts == ["2,014.5", "0.9996", "−0.5", "0", "1,200"]


@pytest.mark.parametrize("number", ["−8.41\u00a0×\u00a010⁻⁴", "+12,288.5", "-0.25"])
def test_a_number_is_kept_or_left_out_whole(number: str) -> None:
    """An axis of a Japanese trace said 8.41 × 10⁻⁴ of an eigenvalue of −8.41 × 10⁻⁴."""
    text = f"固有ベクトル7の方向（λ = {number}）"
    for length in range(2, len(text)):
        short = shortened(text, length)
        assert len(short) == length
        digits = [each for each in short.replace(number, "").replace("7", "") if each.isdigit()]
        assert digits == []
    assert number in shortened(text, len(text) - 4)
