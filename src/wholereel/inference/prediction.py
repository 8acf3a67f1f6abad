"""What a model says about a whole video, and about each of its clips.

Extra axes: K classes. The axis `2` of `seconds_N2` is begin and end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["CUT_OFF", "VideoPrediction"]

CUT_OFF = "The file is cut off: the last frame that decodes stands in for the missing ones."


@dataclass(frozen=True)
class VideoPrediction:
    """Scores of one video; `print` shows the best classes.

    Args:
        path: the file.
        duration: length of the video in seconds.
        classes: names of the K classes.
        scores_K: float32 probabilities of the whole video, on the CPU.
        seconds_N2: float64 begin and end of each clip that was read.
        clip_scores_NK: float32 probabilities of each clip, given all clips of the video where the model has a memory.
        multi_label: the classes do not exclude each other; scores do not sum to 1.
        model: name of the clip model, with "+ memory" where it has one.
        truncated: the file is cut off, and clips were read behind its last frame, which stands in for missing ones.
    """

    path: str
    duration: float
    classes: tuple[str, ...]
    scores_K: Tensor
    seconds_N2: Tensor
    clip_scores_NK: Tensor
    multi_label: bool = False
    model: str = ""
    truncated: bool = False

    def __post_init__(self) -> None:
        classes, clips = len(self.classes), self.seconds_N2.shape[0]
        if self.scores_K.shape != (classes,) or self.clip_scores_NK.shape != (clips, classes):
            raise ValueError(
                f"VideoPrediction of {classes} classes and {clips} clips got scores {tuple(self.scores_K.shape)} "
                f"and clip scores {tuple(self.clip_scores_NK.shape)}"
            )

    @property
    def label(self) -> str:
        """The best class."""
        return self.classes[int(self.scores_K.argmax())]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The best classes with their scores, best first; equal scores in the order of the classes.

        Raises: ValueError: count < 1.
        """
        if count < 1:
            raise ValueError(f"top needs count >= 1, got {count}")
        order = self.scores_K.sort(descending=True, stable=True).indices[:count].tolist()
        return [(self.classes[index], float(self.scores_K[index])) for index in order]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and text, ready for JSON; scores rounded to 6 decimals."""
        return {
            "path": self.path,
            "duration": round(self.duration, 6),
            "truncated": self.truncated,
            "model": self.model,
            "multi_label": self.multi_label,
            "label": None if self.multi_label else self.label,
            "classes": list(self.classes),
            "scores": _rounded(self.scores_K),
            "clips": [
                {"begin": begin, "end": end, "scores": scores}
                for (begin, end), scores in zip(_rounded(self.seconds_N2), _rounded(self.clip_scores_NK), strict=True)
            ],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        best = self.top(min(5, len(self.classes)))
        width = max(len(name) for name, _ in best)
        lines = [f"{self.path} ({self.duration:.1f} s, {self.seconds_N2.shape[0]} clips)"]
        lines += [f"  {CUT_OFF}"] if self.truncated else []
        lines += [f"  {name:<{width}}  {score:6.3f}  {'█' * round(24 * score)}".rstrip() for name, score in best]
        return "\n".join(lines)


def _rounded(values: Tensor) -> Any:
    return [_rounded(row) for row in values] if values.ndim > 1 else [round(value, 6) for value in values.tolist()]
