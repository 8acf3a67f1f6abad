"""Timeline of a video: what the model says about each clip, over time, and about the whole (HTML, PNG, JSON).

Not here: the prediction itself (`inference/`), the chart (`grids.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from wholereel.datasets.atomic_files import write_file, write_text_file
from wholereel.errors import import_extra
from wholereel.inference.prediction import CUT_OFF, VideoPrediction
from wholereel.media.video_reader import VideoReader
from wholereel.report.grids import timeline_strip
from wholereel.report.page import cards, figure, film_strip, jpeg_image, page, section, table, write_page

__all__ = ["timeline_sections", "write_timeline"]

ROWS = 5  # classes shown
FILM = 24  # most pictures shown; a long video's clips are thinned out evenly


def write_timeline(
    prediction: VideoPrediction, out_dir: str | Path, *, html: bool = True, png: bool = True
) -> dict[str, Path]:
    """Write `timeline.json`, and on request `timeline.html` (one self-contained file) and `timeline.png`.

    Args:
        prediction: of a file that still lies at `prediction.path` (the pictures of the page are read from it).
        out_dir: folder, made where missing.
        html, png: which of the two to write; the PNG needs the extra `plots`.
    Returns: the written paths by kind: "json", "html", "png".
    Raises: VideoError: the video cannot be read. MissingExtraError: `png` without matplotlib.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    written = {"json": out / "timeline.json"}
    write_text_file(written["json"], prediction.to_json(indent=1) + "\n")
    if html:
        written["html"] = write_page(out / "timeline.html", _page(prediction))
    if png:
        written["png"] = _write_png(prediction, out / "timeline.png")
    return written


def timeline_sections(prediction: VideoPrediction) -> list[str]:
    """The sections of the page, to be embedded in a larger one."""
    rows = _rows(prediction)
    strip = timeline_strip(
        [(begin, end) for begin, end in prediction.seconds_N2.tolist()],
        [(name, clips_N.tolist(), score) for name, clips_N, score in rows],
        duration=prediction.duration,
        title="Scores over time",
    )
    shared = "Each column is a clip, as high as the class's score; at the right stands the score of the whole video."
    shared += f" {CUT_OFF}" if prediction.truncated else ""
    return [
        section("What the model sees when", figure(strip, shared), film_strip(_pictures(prediction))),
        section(
            "Best classes",
            table(
                ["class", "score of the video", "highest clip", "mean of clips"],
                [
                    [name, f"{score:.3f}", f"{clips_N.max():.3f}", f"{clips_N.mean():.3f}"]
                    for name, clips_N, score in rows
                ],
            ),
        ),
    ]


def _page(prediction: VideoPrediction) -> str:
    best, score = prediction.top(1)[0]
    head = cards(
        [
            (best, f"score {score:.3f}", "whole video"),
            (f"{prediction.duration:.1f} s", "duration", Path(prediction.path).name),
            (str(len(prediction.seconds_N2)), "clips", _clip_words(prediction)),
        ]
    )
    name = Path(prediction.path).name
    return page(
        name,
        [f"<section>{head}</section>", *timeline_sections(prediction)],
        subtitle=f"Timeline of a whole video, read by {prediction.model or 'a video model'}",
        footer="Written by wholereel. This page loads nothing from elsewhere.",
    )


def _clip_words(prediction: VideoPrediction) -> str:
    lengths_N = prediction.seconds_N2[:, 1] - prediction.seconds_N2[:, 0]
    return f"{lengths_N.median():.1f} s each" if len(lengths_N) else ""


def _rows(prediction: VideoPrediction) -> list[tuple[str, Tensor, float]]:
    names = list(prediction.classes)
    return [
        (name, prediction.clip_scores_NK[:, names.index(name)], score)
        for name, score in prediction.top(min(ROWS, len(names)))
    ]


def _pictures(prediction: VideoPrediction) -> list[tuple[str, str]]:
    """The middle frame of each clip (thinned out evenly) and the clip's best class."""
    count = len(prediction.seconds_N2)
    chosen = torch.linspace(0, count - 1, min(FILM, count), dtype=torch.float64).round().long().tolist()
    middles = prediction.seconds_N2.mean(1)[chosen]
    with VideoReader(prediction.path, size=96) as reader:
        frames = reader.read(seconds=middles)
    pictures = []
    for index, middle, pixels_CHW in zip(chosen, middles.tolist(), frames.pixels_TCHW, strict=True):
        score, label = prediction.clip_scores_NK[index].max(0)
        name = prediction.classes[int(label)]
        image = jpeg_image(pixels_CHW, alt=f"frame at {middle:.1f} seconds")
        pictures.append((image, f"{middle:.1f} s\n{name} {float(score):.2f}"))
    return pictures


def _write_png(prediction: VideoPrediction, path: Path) -> Path:
    purpose = "drawing a timeline as PNG"
    figure_module = import_extra("matplotlib.figure", extra="plots", purpose=purpose)
    rows = _rows(prediction)
    drawing = figure_module.Figure(figsize=(10, 1.2 + 0.75 * len(rows)), layout="constrained")
    axes = drawing.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    begins_N, ends_N = prediction.seconds_N2[:, 0].tolist(), prediction.seconds_N2[:, 1].tolist()
    widths = [end - begin for begin, end in zip(begins_N, ends_N, strict=True)]
    for number, (axis, (name, clips_N, score)) in enumerate(zip(axes, rows, strict=True)):
        axis.bar(
            begins_N, clips_N.tolist(), width=widths, align="edge", color=f"C{number}", alpha=0.8, edgecolor="white"
        )
        axis.axhline(score, color="0.25", linewidth=1, linestyle="--")
        axis.set(ylim=(0, 1), yticks=(0, 1), xlim=(0, prediction.duration))
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.text(1.01, score, f"{score:.2f}", transform=axis.get_yaxis_transform(), va="center", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds (dashed: score of the whole video)")
    drawing.suptitle(Path(prediction.path).name, fontsize=11)
    write_file(path, lambda file: drawing.savefig(file, dpi=150, format="png", metadata={"Software": None}))
    return path
