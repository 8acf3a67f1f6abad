"""The report of an experiment as one HTML file: measured numbers beside ceilings, curves, examples, the command.

Everything is read from the files that runs and evaluations leave behind (`metrics.jsonl`, `results.json`), so that a
report can be written again at any time, for any set of runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholereel.evaluation.intervals import mean_interval
from wholereel.inference.prediction import VideoPrediction
from wholereel.media.video_reader import VideoReader
from wholereel.report.charts import Bar, Mark, Series, bar_chart, line_chart
from wholereel.report.grids import confusion_map
from wholereel.report.page import (
    cards,
    code,
    figure,
    film_strip,
    jpeg_image,
    note,
    page,
    paragraph,
    section,
    side_by_side,
    table,
    write_page,
)
from wholereel.report.run_files import curve, read_confusion, read_metrics, read_results
from wholereel.report.timeline import timeline_sections

__all__ = ["Example", "System", "write_run_report"]


@dataclass(frozen=True)
class System:
    """One thing that is compared, such as a model with and one without memory.

    Args:
        name: as in the legends.
        runs: folders of training stages (with `metrics.jsonl`), one a seed; may be empty.
        results: folders of evaluation stages (with `results.json`), one a seed; may be empty.
    """

    name: str
    runs: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Example:
    """A video of the data set, shown as frames at even distances."""

    path: Path
    caption: str
    frames: int = 8


def write_run_report(
    path: str | Path,
    *,
    title: str,
    summary: str,
    systems: Sequence[System],
    command: str,
    metric: str = "video_top1",
    ceilings: Mapping[str, float] | None = None,
    examples: Sequence[Example] = (),
    timeline: VideoPrediction | None = None,
    remarks: Sequence[str] = (),
) -> Path:
    """Write the page.

    Args:
        path: the HTML file.
        title, summary: plain text at the top.
        systems: what is compared; at least one with results or runs.
        command: what made all this, as typed.
        metric: name in `results.json` (and of the validation curves).
        ceilings: levels known in closed form, by name, in the unit of the metric.
        examples: videos whose frames are shown.
        timeline: prediction to show clip by clip.
        remarks: limits of the numbers, shown beside them.
    Returns: the path.
    Raises: DataError: a file of a run is missing or damaged. ValueError: nothing to report.
    """
    if not any(system.runs or system.results for system in systems):
        raise ValueError("a report needs at least one system with runs or results")
    marks = [Mark(name, value) for name, value in (ceilings or {}).items()]
    results = {system.name: [read_results(folder) for folder in system.results] for system in systems}
    sections = [
        *_numbers(systems, results, metric, marks, remarks),
        *_curves(systems, metric, marks),
        *_examples(examples),
        *(timeline_sections(timeline) if timeline is not None else []),
        *_confusions(systems),
        section("How to make this again", code(command), *_protocols(results)),
    ]
    footer = "Written by wholereel from the files of the run. This page loads nothing from elsewhere."
    return write_page(Path(path), page(title, sections, subtitle=summary, footer=footer))


def bar_of(name: str, results: Sequence[Mapping[str, Any]], metric: str) -> Bar:
    """The bar of a system: of one result with its own interval, of several their mean with the interval over runs.

    Raises: ValueError: no results, or one without the metric.
    """
    values = [_metric(one, metric) for one in results]
    videos = {one["evaluated"] for one in results}
    count = f"n = {min(videos)}" if len(videos) == 1 else f"n = {min(videos)} to {max(videos)}"
    if len(values) > 1:
        low, high = mean_interval(values)
        # Student's interval knows nothing of the range of a share
        return Bar(name, math.fsum(values) / len(values), max(0.0, low), min(1.0, high), f"{count}, {len(values)} runs")
    own = results[0]["intervals_95"].get(metric, (None, None))
    return Bar(name, values[0], own[0], own[1], count)


def _metric(results: Mapping[str, Any], metric: str) -> float:
    value = results["metrics"].get(metric, math.nan)
    if metric not in results["metrics"]:
        raise ValueError(f"no metric {metric!r} in the results; there are {sorted(results['metrics'])}")
    return math.nan if value is None else float(value)


def _numbers(
    systems: Sequence[System],
    results: Mapping[str, list[dict[str, Any]]],
    metric: str,
    marks: Sequence[Mark],
    remarks: Sequence[str],
) -> list[str]:
    bars = [bar_of(system.name, results[system.name], metric) for system in systems if results[system.name]]
    if not bars:
        return []
    head = cards([(f"{bar.value:.3f}", bar.name, f"{_interval(bar)} {bar.note}".strip()) for bar in bars])
    chart = bar_chart(
        bars, title=f"{_words(metric)} on the test videos", x_label=_words(metric), marks=marks, x_range=(0.0, 1.0)
    )
    caption = "Error bars: 95 % intervals (Wilson over videos for one run, Student over runs for several)."
    caption += " Dashed lines: ceilings known in closed form." if marks else ""
    parts = [head, figure(chart, caption), _table(systems, results, metric, bars)]
    if marks:
        parts.append(table(["ceiling", _words(metric)], [[mark.name, f"{mark.value:.4f}"] for mark in marks]))
    return [section("What came out", *parts, *(note(words) for words in remarks))]


def _table(
    systems: Sequence[System], results: Mapping[str, list[dict[str, Any]]], metric: str, bars: Sequence[Bar]
) -> str:
    groups = [results[system.name] for system in systems if results[system.name]]
    others = sorted({name for group in groups for one in group for name in one["metrics"]} - {metric})
    rows = [
        [_words(metric), *(_number(group, metric) for group in groups)],
        ["95 % interval", *map(_interval, bars)],
        *([_words(name), *(_number(group, name) for group in groups)] for name in others),
        ["videos evaluated", *map(_evaluated, groups)],
        ["runs", *(str(len(group)) for group in groups)],
    ]
    return table(["", *(bar.name for bar in bars)], rows, caption="All numbers; means where there are several runs.")


def _curves(systems: Sequence[System], metric: str, marks: Sequence[Mark]) -> list[str]:
    runs = {system.name: [read_metrics(folder) for folder in system.runs] for system in systems if system.runs}
    charts = []
    for title, kind, key, levels in (
        ("Training loss", "train", "loss", ()),
        ("Validation loss", "validation", "loss", ()),
        (f"Validation {_words(metric)}", "validation", metric, marks),
    ):
        series = [one for name, logs in runs.items() if (one := _series(name, logs, kind, key)) is not None]
        if series:
            y_range = (0.0, 1.0) if key == metric else None
            chart = line_chart(series, title=title, x_label="epoch", y_label=_words(key), marks=levels, y_range=y_range)
            charts.append(figure(chart))
    words = (
        "Lines are means over runs, bands reach from the lowest to the highest run."
        if any(len(logs) > 1 for logs in runs.values())
        else ""
    )
    return [section("Learning curves", *charts, *([paragraph(words)] if words else []))] if charts else []


def _series(name: str, logs: Sequence[Sequence[Mapping[str, Any]]], kind: str, key: str) -> Series | None:
    curves = [points for log in logs if (points := curve(log, kind, key))]
    epochs = sorted({epoch for points in curves for epoch in points})
    if not epochs:
        return None
    columns = [[points[epoch] for points in curves if epoch in points] for epoch in epochs]
    means = [math.fsum(column) / len(column) for column in columns]
    if len(curves) == 1:
        return Series(name, epochs, means)
    return Series(name, epochs, means, [min(column) for column in columns], [max(column) for column in columns])


def _examples(examples: Sequence[Example]) -> list[str]:
    parts = []
    for example in examples:
        with VideoReader(example.path, size=96) as reader:
            last = reader.frame_count - 1
            indices = [round(last * (number + 0.5) / example.frames) for number in range(example.frames)]
            frames = reader.read(indices=indices)
        pictures = [
            (jpeg_image(pixels_CHW, alt=f"frame at {second:.1f} seconds"), f"{second:.1f} s")
            for pixels_CHW, second in zip(frames.pixels_TCHW, frames.seconds_T.tolist(), strict=True)
        ]
        parts += [paragraph(example.caption), film_strip(pictures)]
    return [section("What the videos look like", *parts)] if parts else []


def _confusions(systems: Sequence[System]) -> list[str]:
    charts = []
    for system in systems:
        for folder in system.results[:1]:
            found = read_confusion(folder)
            if found is not None:
                classes, counts = found
                charts.append(figure(confusion_map(counts, classes, title=system.name)))
    return [section("What is taken for what", side_by_side(*charts))] if charts else []


def _protocols(results: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    rows = [[name, str(group[0]["protocol"].get("text", ""))] for name, group in results.items() if group]
    return [table(["", "protocol"], rows)] if rows else []


def _number(results: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [one["metrics"][name] for one in results if one["metrics"].get(name) is not None]
    return f"{math.fsum(values) / len(values):.4f}" if values else "–"


def _evaluated(results: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({f"{one['evaluated']} of {one['samples']}" for one in results}))


def _interval(bar: Bar) -> str:
    return f"[{bar.low:.3f}, {bar.high:.3f}]" if bar.low is not None and bar.high is not None else ""


def _words(metric: str) -> str:
    return {
        "video_top1": "video top-1",
        "video_top5": "video top-5",
        "video_mean_class": "mean class accuracy",
        "clip_top1_shared": "clip top-1, shared memory",
        "clip_top1_alone": "clip top-1, alone",
        "video_map": "mAP",
    }.get(metric, metric.replace("_", " "))
