"""What a model says of the clips of a data set, kept on disk in shards: features, logits, scores.

A folder holds `features-00003-of-00016.safetensors` and its like; sample i of the manifest is in shard i % n. Rows of
all clips of a shard lie one behind the other. A shard appears only when it is complete, and carries the settings that
made it, so that nothing is made twice and nothing of two kinds is mixed.
Extra axes: R clips of a shard, K classes, M clips of a video. The axis `2` is begin and end.
Not here: how they are made (`inference/extract.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wholereel.datasets.atomic_files import write_file
from wholereel.errors import DataError

__all__ = ["ExtractedVideo", "FeatureShards", "read_settings", "shard_file", "write_shard"]

FORMAT = 1
KEY = "wholereel"
NAME = re.compile(r"features-(\d{5})-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class ExtractedVideo:
    """One video's share.

    Args:
        id: of the sample.
        seconds_M2: float64, begin and end of each clip.
        clips: by name, what is said of each clip: `features` (M, D), `logits` (M, K).
        video: by name, what is said of the whole video: `scores` (K,).
    """

    id: str
    seconds_M2: Tensor
    clips: Mapping[str, Tensor]
    video: Mapping[str, Tensor]


def shard_file(folder: Path, shard: int, shards: int) -> Path:
    """The name of a shard."""
    return folder / f"features-{shard:05d}-of-{shards:05d}.safetensors"


def write_shard(
    file: Path, videos: Sequence[ExtractedVideo], settings: Mapping[str, Any], faults: Sequence[Mapping[str, str]]
) -> None:
    """Write a shard in one step.

    Args:
        settings: what determines the content; JSON.
        faults: samples that could not be read: `id`, `path`, `reason`.
    """
    counts = torch.tensor([len(video.seconds_M2) for video in videos], dtype=torch.int64)
    tensors = {"counts": counts, "seconds": _joined([video.seconds_M2 for video in videos])}
    for name in videos[0].clips if videos else ():
        tensors[f"clips.{name}"] = _joined([video.clips[name] for video in videos])
    for name in videos[0].video if videos else ():
        tensors[f"video.{name}"] = torch.stack([video.video[name] for video in videos])
    described = {
        "format": FORMAT,
        "ids": [video.id for video in videos],
        "settings": dict(settings),
        "faults": [dict(fault) for fault in faults],
    }
    write_file(file, lambda out: out.write(save(tensors, metadata={KEY: json.dumps(described)})))


def read_settings(file: Path) -> dict[str, Any]:
    """The settings that made a shard.

    Raises: DataError: not a shard.
    """
    settings: dict[str, Any] = _description(file)["settings"]
    return settings


class FeatureShards:
    """All shards of a folder, as a mapping from sample to what is known of it; rows are read when asked for.

    Args:
        folder: as `wholereel extract` fills it.
    Raises: DataError: no shards, some of them missing, or shards of different settings.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        files = _complete(self.folder)
        self.settings: dict[str, Any] = {}
        self.faults: list[dict[str, str]] = []
        self._places: dict[str, tuple[Path, int, int, int]] = {}
        for index, file in enumerate(files):
            described = _description(file)
            if index and described["settings"] != self.settings:
                raise DataError(file, "was made with other settings than its neighbours", remedy="Extract anew.")
            self.settings = described["settings"]
            self.faults += described["faults"]
            with safe_open(file, framework="pt") as tensors:
                ends = tensors.get_tensor("counts").cumsum(0).tolist()
            begins = [0, *ends][:-1]
            for row, (id_, begin, end) in enumerate(zip(described["ids"], begins, ends, strict=True)):
                self._places[id_] = file, row, begin, end

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._places

    def __iter__(self) -> Any:
        return iter(self._places)

    def __getitem__(self, id_: str) -> ExtractedVideo:
        """Raises: DataError: no such sample."""
        return self.read(id_)

    def seconds(self, id_: str) -> Tensor:
        """Begin and end of all clips of a sample, (M, 2)."""
        file, _, begin, end = self._place(id_)
        with safe_open(file, framework="pt") as tensors:
            seconds_M2: Tensor = tensors.get_slice("seconds")[begin:end]
        return seconds_M2

    def read(self, id_: str, clips: slice = slice(None)) -> ExtractedVideo:
        """One sample, or some neighbouring clips of it.

        Raises: DataError: no such sample.
        """
        file, row, begin, end = self._place(id_)
        first, last, _ = clips.indices(end - begin)
        begin, end = begin + first, begin + max(first, last)
        found: dict[str, dict[str, Tensor]] = {"clips": {}, "video": {}}
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (not a mapping)
                kind, _, name = key.partition(".")
                if name:
                    part = tensors.get_slice(key)
                    found[kind][name] = part[begin:end] if kind == "clips" else part[row]
            seconds_M2 = tensors.get_slice("seconds")[begin:end]
        return ExtractedVideo(id_, seconds_M2, found["clips"], found["video"])

    def _place(self, id_: str) -> tuple[Path, int, int, int]:
        if id_ not in self._places:
            unread = next((fault["reason"] for fault in self.faults if fault["id"] == id_), None)
            found = f"has nothing on sample {id_!r}" + (
                "" if unread is None else f", which could not be read: {unread}"
            )
            raise DataError(self.folder, found, remedy="Extract from a data set that has it.")
        return self._places[id_]


def _complete(folder: Path) -> list[Path]:
    names = [match for file in sorted(folder.glob("features-*.safetensors")) if (match := NAME.fullmatch(file.name))]
    counts = {int(match[2]) for match in names}
    if not names or len(counts) > 1:
        found = f"holds shards of {len(counts)} different divisions" if names else "holds no shards"
        raise DataError(folder, found, "one complete set, as wholereel extract writes it")
    (shards,) = counts
    missing = sorted(set(range(shards)) - {int(match[1]) for match in names})
    if missing:
        raise DataError(
            folder,
            f"lacks {len(missing)} of {shards} shards: {', '.join(map(str, missing[:5]))}",
            remedy=f"Run the extraction again; --shard {missing[0]}/{shards} makes one of them.",
        )
    return [folder / match[0] for match in names]


def _description(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            text = (tensors.metadata() or {}).get(KEY)
        described: dict[str, Any] = json.loads(text or "null") or {}
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise DataError(file, f"cannot be read ({error})", "a shard of wholereel extract") from error
    if described.get("format") != FORMAT:
        raise DataError(file, f"shard format {described.get('format')}", f"format {FORMAT}")
    return described


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, 2, dtype=torch.float64)
