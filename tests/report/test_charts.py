"""Charts are well-formed, place what they show where it belongs, escape text, and refuse what cannot be drawn."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from wholereel.report.charts import Bar, Mark, Series, bar_chart, line_chart
from wholereel.report.grids import confusion_map, timeline_strip
from wholereel.report.svg import Scale, format_number, ticks

SVG = "{http://www.w3.org/2000/svg}"


def parsed(markup: str) -> ET.Element:
    assert "http" not in markup.replace("http://www.w3.org/2000/svg", "")  # nothing is loaded from elsewhere
    return ET.fromstring(markup)


def words(root: ET.Element) -> list[str]:
    return [element.text for element in root.iter(f"{SVG}text")]


def inside(root: ET.Element) -> bool:
    """All coordinates lie inside the view box."""
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    xs = [float(e.attrib[k]) for e in root.iter() for k in ("x", "x1", "x2", "cx") if k in e.attrib]
    ys = [float(e.attrib[k]) for e in root.iter() for k in ("y", "y1", "y2", "cy") if k in e.attrib]
    return 0 <= min(xs) <= max(xs) <= width and 0 <= min(ys) <= max(ys) <= height


def test_line_chart_draws_lines_bands_gaps_and_levels():
    series = [
        Series("with <memory>", [0, 1, 2, 3], [0.5, math.nan, 0.8, 0.9], [0.4, 0.5, 0.7, 0.85], [0.6, 0.7, 0.9, 0.95]),
        Series("without", [0, 1, 2, 3], [0.5, 0.55, 0.6, 0.6]),
    ]
    root = parsed(
        line_chart(series, title="A & B", x_label="epoch", y_label="accuracy", marks=[Mark("ceiling", 0.643)])
    )
    assert {"A & B", "with <memory>", "without", "epoch", "accuracy", "ceiling"} <= set(words(root))
    paths = [path.attrib["d"] for path in root.iter(f"{SVG}path")]
    assert [path.count("M") for path in paths] == [2, 1]  # the value that is no number is a gap
    assert len(list(root.iter(f"{SVG}polygon"))) == 1
    assert len(list(root.iter(f"{SVG}circle"))) == 7
    assert inside(root)


def test_line_chart_names_places_of_its_axis():
    series = [Series("a", [0, 1, 2], [0.1, 0.5, 0.7])]
    root = parsed(line_chart(series, title="t", x_label="x", y_label="y", x_names={0: "one", 1: "two", 2: "four"}))
    assert {"one", "two", "four"} <= set(words(root))
    assert "2" not in words(root)
    assert inside(root)


def test_line_chart_of_one_point_and_of_none():
    assert inside(parsed(line_chart([Series("a", [3], [0.5])], title="t", x_label="x", y_label="y")))
    with pytest.raises(ValueError, match="'t' has no finite point"):
        line_chart([Series("a", [1], [math.nan])], title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="series 'a': x, y, low, high have lengths 2, 1, 0, 0"):
        Series("a", [1, 2], [1])


def test_bar_chart_has_bars_of_the_right_length():
    bars = [Bar("memory", 0.8, 0.75, 0.84, "n = 500"), Bar("average", 0.4), Bar("missing", math.nan)]
    root = parsed(
        bar_chart(bars, title="t", x_label="accuracy", marks=[Mark("a", 0.5), Mark("b", 0.52)], x_range=(0, 1))
    )
    lengths = [float(rect.attrib["width"]) for rect in root.iter(f"{SVG}rect")]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=0.2)
    assert len(lengths) == 2
    assert {"0.800  n = 500", "not measured", "a 0.5", "b 0.52"} <= {text.strip() for text in words(root)}
    names = {text.text: text for text in root.iter(f"{SVG}text")}
    assert names["a 0.5"].attrib["y"] != names["b 0.52"].attrib["y"]  # they would overlap on one line
    assert inside(root)
    with pytest.raises(ValueError, match="no bars"):
        bar_chart([], title="t", x_label="x")


def test_confusion_map_of_few_and_of_many_classes():
    root = parsed(confusion_map([[3, 1], [0, 4]], ["left", "right"], title="t"))
    tips = [title.text for title in root.iter(f"{SVG}title")]
    assert tips == ["left → left: 3 of 4", "left → right: 1 of 4", "right → right: 4 of 4"]
    assert {"3", "1", "4"} <= set(words(root))
    many = 120
    counts = [[int(row == column) for column in range(many)] for row in range(many)]
    assert len(words(parsed(confusion_map(counts, [f"class {i}" for i in range(many)], title="t")))) == 2
    with pytest.raises(ValueError, match="2 classes needs 2 x 2"):
        confusion_map([[1]], ["a", "b"], title="t")


def test_timeline_strip_places_clips_in_time():
    root = parsed(timeline_strip([(0, 2), (2, 4), (8, 10)], [("a", [0.0, 0.5, 1.0], 0.5)], duration=10, title="t"))
    tall = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None][1::2]
    heights = [float(rect.attrib["height"]) for rect in tall]
    assert heights[0] == 0
    assert heights[2] == pytest.approx(2 * heights[1], abs=0.2)
    places = [float(rect.attrib["x"]) for rect in tall]
    assert places[2] - places[1] == pytest.approx(3 * (places[1] - places[0]), abs=0.3)
    assert "0.500" in words(root)
    assert inside(root)
    with pytest.raises(ValueError, match="3 scores in every row"):
        timeline_strip([(0, 2), (2, 4), (8, 10)], [("a", [0.0], 0.5)], duration=10, title="t")


def test_ticks_are_round_numbers():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.3, 12, 4) == [0, 5, 10]
    assert ticks(0.61, 0.64, 3) == [0.61, 0.62, 0.63, 0.64]
    for low, high in ((1.0, 1.0), (0.0, math.inf)):
        with pytest.raises(ValueError, match="finite range"):
            ticks(low, high)
    assert [format_number(value) for value in (1234.0, 0.6429, 1e7, math.nan)] == ["1,234", "0.643", "1e+07", "–"]
    assert Scale(0, 10, 100, 0)(5) == 50
