"""Look at every file of a data set before training does: decode its first, middle and last frame, compare the splits.

Sounds are decoded whole. Pictures are videos of one frame, folders of numbered pictures are videos.

Not here: errors in the annotation file itself; reading it (`manifest.py`) raises those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.class_folders import SOUND_SUFFIXES
from wholereel.datasets.manifest import Manifest, Sample
from wholereel.errors import VideoError
from wholereel.media.audio_reader import AudioReader
from wholereel.media.frame_folder import open_frames

__all__ = ["Problem", "check_data", "write_problems"]


@dataclass(frozen=True)
class Problem:
    """Something that needs a person.

    Args:
        path: the file.
        reason: one sentence.
        bytes: its size; 0 where it does not exist.
    """

    path: Path
    reason: str
    bytes: int


def check_data(manifest: Manifest, *, workers: int = 0) -> list[Problem]:
    """Check all files and labels of a manifest.

    Args:
        manifest: best read without choosing a split, so that splits can be compared.
        workers: threads; decoding runs in parallel there. 0 = none.
    Returns: problems in the order of the samples (a file may have several), then the files that are listed and that the
        manifest left out, as they do not exist. Empty where all is well.
    """
    by_path: dict[Path, list[Sample]] = defaultdict(list)
    for sample in manifest.samples:
        by_path[sample.path].append(sample)
    paths = list(by_path)
    if workers:
        with ThreadPoolExecutor(workers) as pool:
            findings = list(pool.map(_check_file, paths, by_path.values()))
    else:
        findings = [_check_file(path, samples) for path, samples in by_path.items()]
    problems: list[Problem] = []
    for path, found in zip(paths, findings, strict=True):
        size = path.stat().st_size if path.is_file() else 0
        reasons = found + _label_problems(by_path[path], manifest)
        problems.extend(Problem(path, reason, size) for reason in reasons)
    problems.extend(Problem(manifest.root / name, "listed, but not found", 0) for name in manifest.dropped)
    return problems


def write_problems(problems: Sequence[Problem], path: Path) -> None:
    """Write a table `path, reason, bytes` separated by tabs, with a header; it appears only when it is complete."""
    lines = [f"{problem.path}\t{' '.join(problem.reason.split())}\t{problem.bytes}\n" for problem in problems]
    write_text_file(path, "path\treason\tbytes\n" + "".join(lines))


def _check_file(path: Path, samples: Sequence[Sample]) -> list[str]:
    """What is wrong with a file: it cannot be read, ends too early, or ends before a sample begins."""
    try:
        seconds, truncated = _decode(path, samples[0].frame_rate)
    except VideoError as error:
        return [str(error).removeprefix(f"{path}: ")]
    reasons = [truncated] if truncated else []
    for sample in samples:
        for name, begin in (("begins", sample.start), ("has its key frame", sample.key_seconds)):
            if (begin or 0.0) >= seconds:
                reasons.append(f"lasts {seconds:.2f} s, but sample {sample.id!r} {name} at {begin} s")
    return reasons


def _decode(path: Path, frame_rate: float | None) -> tuple[float, str]:
    """Length in seconds, and what is cut off, if anything is."""
    if path.suffix.lower() in SOUND_SUFFIXES:
        with AudioReader(path) as sound:
            lengths, cut = zip(*((part.seconds, part.truncated) for part in sound.stream(chunk=10.0)), strict=True)
        return sum(lengths), "truncated: the end of the sound does not decode" if any(cut) else ""
    with open_frames(path, frame_rate=frame_rate) as reader:
        count, rate = reader.frame_count, reader.metadata.frame_rate
        truncated = reader.read(indices=[0, count // 2, count - 1]).truncated
    return count / rate, "truncated: the last frames that its header promises do not decode" if truncated else ""


def _label_problems(samples: Sequence[Sample], manifest: Manifest) -> list[str]:
    """A file in several splits, the same part with different labels, or a part without the label that others have."""
    reasons = []
    splits = sorted({sample.split for sample in samples if sample.split is not None})
    if len(splits) > 1:
        reasons.append(f"in several splits: {', '.join(splits)}")
    parts: dict[tuple[Any, ...], Sample] = {}
    for sample in samples:
        # Key frames of one film share its segment; what is to be foreseen after one and the same part may differ.
        judged = (sample.key_seconds, sample.meta.get("action_start"), sample.meta.get("action_stop"))
        first = parts.setdefault((sample.start, sample.end, *judged), sample)
        if first.labels != sample.labels:
            reasons.append(f"different labels in samples {first.id!r} and {sample.id!r}")
        missing = [name for name in manifest.classes if name not in sample.labels]
        if missing and sample.split != "test":
            reasons.append(f"sample {sample.id!r} has no {', '.join(missing)}")
    return reasons
