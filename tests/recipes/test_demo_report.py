"""The demo's report, from a run of the same stages that is small."""

from __future__ import annotations

import json
import re

import pytest

from wholereel.recipes.demo_report import write_demo_report

COMMAND = "wholereel demo --out 'runs/a & b'"


@pytest.fixture(scope="module")
def report(tiny_run, tmp_path_factory):
    """A copy of the run with its report, and what was returned."""
    out = tiny_run.copy(tmp_path_factory.mktemp("demo") / "run")
    return out, write_demo_report(out, command=COMMAND)


def test_numbers_of_the_comparison(report, tiny_run):
    out, results = report
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == results
    for stage in ("late_average", "collaborative_memory"):
        metrics = tiny_run.results[f"test_{stage}"]["metrics"]
        low, high = results[stage]["video_top1_interval_95"]
        assert results[stage]["video_top1"] == metrics["video_top1"]
        assert low <= results[stage]["video_top1"] <= high
        assert results[stage]["videos"] == 4
    assert results["ceilings"]["sum"] == pytest.approx(9 / 14)
    assert results["ceilings"]["video"] == 1.0
    assert results["command"] == COMMAND


def test_the_prediction_is_of_a_test_video(report):
    out, results = report
    prediction = dict(results["prediction"])
    video = prediction.pop("video")
    assert (out / video).is_file()
    classes = json.loads((out / "match8" / "classes.json").read_text(encoding="utf-8"))
    assert set(prediction) == set(classes)
    assert sum(prediction.values()) == pytest.approx(1.0, abs=1e-5)
    assert (out / "prediction" / "timeline.html").is_file()
    assert json.loads((out / "prediction" / "timeline.json").read_text(encoding="utf-8"))["classes"] == classes


def test_the_page_is_complete_and_loads_nothing(report):
    out, _ = report
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    for words in ("late averaging", "collaborative memory", "9/14", "19/28", "runs/a &amp; b"):
        assert words in page
    assert re.search(r"64\.3\s?%|0\.643", page), "the ceiling of averaging, 9/14, is shown as a number"
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.findall(r"""url\(|@import|https?://(?!www\.w3\.org/2000/svg)""", page)
