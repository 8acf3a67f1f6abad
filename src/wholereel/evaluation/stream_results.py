"""Results of an evaluation on streams: a record for each clip, the numbers made of those with a label, two files.

Extra axes: K classes, Q judged clips. Numbers are named after their label space, `clip_top1` where there is only one.
`recall5` is the class-mean recall@5 of anticipation; with verbs and nouns, `action` is the pair, scored by the product
of both probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wholereel.batches import Fault
from wholereel.datasets.atomic_files import write_text_file
from wholereel.evaluation.intervals import wilson_interval
from wholereel.evaluation.measured import Measured, write_measured
from wholereel.metrics.average_precision import average_precision_K, weighted_mean
from wholereel.metrics.class_recall import mean_class_recall
from wholereel.metrics.confusion import confusion_counts
from wholereel.metrics.verb_noun import ACTION_BASE, action_ranks, ranks_higher_index_first

__all__ = ["ClipRecord", "StreamResults", "summarise_streams", "write_stream_results"]


@dataclass(frozen=True)
class ClipRecord:
    """What was found for one clip, or part of one; plain numbers, so that it travels between processes.

    Args:
        id: the clip's. begin, end: seconds in its video.
        targets: by label space: class indices (one where they exclude each other); `None` = no label.
        scores: by label space: K probabilities.
    """

    id: str
    begin: float
    end: float
    targets: Mapping[str, tuple[int, ...] | None]
    scores: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class StreamResults(Measured):
    """What was found of the clips of streams; samples are clips, as far as their files could be opened, and files that
    could not.

    Args:
        spaces: class names by label space; `classes` are all of them.
        records: of all clips, labelled or not, by id.
        others: see `Measured`.
    """

    spaces: Mapping[str, tuple[str, ...]]
    records: tuple[ClipRecord, ...]

    unit = "clips"

    @property
    def labelled(self) -> int:
        """Clips that have a label in some space."""
        return sum(any(target is not None for target in record.targets.values()) for record in self.records)

    def to_dict(self) -> dict[str, Any]:
        """As `Measured`, with the label spaces."""
        spaces = {name: list(names) for name, names in self.spaces.items()}
        return {**super().to_dict(), "labelled": self.labelled, "spaces": spaces}

    def _counts(self) -> list[str]:
        return [f"{super()._counts()[0]}, {self.labelled} of them have a label"]


def summarise_streams(
    records: Sequence[ClipRecord],
    faults: Sequence[Fault],
    *,
    spaces: Mapping[str, tuple[str, ...]],
    multi_label: bool,
    protocol: Mapping[str, Any],
) -> StreamResults:
    """Make the numbers of the records (in any order).

    Raises: ValueError: a clip that was judged twice.
    """
    records = sorted(records, key=lambda record: record.id)
    if len({record.id for record in records}) != len(records):
        raise ValueError("a clip was judged twice: the rows of the processes overlap")
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for space in spaces:
        name = space if len(spaces) > 1 else "clip"
        own = [record for record in records if record.targets[space] is not None]
        scores_QK = np.array([record.scores[space] for record in own]).reshape(len(own), len(spaces[space]))
        targets = [record.targets[space] or () for record in own]
        found = _several(scores_QK, targets) if multi_label else _one(scores_QK, targets)
        metrics |= {f"{name}_{key}": value for key, value in found.items()}
        for key in ("top1", "top5"):
            if key in found and own:
                intervals[f"{name}_{key}"] = wilson_interval(round(found[key] * len(own)), len(own))
    if {"verb", "noun"} <= spaces.keys() and "action" not in spaces and not multi_label:
        metrics |= {f"action_{key}": value for key, value in _pairs(records).items()}
    missing = [fault for fault in faults if fault.kind == "unreadable"]
    return StreamResults(
        protocol=protocol,
        metrics=metrics,
        intervals=intervals,
        classes=tuple(name for names in spaces.values() for name in names),
        samples=len(records) + len(missing),
        evaluated=len(records),
        spaces=spaces,
        records=tuple(records),
        faults=tuple(sorted(missing, key=lambda fault: fault.id)),
        truncated=tuple(sorted(fault.id for fault in faults if fault.kind == "truncated")),
    )


def _one(scores_QK: np.ndarray, targets: Sequence[tuple[int, ...]]) -> dict[str, float]:
    """Of classes that exclude each other: `top1`, `top5`, mean over classes of accuracy and of recall@5."""
    classes = scores_QK.shape[1]
    target_Q = np.array([target[0] for target in targets], dtype=np.int64)
    rank_Q = ranks_higher_index_first(scores_QK, target_Q) if len(target_Q) else np.zeros(0, dtype=np.int64)
    values = {f"top{k}": _share(rank_Q < k) for k in (1, 5) if k < classes}  # the k best of k classes are always right
    values["mean_class"] = float("nan")
    if len(target_Q):
        counts = confusion_counts(torch.from_numpy(scores_QK), torch.from_numpy(target_Q))
        values["mean_class"] = counts.value()["mean_class_accuracy"]
    return values | ({"recall5": mean_class_recall(rank_Q, target_Q)} if classes > 5 else {})


def _several(scores_QK: np.ndarray, targets: Sequence[tuple[int, ...]]) -> dict[str, float]:
    """Of several labels a clip: mean average precision."""
    target_QK = torch.zeros(scores_QK.shape, dtype=torch.float64)
    for row, target in enumerate(targets):
        target_QK[row, list(target)] = 1.0
    if not targets:
        return {"map": float("nan"), "map_weighted": float("nan")}
    precision_K = average_precision_K(torch.from_numpy(scores_QK), target_QK)
    return {"map": float(precision_K.nanmean()), "map_weighted": weighted_mean(precision_K, target_QK)}


def _pairs(records: Sequence[ClipRecord]) -> dict[str, float]:
    """Of pairs of a verb and a noun, scored by the product of their probabilities."""
    own = [record for record in records if record.targets["verb"] and record.targets["noun"]]
    if not own:
        return dict.fromkeys(("top1", "top5", "recall5"), float("nan"))
    tiny = np.finfo(np.float64).tiny
    verb_QV, noun_QO = (np.log(np.array([r.scores[space] for r in own]) + tiny) for space in ("verb", "noun"))
    verb_Q, noun_Q = (np.array([(r.targets[space] or (0,))[0] for r in own]) for space in ("verb", "noun"))
    rank_Q = action_ranks(verb_QV, noun_QO, verb_Q, noun_Q)
    recall5 = mean_class_recall(rank_Q, verb_Q * ACTION_BASE + noun_Q)
    return {"top1": _share(rank_Q < 1), "top5": _share(rank_Q < 5), "recall5": recall5}


def _share(hits_Q: np.ndarray) -> float:
    return float(hits_Q.mean()) if len(hits_Q) else float("nan")


def write_stream_results(results: StreamResults, out: Path) -> None:
    """Write `predictions.jsonl` (a line for each clip) and, when that is complete, `results.json`."""
    out.mkdir(parents=True, exist_ok=True)
    lines = (_line(record, results.spaces) for record in results.records)
    write_text_file(out / "predictions.jsonl", "".join(lines))
    write_measured(results, out)


def _line(record: ClipRecord, spaces: Mapping[str, tuple[str, ...]]) -> str:
    row: dict[str, Any] = {"id": record.id, "begin": round(record.begin, 6), "end": round(record.end, 6)}
    for space, names in spaces.items():
        target, scores = record.targets[space], record.scores[space]
        row[space] = {
            "labels": None if target is None else [names[index] for index in target],
            "predicted": names[max(range(len(names)), key=lambda index: scores[index])],
            "scores": [round(score, 6) for score in scores],
        }
    return json.dumps(row, ensure_ascii=False) + "\n"
