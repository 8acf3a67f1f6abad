"""A trained model as a function of a video file.

    from wholereel.inference import Predictor
    predictor = Predictor("runs/demo")
    print(predictor("video.mp4"))

The package's own preprocessing is applied; videos of any length are read a few clips at a time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wholereel.config import Clips, Views
from wholereel.errors import CheckpointError, ConfigError
from wholereel.inference.prediction import VideoPrediction
from wholereel.inference.scoring import ClipChunk, from_rows, score_clips, to_rows
from wholereel.inference.views import VideoViews, check_views, repeatable
from wholereel.media.model_input import to_model_input
from wholereel.models.package import Package, load_package
from wholereel.ops.aggregate import aggregate_scores

__all__ = [
    "Precision",
    "Predictor",
    "best_precision",
    "choose_precision",
    "combine_views",
    "find_package",
    "package_views",
    "precision_context",
]

PACKAGE_FILE = "model.json"
Precision = Literal["fp32", "bf16", "auto"]
log = logging.getLogger(__name__)


class Predictor:
    """Judges video files with a model package.

    Args:
        package: folder of a model package or of a run that holds one, or a loaded package.
        device: `None` = the first GPU where there is one, else the CPU.
        clips: other clips than the package's, e.g. `Clips(plan="contiguous", ...)` to see everything; mind that frames,
            stride and frame rate other than in training make another model of it. For plans that draw, `uniform` is
            taken.
        views: the whole protocol instead of `clips` (three crops, other aggregation).
        precision: "bf16" computes the clip model under autocast; "auto" = `best_precision`.
        fold: BatchNorm is folded into convolutions (`models.folding`); scores stay equal but for rounding.
        chunk: clips that are decoded and judged together; bounds the memory needed, does not change the result.
    Raises: CheckpointError: no package, or several. ConfigError: settings that cannot be used.
    """

    def __init__(
        self,
        package: str | Path | Package,
        *,
        device: torch.device | str | None = None,
        clips: Clips | None = None,
        views: Views | None = None,
        precision: Precision = "fp32",
        fold: bool = False,
        chunk: int = 8,
    ) -> None:
        if clips is not None and views is not None:
            raise ConfigError("give clips or views, not both: views hold clips, too")
        if chunk < 1:
            raise ConfigError(f"chunk must be at least 1, got {chunk}")
        self.package = package if isinstance(package, Package) else load_package(find_package(package))
        if self.package.task.kind == "detect":
            raise ConfigError(
                "this model judges boxes at key frames, not whole videos: `wholereel predict RUN film.mp4 --boxes "
                "boxes.csv`, in Python `evaluation.film_boxes.detect_in_film`"
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.views = views or package_views(self.package, clips)
        check_views(self.views)
        self.package.check_reads_files_alone()
        self.precision = choose_precision(precision, self.device)
        self.chunk = chunk
        self.package = self.package.folded() if fold else self.package
        self.model = self.package.video_model.eval().to(self.device)

    @classmethod
    def from_package(cls, directory: str | Path) -> Predictor:
        """The predictor of one model package with its own settings."""
        return cls(load_package(directory))

    def __repr__(self) -> str:
        return f"Predictor({self._name()}, {len(self.package.classes)} classes, {self.device})"

    def __call__(self, path: str | Path, *, start: float | None = None, end: float | None = None) -> VideoPrediction:
        """Judge a video, or the part of it between `start` and `end` seconds.

        Raises: VideoError: the file cannot be read as a video.
        """
        with VideoViews(path, self.views, start=start, end=end) as video:
            with precision_context(self.precision, self.device):
                logits = score_clips(self.model, lambda: self._chunks(video))
            views_1VK = from_rows(logits.shared_RNK, self.views.crops, memory_over=self.views.memory_over).float().cpu()
            seconds_N2, duration, truncated = video.seconds_N2, video.duration, video.truncated
        valid_1V = torch.ones(views_1VK.shape[:2], dtype=torch.bool)
        crops_NVK = views_1VK[0].unflatten(0, (-1, self.views.crops))
        return VideoPrediction(
            path=str(path),
            duration=duration,
            classes=self.package.classes,
            scores_K=combine_views(views_1VK, valid_1V, self.views, self.package)[0],
            seconds_N2=seconds_N2,
            clip_scores_NK=combine_views(
                crops_NVK, torch.ones(crops_NVK.shape[:2], dtype=torch.bool), self.views, self.package
            ),
            multi_label=self.package.task.multi_label,
            model=self._name(),
            truncated=truncated,
        )

    def _chunks(self, video: VideoViews) -> Iterator[ClipChunk]:
        crops, package = self.views.crops, self.package
        for begin in range(0, len(video), self.chunk):
            numbers = list(range(begin, min(begin + self.chunk, len(video))))
            pixels_1V = video.read(numbers)[None].to(self.device)
            order_1V = torch.tensor(numbers, device=self.device).repeat_interleave(crops)[None]
            rows = to_rows(pixels_1V, crops, memory_over=self.views.memory_over)
            clips = to_model_input(rows, mean=package.mean, std=package.std)
            order_RN = to_rows(order_1V, crops, memory_over=self.views.memory_over)
            yield ClipChunk(clips, torch.ones_like(order_RN, dtype=torch.bool), order_RN)

    def _name(self) -> str:
        return self.package.spec.name + (" + memory" if self.package.spec.memory is not None else "")


def combine_views(logits_BVK: Tensor, valid_BV: Tensor, views: Views, package: Package) -> Tensor:
    """Scores `(B, K)` of the views by the protocol's rule; the package's task where the protocol says `"task"`.

    Raises: ConfigError: a rule for one label on a model of several labels, or the other way round.
    """
    multi_label = package.task.multi_label
    legal = ("task", "sigmoid_max" if multi_label else "softmax_mean", "logits_mean")
    if views.combine not in legal:
        raise ConfigError(
            f"views.combine={views.combine!r} does not fit a model with task.multi_label={multi_label}; "
            f"use {', '.join(map(repr, legal[:-1]))} or {legal[-1]!r}"
        )
    if views.combine == "softmax_mean":
        return aggregate_scores(logits_BVK, valid_BV, "prob", multi_label=False)
    if views.combine == "sigmoid_max":  # the sigmoid is monotone: that of the largest logit is the largest
        return aggregate_scores(logits_BVK, valid_BV, "max", multi_label=True)
    aggregate = "logits" if views.combine == "logits_mean" else package.task.aggregate
    return aggregate_scores(logits_BVK, valid_BV, aggregate, multi_label=multi_label)


def best_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """The quicker precision for clips on this device, as `benchmarks/backbones.py forms` measures it; it is logged.

    CPUs that multiply bfloat16 themselves run convolutions in it about twice as quickly; others imitate it. GPUs have
    not been measured: float32.
    """
    found: Literal["fp32", "bf16"] = (
        "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"
    )
    log.info("precision on this %s: %s", device.type, found)
    return found


def choose_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What "auto" stands for on this device, and any other precision as it is."""
    return best_precision(device) if precision == "auto" else precision


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for "bf16" and "fp16" (which training alone offers, with loss scaling), nothing for "fp32".

    Raises: ConfigError: another precision.
    """
    types = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise ConfigError(f"precision={precision!r} is neither 'fp32' nor 'bf16'")
    dtype = types[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def package_views(package: Package, clips: Clips | None = None) -> Views:
    """The package's own preprocessing as a protocol: its clips, not drawn, one centre crop, the task's aggregation."""
    return Views(clips=repeatable(clips or package.clips), short_side=package.short_side, crop=package.crop)


def find_package(path: str | Path) -> Path:
    """The model package at a path: itself, its `best/` or `last/`, a run's main one, or the only one of its stages.

    Raises: CheckpointError: there is none, or there are several (they are listed).
    """
    path = Path(path)
    for folder in (path, path / _main_stage(path)):
        if (package := _package_of(folder)) is not None:
            return package
    found = [package for folder in sorted(path.glob("*/")) if (package := _package_of(folder)) is not None]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            path,
            "no model package here" if path.exists() else "no such folder",
            f"a folder with {PACKAGE_FILE}, or a run whose stages hold best/ or last/",
            "Train one, or give the folder of a stage.",
        )
    names = ", ".join(str(one) for one in found)
    raise CheckpointError(
        path, f"{len(found)} model packages here ({names})", "one", "Give the folder of the one you mean."
    )


def _package_of(stage: Path) -> Path | None:
    """A stage's package: converted ones are the folder itself, trained ones stand below it."""
    return next((one for one in (stage, stage / "best", stage / "last") if (one / PACKAGE_FILE).is_file()), None)


def _main_stage(run: Path) -> str:
    """Name of the stage that a run's recipe calls its main one; empty where there is none."""
    file = run / "recipe.json"
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["recipe"].get("main", ""))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(file, f"cannot be read ({error})", "the settings that a run writes") from error
