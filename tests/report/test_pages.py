"""Pages: self-contained, complete, written from real files; timeline and run report end to end on encoded videos."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from tests.inference.builders import moving_square, package
from wholereel import config
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import DataError, MissingExtraError, VideoError
from wholereel.evaluation.evaluate import evaluate
from wholereel.inference import Predictor, VideoPrediction
from wholereel.report import timeline
from wholereel.report.page import jpeg_image, page, section, table
from wholereel.report.run_files import curve, read_confusion, read_metrics, read_results
from wholereel.report.run_report import Example, System, bar_of, write_run_report
from wholereel.report.timeline import write_timeline

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Tags must nest, and nothing may be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images = 0
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href"):
                assert value.startswith("data:image/jpeg;base64,")
        self.images += tag == "img"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def checked(markup: str) -> Checker:
    checker = Checker()
    checker.feed(markup)
    assert checker.open == []
    assert not re.findall(r"""(?:url\(|@import|https?://(?!www\.w3\.org/2000/svg))""", markup)
    return checker


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four videos, a package, its evaluation, and a training log."""
    root = tmp_path_factory.mktemp("run")
    for number in range(4):
        name = "right" if number % 2 else "left"
        moving_square(root / "data" / name / f"<v{number}>.mp4", frames=30, right=bool(number % 2), seed=number)
    package(root / "fit" / "best", config.Memory())
    views = config.Views(config.Clips("uniform", 3, 4, 2), short_side=36, crop=32)
    evaluate(root / "fit", read_manifest(root / "data"), views, workers=0, device="cpu", out=root / "test")
    rows = [{"kind": "train", "update": i, "epoch": 1 + i // 3, "loss": 1.0 / (i + 1)} for i in range(6)]
    rows += [{"kind": "validation", "update": 6, "epoch": 2.0, "video_top1": 0.75}]
    (root / "fit" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"kind": "tr')
    return root


@pytest.fixture(scope="module")
def prediction(run):
    return Predictor(run / "fit", device="cpu")(run / "data" / "left" / "<v0>.mp4")


def test_timeline_files(prediction, tmp_path):
    pytest.importorskip("matplotlib")
    written = write_timeline(prediction, tmp_path / "out")
    assert set(written) == {"json", "html", "png"}
    assert json.loads(written["json"].read_text()) == prediction.to_dict()
    seen = checked(written["html"].read_text(encoding="utf-8"))
    assert seen.images == 3  # one a clip
    assert "<v0>.mp4" in seen.words
    assert written["png"].read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "timeline.html",
        "timeline.json",
        "timeline.png",
    ]


def test_timeline_of_many_clips_shows_some_pictures(prediction, tmp_path):
    clips = 100
    begins = torch.linspace(0, 2.9, clips, dtype=torch.float64)
    long = VideoPrediction(
        prediction.path, 3.0, prediction.classes, prediction.scores_K,
        torch.stack([begins, begins + 0.1], dim=1), prediction.clip_scores_NK[:1].expand(clips, -1),
    )  # fmt: skip
    written = write_timeline(long, tmp_path, png=False)
    assert checked(written["html"].read_text(encoding="utf-8")).images == timeline.FILM
    assert "png" not in written


def test_timeline_says_that_a_file_is_cut_off(prediction, tmp_path):
    for truncated in (True, False):
        page = write_timeline(replace(prediction, truncated=truncated), tmp_path, png=False)["html"]
        assert ("The file is cut off: " in page.read_text(encoding="utf-8")) is truncated


def test_timeline_errors(prediction, tmp_path, monkeypatch):
    gone = VideoPrediction(
        str(tmp_path / "gone.mp4"), 3.0, prediction.classes, prediction.scores_K, prediction.seconds_N2,
        prediction.clip_scores_NK,
    )  # fmt: skip
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        write_timeline(gone, tmp_path, png=False)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wholereel\[plots\]'"):
        write_timeline(prediction, tmp_path, html=False)


def test_run_report_is_complete(run, prediction, tmp_path):
    systems = [System("memory", (run / "fit",), (run / "test",)), System("twice", (), (run / "test", run / "test"))]
    path = write_run_report(
        tmp_path / "report.html",
        title="A <title>",
        summary="What it is about.",
        systems=systems,
        command="wholereel demo --out runs/demo",
        ceilings={"any sum over clips": 9 / 14},
        examples=[Example(run / "data" / "left" / "<v0>.mp4", "left & so on", frames=4)],
        timeline=prediction,
        remarks=["One seed only."],
    )
    seen = checked(path.read_text(encoding="utf-8"))
    text = "\n".join(seen.words)
    for words in (
        "A <title>", "What it is about.", "wholereel demo --out runs/demo", "One seed only.", "left & so on", "0.6429",
        "4 of 4", "Training loss", "Validation video top-1", "clip top-1, alone", "any sum over clips 0.643", "3 clips",
    ):  # fmt: skip
        assert words in text, words
    assert seen.images == 4 + 3
    assert not list(tmp_path.glob(".writing*"))


def test_report_needs_something_to_report(run, tmp_path):
    with pytest.raises(ValueError, match="at least one system"):
        write_run_report(tmp_path / "r.html", title="t", summary="", systems=[System("a")], command="")
    with pytest.raises(DataError, match=r"results.json: no such file, expected an evaluation's result"):
        write_run_report(tmp_path / "r.html", title="t", summary="", systems=[System("a", (), (tmp_path,))], command="")
    with pytest.raises(ValueError, match="no metric 'speed'"):
        bar_of("a", [read_results(run / "test")], "speed")


def test_run_files(run, tmp_path):
    rows = read_metrics(run / "fit")  # the half-written last line is dropped
    assert len(rows) == 7
    assert curve(rows, "train", "loss") == pytest.approx(
        {1.0: (1 + 1 / 2 + 1 / 3) / 3, 2.0: (1 / 4 + 1 / 5 + 1 / 6) / 3}
    )
    assert curve([*rows, {**rows[0], "loss": 4.0}], "train", "loss")[1.0] == pytest.approx((4 + 1 / 2 + 1 / 3) / 3)
    assert curve(rows, "validation", "loss") == {}
    classes, counts = read_confusion(run / "test")
    assert classes == ["left", "right"]
    assert sum(map(sum, counts)) == 4
    assert read_confusion(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text('{"kind": \n{"kind": "train"}\n')
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read_metrics(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        read_results(tmp_path)


def test_bars_carry_their_intervals():
    one = {"metrics": {"video_top1": 0.9}, "intervals_95": {"video_top1": [0.8, 0.95]}, "evaluated": 50}
    bar = bar_of("a", [one], "video_top1")
    assert (bar.value, bar.low, bar.high, bar.note) == (0.9, 0.8, 0.95, "n = 50")
    several = [{**one, "metrics": {"video_top1": value}} for value in (0.9, 1.0)]
    bar = bar_of("a", several, "video_top1")
    assert bar.value == pytest.approx(0.95)
    assert (bar.low, bar.high) == pytest.approx((0.95 - 12.706 * 0.05, 1.0))  # a share is never above one
    assert bar.note == "n = 50, 2 runs"


def test_text_is_escaped_and_tables_are_checked():
    markup = page("<script>", [section("a & b", table(["x"], [["<b>"], ["1.5"]]))], subtitle='"', footer="<i>")
    assert {"<script>", "a & b", "<b>", "<i>"} <= set(checked(markup).words)
    assert 'class="number"' not in markup  # one cell of the column is text
    with pytest.raises(ValueError, match="has 1 cells, the header 2"):
        table(["a", "b"], [["1"]])
    image = jpeg_image(torch.zeros(3, 8, 8, dtype=torch.uint8), alt='a "quote"', width=40)
    assert checked(page("t", [image])).images == 1
    assert 'alt="a &quot;quote&quot;" width="40"' in image
