"""`wholereel predict`: classes of video files, with a timeline of each."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from wholereel.cli.launch import torch_device
from wholereel.errors import ConfigError, DataError

if TYPE_CHECKING:
    from wholereel.evaluation.film_boxes import FilmDetections
    from wholereel.inference.prediction import VideoPrediction

__all__ = ["predict"]


def predict(
    run: Annotated[Path, arg(metavar="RUN")],
    videos: Annotated[tuple[Path, ...], Positional, arg(metavar="VIDEO ...")],
    /,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    top: int = 5,
    json: bool = False,
    boxes: Annotated[Path | None, arg(metavar="FILE")] = None,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    fold: bool = False,
    device: Annotated[str, arg(metavar="auto|cpu|cuda")] = "auto",
) -> int:
    """Print the top classes of each video and write its timeline (HTML, PNG, JSON).

    Args:
        run: Run directory, one of its stages, or a model package.
        videos: Files. One that cannot be read is reported, the others go on; the exit code is then 2.
        out: Where the timelines go, one folder a video; predictions/ in the run where not given.
        top: Number of classes to print.
        json: Print one JSON object a video instead.
        boxes: Table of people's boxes, video,timestamp,x1,y1,x2,y2,,score as AVA has it, for models that judge boxes:
            what they do is written as detections.csv.
        precision: bf16 computes the network under autocast; auto: on CPUs that multiply bfloat16 themselves.
        fold: Fold BatchNorm into the convolutions in front of it: a little quicker, scores differ by rounding.
        device: Where the model runs.
    """
    from wholereel.inference.predict_in_order import predict_in_order
    from wholereel.inference.predictor import Predictor, find_package
    from wholereel.models.package import load_package

    if not videos:
        raise ConfigError("predict needs at least one video file: wholereel predict RUN video.mp4")
    if top < 1:
        raise ConfigError(f"--top {top}: expected 1 or more.")
    folder = out or run / "predictions"
    if boxes is not None:
        return _detect(run, videos, boxes, folder, top, json, precision, fold, torch_device(device))
    package, place = load_package(find_package(run)), torch_device(device)
    settings: dict[str, Any] = {"device": place, "precision": precision, "fold": fold}
    predictor: Callable[[Path], VideoPrediction] = (
        Predictor(package, **settings) if package.streams is None else partial(predict_in_order, package, **settings)
    )
    failed = 0
    for video, name in zip(videos, _folder_names(videos), strict=True):
        try:
            prediction = predictor(video)
        except DataError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        written = _write(prediction, folder / name)
        print(prediction.to_json() if json else _lines(prediction, top, written), flush=True)
    return 2 if failed else 0


def _detect(
    run: Path,
    videos: Sequence[Path],
    boxes: Path,
    folder: Path,
    top: int,
    json: bool,
    precision: Literal["fp32", "bf16", "auto"],
    fold: bool,
    device: str,
) -> int:
    """What the people in a table of boxes do."""
    import torch

    from wholereel.datasets.atomic_files import write_text_file
    from wholereel.evaluation.film_boxes import detect_in_film
    from wholereel.inference.predictor import choose_precision, find_package
    from wholereel.models.package import load_package

    package = load_package(find_package(run))
    package = package.folded() if fold else package
    chosen = choose_precision(precision, torch.device(device))
    failed = 0
    for video, name in zip(videos, _folder_names(videos), strict=True):
        try:
            found = detect_in_film(package, video, boxes, device=device, precision=chosen)
        except DataError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_text_file(folder / name / "detections.csv", found.csv())
        print(found.to_json() if json else _box_lines(found, top, folder / name / "detections.csv"), flush=True)
    return 2 if failed else 0


def _box_lines(found: FilmDetections, top: int, written: Path) -> str:
    boxes = sum(len(record.boxes) for record in found.records)
    lines = [f"{found.path}: {len(found.records)} key frames, {boxes} boxes"]
    for record in found.records:
        for number, scores in enumerate(record.scores):
            order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top]
            named = ", ".join(f"{found.classes[index]} {scores[index]:.2f}" for index in order)
            lines.append(f"  {record.seconds:8.2f} s  box {number}: {named}")
    lines += [f"  failed: {name}: {reason}" for name, reason in found.unread]
    return "\n".join([*lines, f"  {written}"])


def _write(prediction: VideoPrediction, folder: Path) -> dict[str, Path]:
    from wholereel.report.timeline import write_timeline

    has_plots = importlib.util.find_spec("matplotlib") is not None
    if not has_plots:
        print("note: no PNG without matplotlib (pip install 'wholereel[plots]')", file=sys.stderr)
    return write_timeline(prediction, folder, png=has_plots)


def _folder_names(videos: Sequence[Path]) -> list[str]:
    """A folder for each video: its stem, numbered from the second of the same name on."""
    names: list[str] = []
    for video in videos:
        name, number = video.stem, 1
        while name in names:
            number += 1
            name = f"{video.stem}-{number}"
        names.append(name)
    return names


def _lines(prediction: VideoPrediction, top: int, written: Mapping[str, Path]) -> str:
    from wholereel.inference.prediction import CUT_OFF

    best = prediction.top(top)
    width = max(len(name) for name, _ in best)
    lines = [f"{prediction.path}: {prediction.duration:.1f} s, {len(prediction.seconds_N2)} clips"]
    lines += [f"  {CUT_OFF}"] if prediction.truncated else []
    lines += [f"  {name:<{width}}  {score:.3f}" for name, score in best]
    lines += [f"  {written.get('html', written['json'])}"]
    return "\n".join(lines)
